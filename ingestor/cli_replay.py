"""What `ingestor replay` does."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ingestor.cli_common import load_config
from ingestor.edge.audit import AuditSink, Tee, report
from ingestor.edge.channel import Sink
from ingestor.edge.reader import Problems
from ingestor.edge.replay import Replay, ReplayOptions
from ingestor.edge.settings import book_settings, budget, kafka_settings
from ingestor.errors import ConfigError, RecordingError, SinkUnavailable

CONNECT_S: Final = 15.0
DRAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go; to nothing when neither is given."""

    kafka: bool
    parquet: Path | None
    prefix: str
    allow_live_topics: bool
    config: Path | None


def run_replay(options: ReplayOptions, target: Target, *, speed: float | None) -> dict[str, Any]:
    """Replay; return the report. Problems of the recordings are told on standard error.

    Raises ConfigError when there is nothing to replay, or live topics would be written to;
    SinkUnavailable when Kafka takes no rows.
    """
    config = load_config(target.config)
    if target.kafka and target.prefix == config.kafka.topic_prefix and not target.allow_live_topics:
        raise ConfigError(
            f"{target.prefix!r} is the prefix of the live topics",
            where="--prefix",
            hint="say another, or --allow-live-topics",
        )
    problems = Problems()
    with _progress() as bar:
        task = bar.add_task("replay", total=None)
        replay = Replay(
            options,
            settings=book_settings(config.books),
            problems=problems,
            on_file=lambda _: bar.advance(task),
        )
        # Told from here on only: with nothing to replay, the error itself says why, in one line.
        for one in problems.kept:
            _tell(one)
        problems.tell = _tell
        bar.update(task, total=len(replay.files))
        counting = AuditSink()
        if not target.kafka and target.parquet is None and speed is None:
            for result in replay.results():
                for batch in result.batches:
                    counting.submit(batch, 0)
        else:
            asyncio.run(_into_sinks(replay, counting, target, speed))
    return report(replay, counting)


async def _into_sinks(
    replay: Replay, counting: AuditSink, target: Target, speed: float | None
) -> None:
    sinks: list[Sink] = [counting]
    if target.parquet is not None:
        from ingestor.edge.parquet import ParquetSink  # noqa: PLC0415 -- an optional extra

        sinks.append(ParquetSink(target.parquet))
    if target.kafka:
        await _into_kafka(replay, sinks, target, speed)
        return
    sink = Tee(*sinks)
    await replay.run(sink, speed=speed)
    await sink.drain(DRAIN_S)


async def _into_kafka(
    replay: Replay, others: list[Sink], target: Target, speed: float | None
) -> None:
    from ingestor.edge.kafka import KafkaSink  # noqa: PLC0415 -- slow to import

    config = load_config(target.config)
    # Old timestamps would meet the retention at once.
    kafka = replace(kafka_settings(config.kafka), topic_prefix=target.prefix, retention_ms=-1)
    kafka_sink = KafkaSink(
        kafka,
        replay.table,
        replay.pipeline.metrics,
        session=os.urandom(16),  # its own: a replay's numbers don't mix with the recording's
        budget=budget(config.budget),
    )
    gate = asyncio.Event()
    gate.set()
    kafka_sink.on_pause, kafka_sink.on_resume = gate.clear, gate.set
    running = asyncio.create_task(kafka_sink.run())
    try:
        await kafka_sink.wait_connected(CONNECT_S)
        await replay.run(Tee(*others, kafka_sink), speed=speed, gate=gate)
        for sink in others:
            await sink.drain(DRAIN_S)
        left = await kafka_sink.drain(DRAIN_S)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    if left:
        raise SinkUnavailable(f"Kafka at {kafka.bootstrap_servers}", f"{left:,} rows not accepted")


def _tell(problem: RecordingError) -> None:
    typer.echo(f"ingestor: {problem}", err=True)


def _progress() -> Progress:
    """A bar by files, on standard error; nothing where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} files"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def replay_text(found: dict[str, Any]) -> str:
    """Return the report as a few lines."""
    rows = ", ".join(f"{count:,} {kind}" for kind, count in found["rows"].items() if count)
    books = ", ".join(f"{count:,} {name}" for name, count in found["books"].items())
    inferred = found["instruments"].get("inferred")
    names = ("control", "rejected", "filtered", "duplicates")
    frames = ", ".join(f"{found[name]:,} {name}" for name in names)
    left_out = f"{found['filtered_rows']:,} filtered, {found['duplicate_rows']:,} duplicate"
    lines = (
        f"frames       {found['frames']:,}: {frames}",
        f"rows         {rows or 'none'}",
        f"left out     {left_out}",
        f"books        {books}",
        f"instruments  {'inferred: ' + ', '.join(inferred) if inferred else 'known'}",
        f"digest       {found['digest']}",
        f"unaccounted  {found['unaccounted']:,}",
    )
    return "\n".join(lines)
