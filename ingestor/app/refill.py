"""Publish what was shed from the recording, in the topics that it is missing in.

The topics say what is missing and what an earlier refill has published already, so a refill may be
broken off and done again. Rows are flagged BACKFILL. Once all rows of a GAP are published, the GAP
itself is published again with that flag: it closes the range.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ingestor.app.republishing import Room, publisher
from ingestor.app.settings import book_settings, derived_settings_of, kafka_settings
from ingestor.codec import CodecError, decode
from ingestor.config.model import Config
from ingestor.consumer import Consumer
from ingestor.consumer.progress import Progress
from ingestor.history.shed_rows import MissingRows, PublishedRows, ShedRange, Stream
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Rows
from ingestor.model.timestamps import SECOND
from ingestor.recording.reader import Problems, SegmentChain, find_chains
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay

DEFAULT_KINDS: Final = ("trades", "liquidations")
_MARGIN_NS: Final = 60 * SECOND

Ranges = Mapping[Stream, Sequence[ShedRange]]


@dataclass(slots=True)
class RefillReport:
    """Report what a refill found and did.

    ranges: GAPs of cause `shed` that were open. filled: those that it closed. rows: published, by
    kind, marks of the recording among them and closing marks not. sessions: by the number of GAPs
    that were open. problems: of the recording.
    """

    ranges: int = 0
    filled: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    sessions: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "ranges": self.ranges,
            "filled": self.filled,
            "open": self.ranges - self.filled,
            "rows": dict(self.rows),
            "sessions": self.sessions,
            "problems": self.problems,
        }


def refillable(kinds: Sequence[str]) -> list[RowClass]:
    """Return the classes of some channels.

    Raises:
        ConfigError: for one that can't be filled: late rows of books would break those that
            consumers keep, and a compacted topic would keep a late row as the newest.
    """
    allowed = [
        row_class
        for row_class in ROW_CLASSES
        if row_class not in {RowClass.LEVEL, RowClass.ORDER} and not row_class.is_compacted
    ]
    names = [row_class.channel for row_class in allowed]
    for kind in kinds:
        if kind not in names:
            raise ConfigError(
                f"no rows of {kind!r} can be filled", hint=f"kinds are {', '.join(names)}"
            )
    return [row_class for row_class in allowed if row_class.channel in kinds]


async def refill(
    config: Config, folder: Path, kinds: Sequence[str] = DEFAULT_KINDS, *, dry_run: bool = False
) -> RefillReport:
    """Publish the rows that were shed and that the recordings in a folder hold.

    Args:
        config: Of the process that shed them.
        folder: Of its recorder.
        kinds: Channels whose rows are published.
        dry_run: Only find what is missing.

    Raises:
        ConfigError: There is no recording, a kind can't be filled, or another refill of the folder
            runs.
        SinkUnavailable: Kafka can't be reached.
    """
    classes = refillable(kinds)
    report, problems = RefillReport(), Problems()
    kafka = kafka_settings(config.kafka)
    with _alone(folder):
        raw = folder / "raw" if (folder / "raw").is_dir() else folder
        chains = [chain for chain in find_chains([raw], problems) if not chain.is_foreign]
        if not chains:
            raise ConfigError("there is no recording", where=str(folder))
        found = await _find(kafka, classes, chains)
        for session, streams in found.items():
            report.sessions[session] = sum(map(len, streams.values()))
            report.ranges += report.sessions[session]
            if not dry_run:
                of_session = [chain for chain in chains if chain.session == session]
                await _fill(config, of_session, streams, report, problems)
    report.problems = [str(problem) for problem in problems.kept]
    return report


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other refills away from a folder. Raises ConfigError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as failure:
        raise ConfigError(
            "no folder of recordings", where=str(folder), hint=failure.strerror or ""
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError("another refill of this folder runs", where=str(folder)) from None
    finally:
        os.close(descriptor)


async def _find(
    kafka: KafkaSettings, classes: Sequence[RowClass], chains: Sequence[SegmentChain]
) -> Mapping[str, Ranges]:
    """Read the topics from the first recorded time on; return what was shed, by session."""
    sessions = {chain.session for chain in chains}
    published = PublishedRows()
    seen: dict[tuple[str, int], Progress] = {}
    topics = [kafka.tick_topic(row_class) for row_class in classes]
    async with Consumer(
        kafka.bootstrap_servers,
        topics,
        start=min(chain.header.ts_ns for chain in chains),
        stop_at_end=True,
        margin_ns=_MARGIN_NS,
        may_be_absent=topics,
        **kafka.consumer_options(),
    ) as consumer:
        async for place, record in consumer.raw_records():
            try:
                decoded = decode(record.value or b"")
            except CodecError:
                continue  # none of ours
            progress = seen.setdefault(
                (place.topic, place.partition), Progress(place.topic, place.partition)
            )
            batch = decoded.batch
            known = progress.see(decoded.session, decoded.first_sequence, len(batch))
            if known < len(batch):
                rest = TickBatch(batch.row_class, batch.rows[known:], batch.instruments)
                session = decoded.session.hex()
                is_recorded = session in sessions
                published.take(session, place.partition, rest, is_recorded=is_recorded)
    return published.ranges()


async def _fill(
    config: Config,
    chains: Sequence[SegmentChain],
    streams: Ranges,
    report: RefillReport,
    problems: Problems,
) -> None:
    """Publish the missing rows of one session, then the marks of what is complete."""
    every = [shed_range for ranges in streams.values() for shed_range in ranges]
    options = ReplayOptions(
        tuple(path for chain in chains for path in chain.files),
        start_ns=min(shed_range.start_ns for shed_range in every),
        end_ns=max(shed_range.end_ns or 0 for shed_range in every) + 1,
        channels=frozenset(row_class.channel for row_class, _ in streams),
    )
    replay = Replay(options, settings=book_settings(config.books), problems=problems)
    replay.pipeline.derive(derived_settings_of(config, replay.table))
    missing = {stream: MissingRows(list(ranges)) for stream, ranges in streams.items()}
    numbers: dict[Stream, int] = {}
    last_ns = 0
    session = chains[0].session
    kafka = kafka_settings(config.kafka)
    async with publisher(kafka, replay, [("refill", session.encode())]) as sink:
        room = Room(sink)
        for result in replay.results():
            last_ns = max(last_ns, replay.now_ns)
            for batch in result.batches:
                rows = _missing_of(batch, missing, numbers)
                report.rows[batch.row_class.channel] += len(rows)
                sink.submit(TickBatch(batch.row_class, rows, batch.instruments), 0)
            await room.wait()
            await asyncio.sleep(0)
        first_ns = {chain.venue: chain.header.ts_ns for chain in chains}
        for (row_class, key), rows_of in missing.items():
            begun_ns = first_ns.get(key.partition(":")[0], last_ns)
            marks = rows_of.filled(begun_ns, last_ns)
            for mark in marks:
                mark["instrument"] = _number(replay, numbers, (row_class, key))
                sink.submit(TickBatch(row_class, mark, replay.table), 0)
            report.filled += len(marks)


def _missing_of(
    batch: TickBatch, missing: Mapping[Stream, MissingRows], numbers: dict[Stream, int]
) -> Rows:
    """Return the rows of a batch that are to be published, in their order."""
    parts = []
    for number in np.unique(batch.rows["instrument"]).tolist():
        stream = batch.row_class, batch.instruments[number].key
        if stream in missing:
            numbers[stream] = number
            chosen = missing[stream].choose(batch.rows[batch.rows["instrument"] == number])
            if len(chosen):
                parts.append(chosen)
    return np.concatenate(parts) if parts else batch.rows[:0]


def _number(replay: Replay, numbers: Mapping[Stream, int], stream: Stream) -> int:
    """Return the number of an instrument, also where nothing of it was missing."""
    found = numbers.get(stream)
    if found is not None:
        return found
    return max(number for number, one in enumerate(replay.table) if one.key == stream[1])


def refill_text(report: RefillReport, *, dry_run: bool) -> str:
    """Return the report as a few lines."""
    if not report.ranges:
        return "nothing is missing: every GAP of cause shed is filled, or there is none"
    lines = [f"{count:,} GAPs of session {session}" for session, count in report.sessions.items()]
    if not dry_run:
        rows = ", ".join(f"{count:,} {kind}" for kind, count in report.rows.items() if count)
        lines.append(f"published    {rows or 'nothing'}")
        lines.append(f"filled       {report.filled:,} of {report.ranges:,} GAPs")
    if not dry_run and report.filled < report.ranges:
        lines.append(
            "open         the recording does not hold all of them, or no later row says where they "
            "end: run it again later"
        )
    return "\n".join(lines)
