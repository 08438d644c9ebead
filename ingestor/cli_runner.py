"""Runs one `Ingestor` for a command: signals, live view, ledger, exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Final

import structlog
from rich.console import Console

from ingestor.app import Drained, Ingestor
from ingestor.cli_common import EXIT_FAILURE, print_json
from ingestor.edge import live

log: Final = structlog.get_logger(__name__)


async def run_until_stopped(
    ingestor: Ingestor, *, seconds: float | None = None, as_json: bool = False
) -> int:
    """Run until SIGTERM, SIGINT or `seconds` after the start; return the exit status.

    The first signal drains, the second leaves at once. as_json: the result is one JSON object, the
    last line of standard output; what is live goes to standard error then.
    """
    loop = asyncio.get_running_loop()
    console = Console(stderr=as_json)
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            _leave_at_once(ingestor)
        log.info("ingestor.stopping", drain_s=ingestor.config.limits.drain_s)
        ingestor.stop()

    def started() -> None:
        if seconds is not None:
            loop.call_later(seconds, ingestor.stop)
        if ingestor.http is not None:
            config = ingestor.config.http
            log.info("http.listening", url=f"http://{config.host}:{ingestor.http.port}/")

    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop)
    view = asyncio.create_task(live.show(ingestor.status, console), name="live view")
    try:
        drained = await ingestor.run(started)
    finally:
        view.cancel()
        with suppress(asyncio.CancelledError):
            await view
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)
    return _report(drained, console, as_json=as_json)


def _report(drained: Drained, console: Console, *, as_json: bool) -> int:
    status = drained.status
    console.print(live.ledger(status), markup=False, highlight=False, soft_wrap=True)
    if drained.lost:
        sys.stderr.write(f"ingestor: {drained.lost:,} rows could not be delivered in time\n")
    if as_json:
        print_json({**status.summary(), "lost": drained.lost})
    return EXIT_FAILURE if drained.lost or status.unaccounted else 0


def _leave_at_once(ingestor: Ingestor) -> None:
    """No clean-up that could wait for anything: the user has asked twice."""
    pending = ingestor.status().pending
    sys.stderr.write(f"ingestor: left at once, {pending:,} rows were not acknowledged\n")
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)
