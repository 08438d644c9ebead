"""Reading the topics: either encoding into the same batches, each row once, holes by name.

A strategy in ten lines:

    async def main() -> None:
        async with Consumer("localhost:9092", ["md.trades.v1"]) as consumer:
            async for batch in consumer:
                for row in batch.rows[batch.rows["kind"] == Kind.TRADE]:
                    instrument = batch.instruments[row["instrument"]]
                    price = row["price"] / 10**instrument.price_exponent
                    if instrument.key == "binance:spot:BTCUSDT" and price < 50_000:
                        print("cheap", price, iso_text(int(row["ts_event"])))

Rows of one instrument come in order. A replaced producer may have sent rows twice, which
(session, sequence) tells: they are given once. Rows that are missing in the topic are in `holes`;
a GAP row says that the publisher knows of some it never had.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from ingestor.codec import CodecError, Decoded, WireInstrument, decode, position
from ingestor.columns.buffer import TickBatch
from ingestor.kafka.aiokafka_compat import fail_writes_to_lost_sockets
from ingestor.model.decimals import parse_decimal
from ingestor.model.errors import TopicAbsent
from ingestor.model.rows import LEVEL, Flag, Kind, RowClass, Side

__all__ = ["Audit", "BookImage", "Consumer", "Hole", "Progress", "audit", "book_image", "decode"]

EARLIEST: Final = 0
_POLL_MS: Final = 500
_SESSIONS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class Hole:
    """Sequence numbers first..last of a session that a partition doesn't hold."""

    topic: str
    partition: int
    session: str
    first: int
    last: int


@dataclass(slots=True)
class Progress:
    """What was seen of one (topic, partition): tells new rows from repeated and missing ones.

    A session that is met for the first time in mid-stream begins with what was met.
    """

    topic: str
    partition: int
    holes: list[Hole] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0
    _next: dict[bytes, int] = field(default_factory=dict)

    def see(self, session: bytes, first: int, rows: int) -> int:
        """Take note of a record; return how many of its rows, from its first, were seen before."""
        expected = self._next.get(session)
        if expected is None:
            expected = first
            if len(self._next) >= _SESSIONS_MAX:
                del self._next[next(iter(self._next))]
        if first > expected:
            self.holes.append(Hole(self.topic, self.partition, session.hex(), expected, first - 1))
        known = min(max(expected - first, 0), rows)
        self.duplicates += known
        self.rows += rows - known
        self._next[session] = max(expected, first + rows)
        return known

    def sessions(self) -> dict[str, int]:
        """Return each session's next sequence number."""
        return {session.hex(): expected for session, expected in self._next.items()}


