"""Proves that topics hold every row that was published, or names the holes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import orjson

from ingestor.codec import CodecError, position
from ingestor.consumer.consumer import Consumer, ForeignRecord
from ingestor.consumer.positions import EARLIEST
from ingestor.consumer.progress import MissingRange
from ingestor.model.errors import TopicAbsent


@dataclass(slots=True)
class Audit:
    """Hold the result of checking that topics hold every row that was numbered.

    holes: missing rows that nobody accounts for. void: sequence ranges that the publisher declared
    will never come (dead-lettered records). foreign_records: those that are none of ours; foreign
    has the last ones.
    """

    rows: int = 0
    duplicates: int = 0
    partitions: int = 0
    sessions: set[str] = field(default_factory=set)
    holes: list[MissingRange] = field(default_factory=list)
    void: list[MissingRange] = field(default_factory=list)
    foreign_records: int = 0
    foreign: list[ForeignRecord] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.holes


async def audit(
    bootstrap_servers: str, topics: Sequence[str], status_topic: str | None = None, **options: Any
) -> Audit:
    """Read topics from start to end and prove each partition's sequence numbers contiguous.

    A session that a topic's retention has cut begins with what is left of it.

    Args:
        bootstrap_servers: host:port, separated by commas.
        topics: Their names.
        status_topic: Where VOID ranges are; without it a dead-lettered record is a hole.
        **options: As for Consumer: security and, to audit a part, start_ns and until_ns.

    Raises:
        TopicAbsent: There is no such topic.
    """
    options = {"start": EARLIEST, "stop_at_end": True, **options}
    report = Audit()
    holes: list[MissingRange] = []
    async with Consumer(bootstrap_servers, topics, **options) as consumer:
        async for partition, record in consumer.raw_records():
            if record.value is None:
                continue
            try:
                consumer.progress_of(partition).see(*position(record.value))
            except CodecError as failure:
                consumer.skip(partition, record.offset, str(failure))
        holes = consumer.holes
        for progress in consumer.progress.values():
            report.rows += progress.rows
            report.duplicates += progress.duplicates
            report.sessions |= progress.sessions().keys()
        report.partitions = len(consumer.progress)
        report.foreign_records, report.foreign = consumer.foreign_records, list(consumer.foreign)
    if status_topic is not None:
        with suppress(TopicAbsent):  # then nothing was declared void
            await _read_void(report, bootstrap_servers, status_topic, options)
    for hole in holes:
        report.holes += remainder(hole, report.void)
    return report


async def _read_void(
    report: Audit, bootstrap_servers: str, status_topic: str, options: dict[str, Any]
) -> None:
    limits = {"start": EARLIEST, "end": None, "stop_at_end": True}
    async with Consumer(bootstrap_servers, [status_topic], **options | limits) as consumer:
        async for _, _, value in consumer.records():
            # A replaced producer may have declared it twice.
            report.void += [
                void_range for void_range in void_of(value) if void_range not in report.void
            ]


def void_of(value: bytes) -> list[MissingRange]:
    """Return the VOID range that a status record declares, if it is one that does."""
    message = orjson.loads(value)
    if message.get("kind") != "void":
        return []
    fields = ("topic", "partition", "session", "first", "last")
    return [MissingRange(*(message[name] for name in fields))]


def remainder(hole: MissingRange, void: Iterable[MissingRange]) -> list[MissingRange]:
    """Return what is left of a hole when VOID ranges are taken out of it."""
    left: list[MissingRange] = []
    first = hole.first
    where = (hole.topic, hole.partition, hole.session)
    same = [
        void_range
        for void_range in void
        if (void_range.topic, void_range.partition, void_range.session) == where
    ]
    for void_range in sorted(same, key=attrgetter("first")):
        if void_range.last < first or void_range.first > hole.last:
            continue
        if void_range.first > first:
            left.append(MissingRange(*where, first, void_range.first - 1))
        first = max(first, void_range.last + 1)
    if first <= hole.last:
        left.append(MissingRange(*where, first, hole.last))
    return left
