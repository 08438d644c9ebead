"""`ingestor run` in several processes: the parent's side, and a worker's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
import typer

from ingestor.app import Ingestor, load_plan, settings
from ingestor.cli.common import EXIT_FAILURE, print_json, unless_signal
from ingestor.cli.lifecycle import run_until_stopped
from ingestor.cluster.parent import Workers
from ingestor.config.model import Config
from ingestor.telemetry import logs

log: Final = structlog.get_logger(__name__)


async def run_workers(
    config: Config, file: Path, count: int, *, seconds: float | None, as_json: bool
) -> int:
    """Run the feeds in `count` processes until stopped; return the exit status.

    Whatever is wrong with the configuration is found here, before any of them starts.
    """
    planned = await unless_signal(load_plan(config, str(file)))
    settings.kafka_settings(config.kafka)
    workers = Workers(config, file, planned.plan, count)
    if len(workers.workers) < count:
        log.warning("workers.fewer", wanted=count, connections=len(planned.plan))
    status = await run_until_stopped(
        workers,
        seconds=seconds,
        as_json=as_json,
        details=workers.details,
        abandon=workers.abandon,
    )
    if workers.failed:
        sys.stderr.write(f"ingestor: {workers.failed} workers did not end in order\n")
        return EXIT_FAILURE
    return status


async def run_share(config: Config, file: Path, share: str) -> int:
    """Run one worker's share, as the parent wants it; return the exit status."""
    index, workers = _parsed(share)
    logs.label(worker=index)
    planned = await unless_signal(load_plan(config, str(file)))
    ingestor = Ingestor(config, replace(planned, plan=planned.plan.share(index, workers)))
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, ingestor.stop)
    stdin = sys.stdin.fileno()

    def heard() -> None:
        if not os.read(stdin, 4096):  # the parent is gone
            loop.remove_reader(stdin)
            ingestor.stop()

    def started() -> None:
        assert ingestor.http is not None
        print_json({"http_port": ingestor.http.port})

    loop.add_reader(stdin, heard)
    drained = await ingestor.run(started)
    print_json({"status": drained.status.to_json(), "lost": drained.lost})
    return EXIT_FAILURE if drained.lost or drained.status.unaccounted else 0


def _parsed(share: str) -> tuple[int, int]:
    index, slash, workers = share.partition("/")
    if not (slash and index.isdecimal() and workers.isdecimal() and int(index) < int(workers)):
        raise typer.BadParameter(f"{share!r} is no I/N with I below N", param_hint="--share")
    return int(index), int(workers)
