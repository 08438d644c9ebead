"""Replay recordings for `ingestor replay`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ingestor.app.republishing import Room, publisher
from ingestor.app.settings import (
    book_settings,
    derived_settings_of,
    kafka_settings,
    tracing_settings,
)
from ingestor.cli.common import complain, load_config
from ingestor.model.errors import ConfigError, RecordingError
from ingestor.recording.reader import Problems
from ingestor.sinks.digest import AuditSink
from ingestor.sinks.interface import Sink, Tee
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import report
from ingestor.telemetry.tracing import tracing

if TYPE_CHECKING:
    from ingestor.codec import Headers
    from ingestor.config.model import Config

DRAIN_S: Final = 60.0
REPLAY_PREFIX: Final = "replay."


@dataclass(frozen=True, slots=True)
class Target:
    """Choose where the rows go; to nothing when neither is given."""

    kafka: bool
    parquet: Path | None
    prefix: str | None  # of the topics; None = "replay." before the live one
    allow_live_topics: bool
    config: Path | None


def run_replay(options: ReplayOptions, target: Target, *, speed: float | None) -> dict[str, Any]:
    """Replay. Problems of the recordings are told on standard error.

    Args:
        options: What to replay.
        target: Where rows go.
        speed: 1.0 as recorded, None as fast as possible.

    Returns:
        The report.

    Raises:
        ConfigError: There is nothing to replay, or live topics would be written to.
        SinkUnavailable: Kafka takes no rows.
    """
    config = load_config(target.config)
    if target.kafka:
        _check_prefix(target, config.kafka.topic_prefix)
    problems = Problems()
    with _traced(config), _progress() as bar:
        task = bar.add_task("replay", total=None)
        replay = Replay(
            options,
            settings=book_settings(config.books),
            problems=problems,
            on_file=lambda _: bar.advance(task),
        )
        replay.pipeline.derive(derived_settings_of(config, replay.table))
        # Told from here on only: with nothing to replay, the error itself says why, in one line.
        for problem in problems.kept:
            _tell(problem)
        problems.tell = _tell
        bar.update(task, total=len(replay.files))
        counting = AuditSink()
        if not target.kafka and target.parquet is None and speed is None:
            for result in replay.results():
                for batch in result.batches:
                    counting.submit(batch, 0)
        else:
            asyncio.run(_into_sinks(replay, counting, target, speed))
    replay.check_filters()
    return report(replay, counting)


@contextmanager
def _traced(config: Config) -> Iterator[None]:
    """Make a span of what is done, where there is a collector."""
    settings = tracing_settings(config)
    has_begun = settings is not None and tracing.begin(settings)
    try:
        with tracing.span("replay"):
            yield
    finally:
        if has_begun:
            tracing.end()


def _check_prefix(target: Target, live: str) -> None:
    if target.prefix == live and not target.allow_live_topics:
        raise ConfigError(
            f"{live!r} is the prefix of the live topics",
            where="--prefix",
            hint="say another, or --allow-live-topics",
        )


async def _into_sinks(
    replay: Replay, counting: AuditSink, target: Target, speed: float | None
) -> None:
    sinks: list[Sink] = [counting]
    if target.parquet is not None:
        from ingestor.recording.parquet import ParquetSink  # noqa: PLC0415 -- an optional extra

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
    kafka = kafka_settings(load_config(target.config).kafka)
    prefix = REPLAY_PREFIX + kafka.topic_prefix if target.prefix is None else target.prefix
    # Old timestamps would meet the retention at once.
    kafka = replace(kafka, topic_prefix=prefix, retention_ms=-1)
    async with publisher(kafka, replay, replay_headers(replay.sessions)) as sink:
        await replay.run(Tee(*others, sink), speed=speed, gate=Room(sink))
        for other in others:
            await other.drain(DRAIN_S)


def replay_headers(sessions: Iterable[str]) -> Headers:
    """Return what tells a replay's records from live ones: `replay`, and a `recording` for each
    session that is replayed.
    """
    return [("replay", b"1"), *(("recording", session.encode()) for session in sessions)]


def _tell(problem: RecordingError) -> None:
    complain(str(problem))


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