class Consumer:
    """An async iterator of TickBatch over tick topics. Without a group: it reads all partitions.

    start_ns: rows received from then on (ns since the epoch; by record time, in whole ms); None
    begins at the end, EARLIEST at the beginning. until_ns: stops before the first record of that
    time; `stop_at_end` stops where the topics ended when reading began. margin_ns: begins and ends
    so much outside, and one record later, for who chooses rows by their own time: a record has the
    time of its last row, and several publishers don't write in order of time. options: passed on to
    aiokafka (security, fetch sizes).

    Raises TopicAbsent when it is entered (nothing is created by asking), CodecError for a record
    that isn't ours.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topics: Sequence[str],
        *,
        start_ns: int | None = None,
        until_ns: int | None = None,
        margin_ns: int | None = None,
        stop_at_end: bool = False,
        **options: Any,
    ) -> None:
        self.progress: dict[TopicPartition, Progress] = {}
        self._topics = topics
        self._servers = bootstrap_servers
        self._start_ns = start_ns
        self._until_ns = until_ns
        self._margin_ns = margin_ns
        self._stop_at_end = stop_at_end
        self._ends: dict[TopicPartition, int] = {}
        fail_writes_to_lost_sockets()
        self._kafka = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers, enable_auto_commit=False, **options
        )

    async def __aenter__(self) -> Self:
        try:
            await self._kafka.start()
            await self._seek()
        except BaseException:
            await self._kafka.stop()
            raise
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._kafka.stop()

    @property
    def holes(self) -> list[Hole]:
        """Rows that were published and never came."""
        return [hole for progress in self.progress.values() for hole in progress.holes]

    async def __aiter__(self) -> AsyncIterator[TickBatch]:
        async for partition, _, value in self.records():
            batch = self._unseen(partition, decode(value))
            if len(batch):
                yield batch

    async def records(self) -> AsyncIterator[tuple[TopicPartition, bytes | None, bytes]]:
        """Yield (partition, key, value) of the raw records within the chosen range."""
        waiting = await self._unfinished(self._kafka.assignment())
        while waiting:
            found = await self._kafka.getmany(*waiting, timeout_ms=_POLL_MS)
            for partition, records in found.items():
                end = self._ends.get(partition)
                for record in records:
                    if end is not None and record.offset >= end:
                        break
                    if record.value is not None:
                        yield partition, record.key, record.value
            if self._ends:
                waiting = await self._unfinished(waiting)

    async def _unfinished(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [
            one
            for one in partitions
            if one not in self._ends or await self._kafka.position(one) < self._ends[one]
        ]

    async def _seek(self) -> None:
        """Assign every partition, go to the start, note the ends."""
        kafka = self._kafka
        # All topics: a request that names one would create it where the broker does that.
        known = (await kafka._client.fetch_all_metadata()).topics()  # noqa: SLF001
        for topic in self._topics:
            if topic not in known:
                raise TopicAbsent(topic, self._servers)
        partitions = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in sorted(await self._partitions_of(topic))
        ]
        kafka.assign(partitions)
        if self._start_ns is None:
            await kafka.seek_to_end(*partitions)
        elif self._start_ns == EARLIEST:
            await kafka.seek_to_beginning(*partitions)
        else:
            start_ns = max(self._start_ns - (self._margin_ns or 0), EARLIEST)
            for partition, offset in (await self._offsets_at(partitions, start_ns)).items():
                kafka.seek(partition, offset)
        if self._until_ns is not None:
            until_ns = self._until_ns + (self._margin_ns or 0)
            self._ends = await self._offsets_at(partitions, until_ns)
            if self._margin_ns is not None:
                ends = await kafka.end_offsets(partitions)
                self._ends = {one: min(at + 1, ends[one]) for one, at in self._ends.items()}
        elif self._stop_at_end:
            self._ends = await kafka.end_offsets(partitions)

    async def _partitions_of(self, topic: str) -> set[int]:
        # Metadata of a topic that nobody asked for yet come with the next update.
        await self._kafka._client._wait_on_metadata(topic)  # noqa: SLF001
        partitions: set[int] | None = self._kafka.partitions_for_topic(topic)
        return partitions or set()

    async def _offsets_at(
        self, partitions: Sequence[TopicPartition], ts_ns: int
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record at or after a time, else the end, of each."""
        ts_ms = -(-ts_ns // 1_000_000)
        found = await self._kafka.offsets_for_times(dict.fromkeys(partitions, ts_ms))
        ends = await self._kafka.end_offsets(partitions)
        return {
            one: found[one].offset if found.get(one) is not None else ends[one]
            for one in partitions
        }

    def _unseen(self, partition: TopicPartition, decoded: Decoded) -> TickBatch:
        batch = decoded.batch
        progress = self.progress_of(partition)
        known = progress.see(decoded.session, decoded.first_sequence, len(batch.rows))
        return TickBatch(batch.row_class, batch.rows[known:], batch.instruments)

    def progress_of(self, partition: TopicPartition) -> Progress:
        """Return what was seen of a partition, for now nothing if it is new."""
        found = self.progress.get(partition)
        if found is None:
            found = self.progress[partition] = Progress(partition.topic, partition.partition)
        return found


@dataclass(slots=True)
class Audit:
    """Whether topics hold every row that was numbered.

    holes: missing rows that nobody accounts for. void: sequence ranges that the publisher declared
    will never come (dead-lettered records).
    """

    rows: int = 0
    duplicates: int = 0
    partitions: int = 0
    sessions: set[str] = field(default_factory=set)
    holes: list[Hole] = field(default_factory=list)
    void: list[Hole] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.holes


async def audit(
    bootstrap_servers: str, topics: Sequence[str], status_topic: str | None = None, **options: Any
) -> Audit:
    """Read topics from start to end and prove each partition's sequence numbers contiguous.

    A session that a topic's retention has cut begins with what is left of it. status_topic: where
    VOID ranges are; without it a dead-lettered record is a hole. options: as for Consumer (security
    and, to audit a part, start_ns and until_ns). Raises TopicAbsent.
    """
    options = {"start_ns": EARLIEST, **options}
    stop_at_end = options.get("until_ns") is None
    report = Audit()
    holes: list[Hole] = []
    async with Consumer(bootstrap_servers, topics, stop_at_end=stop_at_end, **options) as consumer:
        async for partition, _, value in consumer.records():
            consumer.progress_of(partition).see(*position(value))
        holes = consumer.holes
        for progress in consumer.progress.values():
            report.rows += progress.rows
            report.duplicates += progress.duplicates
            report.sessions |= progress.sessions().keys()
        report.partitions = len(consumer.progress)
    if status_topic is not None:
        with suppress(TopicAbsent):  # then nothing was declared void
            await _read_void(report, bootstrap_servers, status_topic, options)
    for hole in holes:
        report.holes += remainder(hole, report.void)
    return report


async def _read_void(
    report: Audit, bootstrap_servers: str, status_topic: str, options: dict[str, Any]
) -> None:
    limits = {"start_ns": EARLIEST, "until_ns": None}
    async with Consumer(
        bootstrap_servers, [status_topic], stop_at_end=True, **options | limits
    ) as consumer:
        async for _, _, value in consumer.records():
            # A replaced producer may have declared it twice.
            report.void += [one for one in void_of(value) if one not in report.void]


def void_of(value: bytes) -> list[Hole]:
    """Return the VOID range that a status record declares, if it is one that does."""
    message = orjson.loads(value)
    if message.get("kind") != "void":
        return []
    fields = ("topic", "partition", "session", "first", "last")
    return [Hole(*(message[name] for name in fields))]


def remainder(hole: Hole, void: Iterable[Hole]) -> list[Hole]:
    """Return what is left of a hole when VOID ranges are taken out of it."""
    left: list[Hole] = []
    first = hole.first
    where = (hole.topic, hole.partition, hole.session)
    same = [one for one in void if (one.topic, one.partition, one.session) == where]
    for one in sorted(same, key=lambda one: one.first):
        if one.last < first or one.first > hole.last:
            continue
        if one.first > first:
            left.append(Hole(*where, first, one.first - 1))
        first = max(first, one.last + 1)
    if first <= hole.last:
        left.append(Hole(*where, first, hole.last))
    return left


@dataclass(frozen=True, slots=True)
class BookImage:
    """A record of the topic `book_snapshot`: an instrument's book, and where to read on.

    batch: its levels as one SNAPSHOT (an empty book: one RESET). topic, partition, session (16
    bytes), sequence: from where on rows are to be read.

        image = book_image(value)
        books.feed(image.batch)
        for decoded in ...:                    # the records of that partition, from any place
            books.feed(image.after(decoded))
    """

    batch: TickBatch
    topic: str
    partition: int
    session: bytes
    sequence: int

    def after(self, decoded: Decoded) -> TickBatch:
        """Return the instrument's rows of a record that the image may lack.

        Sizes are absolute, so the few that it has already do no harm. Of another session, rows
        received later count: they begin with a RESET.
        """
        rows, instruments = decoded.batch.rows, decoded.batch.instruments
        key = self.batch.instruments[0].key
        numbers = [one for one in range(len(instruments)) if instruments[one].key == key]
        keep = np.isin(rows["instrument"], numbers)
        if decoded.session == self.session:
            keep &= decoded.first_sequence + np.arange(len(rows)) >= self.sequence
        else:
            keep &= rows["ts_recv"] > self.batch.rows["ts_recv"][0]
        return TickBatch(decoded.batch.row_class, rows[keep], instruments)


def book_image(value: bytes) -> BookImage:
    """Read a record of the topic `book_snapshot`. Raises CodecError."""
    try:
        return _book_image(orjson.loads(value))
    except (LookupError, TypeError, ValueError) as failure:
        raise CodecError(f"no book image: {failure!r}") from failure


def _book_image(message: Any) -> BookImage:
    one = WireInstrument(
        message["key"], message["price_exponent"], message["size_exponent"], message["revision"]
    )
    levels = [
        (side, parse_decimal(price, one.price_exponent), parse_decimal(size, one.size_exponent))
        for side, some in ((Side.BID, message["bids"]), (Side.ASK, message["asks"]))
        for price, size in some
    ]
    rows = np.zeros(max(len(levels), 1), LEVEL)
    for name in ("ts_event", "ts_recv", "sequence"):
        rows[name] = message[name]
    rows["kind"] = Kind.LEVEL if levels else Kind.RESET
    rows["flags"] = Flag.SNAPSHOT | (Flag.PARTIAL if message["partial"] else 0)
    rows["flags"][-1] |= np.uint16(Flag.LAST)
    if levels:
        rows["side"], rows["price"], rows["size"] = np.array(levels, np.int64).T
    resume = message["resume"]
    return BookImage(
        TickBatch(RowClass.LEVEL, rows, [one]),
        resume["topic"],
        resume["partition"],
        bytes.fromhex(resume["session"]),
        resume["sequence"],
    )
