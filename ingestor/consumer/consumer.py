"""Reading the topics: either encoding into the same batches, each row once, holes by name.

A strategy in ten lines:

    async def main() -> None:
        async with Consumer("localhost:9092", ["md.trades.v1"]) as consumer:
            async for batch in consumer:
                for row in batch.rows[batch.rows["kind"] == Kind.TRADE]:
                    instrument = batch.instruments[row["instrument"]]
                    price = row["price"] / 10**instrument.price_exponent
                    if instrument.canonical == "BTC-USDT" and price < 50_000:
                        print("cheap", price, iso_text(int(row["ts_event"])))

Rows of one instrument come in order. A replaced producer may have sent rows twice, which
(session, sequence) tells: they are given once. Rows that are missing in the topic are in `holes`;
a GAP row says that the publisher knows of some it never had.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from ingestor.codec import Decoded, decode
from ingestor.kafka.aiokafka_compat import fail_writes_to_lost_sockets, topics_of, wait_for_metadata
from ingestor.model.batch import TickBatch
from ingestor.model.errors import TopicAbsent

EARLIEST: Final = 0
_POLL_MS: Final = 500
_SESSIONS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class MissingRange:
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
    holes: list[MissingRange] = field(default_factory=list)
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
            self.holes.append(
                MissingRange(self.topic, self.partition, session.hex(), expected, first - 1)
            )
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
    time of its last row, and several publishers don't write in order of time. Everything
    is read of a broker that knows no times. may_be_absent: topics that are left out where there are
    none. options: passed on to aiokafka (security, fetch sizes).

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
        may_be_absent: Collection[str] = (),
        **options: Any,
    ) -> None:
        self.progress: dict[TopicPartition, Progress] = {}
        self._topics = topics
        self._servers = bootstrap_servers
        self._start_ns = start_ns
        self._until_ns = until_ns
        self._margin_ns = margin_ns
        self._stop_at_end = stop_at_end
        self._may_be_absent = may_be_absent
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
    def holes(self) -> list[MissingRange]:
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
        known = await topics_of(kafka)
        for topic in self._topics:
            if topic not in known and topic not in self._may_be_absent:
                raise TopicAbsent(topic, self._servers)
        partitions = [
            TopicPartition(topic, number)
            for topic in self._topics
            if topic in known
            for number in sorted(await self._partitions_of(topic))
        ]
        kafka.assign(partitions)
        if self._start_ns is None:
            await kafka.seek_to_end(*partitions)
        elif self._start_ns == EARLIEST:
            await kafka.seek_to_beginning(*partitions)
        else:
            start_ns = max(self._start_ns - (self._margin_ns or 0), EARLIEST)
            begins = await kafka.beginning_offsets(partitions)
            offsets = await self._offsets_at(partitions, start_ns, begins)
            for partition, offset in offsets.items():
                kafka.seek(partition, offset)
        if self._until_ns is not None:
            until_ns = self._until_ns + (self._margin_ns or 0)
            ends = await kafka.end_offsets(partitions)
            self._ends = await self._offsets_at(partitions, until_ns, ends)
            if self._margin_ns is not None:
                self._ends = {one: min(at + 1, ends[one]) for one, at in self._ends.items()}
        elif self._stop_at_end:
            self._ends = await kafka.end_offsets(partitions)

    async def _partitions_of(self, topic: str) -> set[int]:
        await wait_for_metadata(self._kafka, topic)
        partitions: set[int] | None = self._kafka.partitions_for_topic(topic)
        return partitions or set()

    async def _offsets_at(
        self, partitions: Sequence[TopicPartition], ts_ns: int, fallback: dict[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record at or after a time, else the end, of each.

        fallback: offsets for a broker that doesn't know times.
        """
        ts_ms = -(-ts_ns // 1_000_000)
        found = await self._kafka.offsets_for_times(dict.fromkeys(partitions, ts_ms))
        ends = await self._kafka.end_offsets(partitions)
        empty = [one for one in partitions if found.get(one) is None]
        if empty and not await self._knows_times(empty, ends):
            return fallback
        return {
            one: found[one].offset if found.get(one) is not None else ends[one]
            for one in partitions
        }

    async def _knows_times(
        self, partitions: Sequence[TopicPartition], ends: dict[TopicPartition, int]
    ) -> bool:
        """Return whether the broker finds records by time: some brokers answer that there is none,
        whatever the time is."""
        begins = await self._kafka.beginning_offsets(partitions)
        filled = [one for one in partitions if begins[one] < ends[one]]
        if not filled:
            return True
        found = await self._kafka.offsets_for_times(dict.fromkeys(filled, 0))
        return any(offset is not None for offset in found.values())

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
