"""Runs an `Ingestor`, or several, for a command: signals, live view, ledger, exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import structlog
from rich.console import Console

from ingestor.admin import terminal as live
from ingestor.admin.server import AdminServer
from ingestor.admin.service_manager import READY, STOPPING, service_manager
from ingestor.cli.common import EXIT_FAILURE, put_json
from ingestor.config.model import Config
from ingestor.native import native
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.output import drain, put, text_file
from ingestor.telemetry.status import Status

log: Final = structlog.get_logger(__name__)


class Ended(Protocol):
    """Say how a run ended. lost: rows that were read and could not be delivered in time."""

    @property
    def status(self) -> Status: ...
    @property
    def lost(self) -> int: ...


class Runnable(Protocol):
    """An `Ingestor`, or `Workers`."""

    config: Config

    @property
    def http(self) -> AdminServer | None: ...
    def status(self) -> Status: ...
    def stop(self) -> None: ...
    def request_reload(self) -> None: ...
    async def run(self, on_ready: Callable[[], None] | None = None) -> Ended: ...


async def run_until_stopped(
    ingestor: Runnable,
    *,
    seconds: float | None = None,
    as_json: bool = False,
    details: Callable[[], Mapping[str, Any]] = dict,
    abandon: Callable[[], None] = lambda: None,
) -> int:
    """Run until SIGTERM, SIGINT or `seconds` after the start.

    The first signal drains, the second leaves at once.

    Args:
        ingestor: What to run.
        seconds: How long; None for until stopped.
        as_json: The result is one JSON object, the last line of standard output. The live display
            goes to standard error then.
        details: More members of that object.
        abandon: Called before leaving at once.

    Returns:
        The exit status.
    """
    loop = asyncio.get_running_loop()
    console = Console(file=text_file(sys.stderr if as_json else sys.stdout))
    signals, manager = 0, service_manager()

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            _leave_at_once(ingestor, abandon)
        log.info("ingestor.stopping", drain_s=ingestor.config.limits.drain_s)
        manager.tell(STOPPING)
        ingestor.stop()

    def started() -> None:
        manager.tell(READY)
        if seconds is not None:
            loop.call_later(seconds, ingestor.stop)
        if ingestor.http is not None:
            config = ingestor.config.http
            log.info("http.listening", url=f"http://{config.host}:{ingestor.http.port}/")
        log.info("frames.read", way=native().way, reason=native().reason)

    # Whoever was started by nohup goes on without its terminal.
    needs_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    def hung_up() -> None:
        if needs_terminal and not _has_terminal():
            stop()
        else:
            ingestor.request_reload()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    showing = bulkheads.keep("terminal", lambda: live.show(ingestor.status, console))
    view = asyncio.create_task(showing, name="live view")
    signs = asyncio.create_task(bulkheads.keep("service manager", manager.watch))
    try:
        ended = await ingestor.run(started)
    finally:
        for task in (view, signs):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for item in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(item)
    return _report(ended, details(), as_json=as_json)


def _has_terminal() -> bool:
    """Say whether a terminal controls this process, and is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _report(ended: Ended, details: Mapping[str, Any], *, as_json: bool) -> int:
    status = ended.status
    put(live.ledger(status), err=as_json)
    if ended.lost:
        put(f"ingestor: {ended.lost:,} rows could not be delivered in time", err=True)
    if as_json:
        put_json({**status.summary(), "lost": ended.lost, **details})
    return EXIT_FAILURE if ended.lost or status.unaccounted else 0


def _leave_at_once(ingestor: Runnable, abandon: Callable[[], None]) -> None:
    """No clean-up that could wait for anything: the user has asked twice."""
    abandon()
    pending = ingestor.status().pending
    put(f"ingestor: left at once, {pending:,} rows were not acknowledged", err=True)
    drain()
    os._exit(EXIT_FAILURE)
