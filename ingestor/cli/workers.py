"""`ingestor run` as a part of a whole: one shard, a parent's workers, and a worker's own side."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import structlog

from ingestor.app import Ingestor, load_plan, settings
from ingestor.app.planning import Planned
from ingestor.app.reload import Configuration
from ingestor.cli.common import (
    EXIT_FAILURE,
    complain,
    configuration,
    part_of,
    put_json,
    unless_signal,
)
from ingestor.cli.lifecycle import run_until_stopped
from ingestor.cluster.control import Dealt, WorkerControl, dealt_share
from ingestor.cluster.parent import Workers
from ingestor.cluster.store import read_cluster
from ingestor.cluster.worker import ClusterWorker
from ingestor.config.model import Config
from ingestor.sources.live.replan import shard_part
from ingestor.telemetry import logs

log: Final = structlog.get_logger(__name__)


async def planned_part(config: Config, file: Path, shard: str | None) -> Planned:
    """Load the plan, and take the part that a shard runs.

    Args:
        config: The configuration.
        file: Its file.
        shard: "I/N"; None for the whole plan.

    Raises:
        ConfigError: The plan can't be made.
    """
    planned = await unless_signal(load_plan(config, str(file)))
    if shard is None:
        return planned
    index, shards = part_of(shard, "--shard")
    mine = shard_part(planned.plan, index, shards)
    log.info(
        "shard.planned",
        shard=shard,
        connections=len(mine),
        of=len(planned.plan),
        plan=planned.plan.digest,
    )
    if not mine.connections:
        log.warning("shard.empty", shard=shard, connections=len(planned.plan))
    return replace(planned, plan=mine)


def configuration_of_shard(file: Path, shard: str | None) -> Configuration:
    """Return what a reload of a shard reads; None for the whole plan."""
    if shard is None:
        return configuration(file)
    index, shards = part_of(shard, "--shard")
    return configuration(
        file,
        lambda config: config_of_shard(config, shard),
        lambda plan: shard_part(plan, index, shards),
    )


def config_of_shard(config: Config, shard: str | None) -> Config:
    """Return the configuration of a shard: it keeps its last session apart from other shards'."""
    if shard is None:
        return config
    index, shards = part_of(shard, "--shard")
    return settings.with_state_dir_of(config, f"shard-{index}-of-{shards}")


async def run_workers(
    config: Config,
    file: Path,
    count: int,
    *,
    shard: str | None,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Run the feeds in several processes until stopped.

    Errors of the configuration are found here, before any of them starts.

    Args:
        config: The configuration.
        file: Its file.
        count: Number of processes.
        shard: Part of the plan, such as "1/2"; None for all of it.
        seconds: How long; None for until stopped.
        as_json: Print the result as one JSON object.

    Returns:
        The exit status.
    """
    planned = await planned_part(config, file, shard)
    settings.kafka_settings(config.kafka)
    arguments = () if shard is None else ("--shard", shard)
    reload = configuration_of_shard(file, shard), planned
    workers = Workers(config, file, planned.plan, count, arguments=arguments, reload=reload)
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


async def run_worker(
    config: Config, file: Path, worker: str, shard: str | None, dealt: Dealt | None
) -> int:
    """Run one worker's share, as the parent wants it; return the exit status.

    Args:
        config: the configuration.
        file: its name.
        worker: I/N.
        shard: the part of the plan that all workers together carry; None for all of it.
        dealt: which streams this one carries; None for every N-th connection.
    """
    index, workers = part_of(worker, "--worker")
    logs.label(worker=index)
    planned = await planned_part(config, file, shard)
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
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ingestor.stop)
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


async def run_cluster(config: Config, *, seconds: float | None, as_json: bool) -> int:
    """Run as a worker of a cluster until stopped; return the exit status.

    Raises:
        ClusterError: there is no such cluster.
        SinkUnavailable: Kafka can't be reached.

    Args:
        config: The configuration.
        seconds: How long; None for until stopped.
        as_json: Print JSON.
    """
    kafka = settings.kafka_settings(config.kafka)
    cluster = await unless_signal(read_cluster(kafka, config.cluster.name))
    worker = ClusterWorker(config, len(cluster.shards))
    logs.label(worker=worker.member)
    return await run_until_stopped(worker, seconds=seconds, as_json=as_json)


def dealt_from(file: Path) -> Dealt:
    """Read which streams a worker carries, as its parent wrote it."""
    return msgspec.json.decode(file.read_bytes(), type=Dealt)
