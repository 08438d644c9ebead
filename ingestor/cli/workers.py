"""`ingestor run` in several processes: the parent's side, and a worker's."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import structlog
import typer

from ingestor.app import Ingestor, load_plan, settings
from ingestor.cli.common import EXIT_FAILURE, complain, configuration, put_json, unless_signal
from ingestor.cli.lifecycle import run_until_stopped
from ingestor.cluster.control import Dealt, WorkerControl, dealt_share
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
    reload = configuration(file), planned
    workers = Workers(config, file, planned.plan, count, reload=reload)
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
        complain(f"{workers.failed} workers did not end in order")
        return EXIT_FAILURE
    return status


async def run_share(config: Config, file: Path, share: str, dealt: Dealt | None) -> int:
    """Run one worker's share, as the parent wants it; return the exit status.

    Args:
        config: the configuration.
        file: its name.
        share: I/N.
        dealt: which streams that is; None for every N-th connection.
    """
    index, workers = _parsed(share)
    logs.label(worker=index)
    planned = await unless_signal(load_plan(config, str(file)))
    if dealt is None:
        plan = planned.plan.share(index, workers)
    else:
        plan = dealt_share(planned.plan, dealt, index, workers)
    ingestor = Ingestor(
        config,
        replace(planned, plan=plan),
        history=settings.session_history(config),
    )
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, ingestor.stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the parent passes reloads on

    def started() -> None:
        assert ingestor.http is not None
        put_json({"http_port": ingestor.http.port})

    listening = asyncio.create_task(WorkerControl(ingestor, put_json).run(sys.stdin.buffer))
    try:
        drained = await ingestor.run(started)
    finally:
        listening.cancel()
    put_json({"status": drained.status.to_json(), "lost": drained.lost})
    return EXIT_FAILURE if drained.lost or drained.status.unaccounted else 0


def dealt_from(file: Path) -> Dealt:
    """Read which streams a worker carries, as its parent wrote it."""
    return msgspec.json.decode(file.read_bytes(), type=Dealt)


def _parsed(share: str) -> tuple[int, int]:
    index, slash, workers = share.partition("/")
    if not (slash and index.isdecimal() and workers.isdecimal() and int(index) < int(workers)):
        raise typer.BadParameter(f"{share!r} is no I/N with I below N", param_hint="--share")
    return int(index), int(workers)
