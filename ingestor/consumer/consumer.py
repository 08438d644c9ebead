"""Reading the topics: either encoding into the same batches, each row once, holes by name.

A strategy in ten lines:

    async def main() -> None:
        async with Consumer("localhost:9092", ["md.trades.v1", "md.quotes.v1"]) as consumer:
            async for batch in consumer:
                for row in batch.rows[batch.rows["kind"] == Kind.TRADE]:
                    instrument = batch.instruments[row["instrument"]]
                    price = row["price"] / 10**instrument.price_exponent
                    if instrument.symbol == "BTCUSDT" and price < 50_000:
                        print("cheap", price, iso_text(int(row["ts_event"])))

Rows of one instrument come in order. A replaced producer may have sent rows twice, which
(session, sequence) tells: they are given once. Rows that are missing in the topic are in `holes`;
a GAP row says that the publisher knows of some it never had.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from numpy.typing import NDArray

from ingestor.codec import CodecError, Decoded, decode
from ingestor.codec.record_batches import RecordBatchReader, RefusedRecord
from ingestor.consumer.joining import Joiner, Piece
from ingestor.consumer.merge import Merge, Supply, Taken
from ingestor.consumer.positions import LATEST, Where, position_of
from ingestor.consumer.progress import MissingRange, Progress
from ingestor.consumer.reader import PartitionReader, RecordsOrBatches
from ingestor.consumer.trace_links import TraceLinks
from ingestor.kafka.fetched_batches import FetchedBatch
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError

log = structlog.get_logger(__name__)

WINDOW_S: Final = 0.25
STALL_S: Final = 30.0
_POLL_MS: Final = 500
_ROWS_MAX: Final = 1 << 16  # of a partition, that wait for others
_FOREIGN_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class ForeignRecord:
    """A record that is none of ours, and was skipped."""

    topic: str
    partition: int
    offset: int
    reason: str


class Consumer:
    """Reads rows out of tick topics, in batches: an async iterator of TickBatch.

    Rows come in order of `ts_recv` over all topics and partitions where several topics are read, so
    that a join sees nothing before its time. `foreign_records` counts records that were skipped,
    since they are none of ours; `foreign` has the last ones. `late_rows` counts those that came
    after later ones although `window_s` was waited.

    With a group, several processes share the partitions, and reading goes on where the group
    committed:

        async with Consumer(servers, "md.trades.v1", group_id="strategy", start="earliest") as some:
            async for batch in some:
                store(batch)
                await some.commit()

    Rows that were handed out and not committed come again, to this process or to another.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topics: str | Sequence[str],
        *,
        start: Where = LATEST,
        end: Where | None = None,
        stop_at_end: bool = False,
        may_be_absent: Collection[str] = (),
        group_id: str | None = None,
        window_s: float | None = WINDOW_S,
        is_ordered: bool = False,
        margin_ns: int | None = None,
        links: bool = False,
        **options: Any,
    ) -> None:
        """Create the consumer.

        Args:
            bootstrap_servers: addresses, "host:9092,host:9092".
            topics: a name, or names.
            start: "earliest", "latest", a time (rows received from then on, by record time in whole
                ms; everything is read of a broker that knows no times), or the offset of each
                (topic, partition), as `positions` gives them. Of a group: where nothing is
                committed.
            end: a time or offsets, before which reading stops.
            stop_at_end: stop where the topics ended when reading began.
            may_be_absent: topics that are left out where they don't exist.
            group_id: the group whose member this is; without one, all partitions are read.
            window_s: how long rows wait for earlier ones of other partitions that have none now;
                None gives each partition's rows as they come.
            is_ordered: the partitions of one topic are merged too; without it, only those of
                several.
            margin_ns: begins and ends so much outside, and one record later, for who chooses rows
                by their own time: a record has the time of its last row, and several publishers
                don't write in order of time.
            links: make a span for each sampled batch, linked to the publisher's (extra `otel`).
            options: passed on to aiokafka (security, fetch sizes).

        Raises:
            ConfigError: for a start or an end that is none.
        """
        self.progress: dict[TopicPartition, Progress] = {}
        self.foreign_records = 0
        self.foreign: deque[ForeignRecord] = deque(maxlen=_FOREIGN_KEPT)
        names = [topics] if isinstance(topics, str) else list(topics)
        if end is None and stop_at_end:
            end = LATEST
        self._group_id = group_id
        self._warned: set[TopicPartition] = set()
        self._reader = PartitionReader(
            bootstrap_servers,
            names,
            position_of(start),
            None if end is None else position_of(end),
            margin_ns=margin_ns,
            group_id=group_id,
            on_lost=self._lose,
            may_be_absent=may_be_absent,
            options=options,
        )
        self._links = TraceLinks() if links else None
        self._joiner = Joiner()
        self._batch_reader = RecordBatchReader()
        self.is_merged = (len(names) > 1 or is_ordered) and window_s is not None
        self._merge = Merge[TopicPartition](window_s or 0.0, STALL_S) if self.is_merged else None
        self._taken: deque[Taken[TopicPartition]] = deque()
        self._taking: Taken[TopicPartition] | None = None
        self._batches: Iterator[TickBatch] = iter(())
        self._handed: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            SinkUnavailable: where no broker answers; the text says why.
            TopicAbsent: for a topic that is not there. Nothing is created by asking.
        """
        await self._reader.start()
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._reader.stop()

    @property
    def holes(self) -> list[MissingRange]:
        """Rows that were published and never came."""
        return [hole for progress in self.progress.values() for hole in progress.holes]

    @property
    def late_rows(self) -> int:
        """Rows that came after later ones of other partitions."""
        return self._merge.late_rows if self._merge else 0

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """The offset to read on from, by (topic, partition), after what was handed out.

        It can be stored with the results, and given as `start`.
        """
        found = dict(self._handed)
        if self._taking is not None:
            found |= self._taking.next_offsets()
        return {(one.topic, one.partition): offset for one, offset in found.items()}

    async def is_behind(self) -> bool:
        """Say whether a partition is known to have more to read."""
        return Supply.BEHIND in (await self._reader.supplies()).values()

    async def commit(self) -> bool:
        """Commit what was handed out, the batch in hand among it, for the group.

        Returns:
            False where the group gave partitions to another member meanwhile, which gets those
            rows again.

        Raises:
            ConfigError: without a group.
            KafkaError: where the broker doesn't answer.
        """
        if self._group_id is None:
            raise ConfigError("no group commits", hint="give group_id, or store `positions`")
        offsets = {TopicPartition(*one): offset for one, offset in self.positions.items()}
        return await self._reader.commit(offsets)

    async def __aiter__(self) -> AsyncIterator[TickBatch]:
        while (batch := await self.next_batch()) is not None:
            yield batch

    async def next_batch(self) -> TickBatch | None:
        """Return the next rows, at least one; None at the end."""
        while True:
            for batch in self._batches:
                if len(batch):
                    return batch
            if self._taking is not None:
                self._handed |= self._taking.next_offsets()
                self._taking = None
            if not self._taken and not await self._read():
                return None
            if self._taken:
                self._taking = self._taken.popleft()
                self._batches = iter(self._taking)

    async def records(self) -> AsyncIterator[tuple[TopicPartition, bytes | None, bytes]]:
        """Yield (partition, key, value) of the raw records within the chosen range."""
        async for partition, record in self.raw_records():
            if record.value is not None:
                yield partition, record.key, record.value

    async def raw_records(self) -> AsyncIterator[tuple[TopicPartition, ConsumerRecord]]:
        """Yield the records within the chosen range, as the client has them."""
        reader = self._reader
        supplies = await reader.supplies()
        while not reader.is_finished(supplies):
            for partition, records in (await reader.poll(self._wanted(supplies), _POLL_MS)).items():
                for record in records:
                    yield partition, record
            supplies = await reader.supplies()

    def progress_of(self, partition: TopicPartition) -> Progress:
        """Return what was seen of a partition, for now nothing if it is new."""
        found = self.progress.get(partition)
        if found is None:
            found = self.progress[partition] = Progress(partition.topic, partition.partition)
        return found

    async def _read(self) -> bool:
        """Read what comes within half a second; return False at the end."""
        reader, merge = self._reader, self._merge
        supplies = await reader.supplies()
        is_finished = reader.is_finished(supplies)
        if not is_finished:
            self._take_in(await reader.poll_batches(self._wanted(supplies), self._poll_ms()))
        if merge is not None:
            for partition, supply in (await reader.supplies()).items():
                merge.expect(partition, supply)
            taken = merge.take(time.monotonic())
            self._taken.extend([taken] if taken else [])
        return not is_finished or bool(self._taken)

    def _wanted(self, supplies: dict[TopicPartition, Supply]) -> list[TopicPartition]:
        """Return the partitions to read now: not those that are far ahead of others."""
        merge = self._merge
        return [
            one
            for one, supply in supplies.items()
            if supply is not Supply.ENDED and not (merge and merge.rows(one) >= _ROWS_MAX)
        ]

    def _poll_ms(self) -> int:
        wait_s = self._merge.wait_s(time.monotonic()) if self._merge else None
        return _POLL_MS if wait_s is None else min(int(wait_s * 1_000) + 1, _POLL_MS)

    def _take_in(self, polled: RecordsOrBatches) -> None:
        now_s = time.monotonic()
        for partition, records in polled.items():
            for chunk in self._joiner.join(self._unseen(partition, records)):
                if self._merge is None:
                    self._taken.append(Taken.whole(partition, chunk))
                elif len(chunk.batch):
                    self._merge.add(partition, chunk, now_s)

    def _unseen(
        self, partition: TopicPartition, records: Sequence[ConsumerRecord | FetchedBatch]
    ) -> Iterator[Piece]:
        """Yield the new rows of records."""
        for record in records:
            if self._links is not None:
                self._links.see(partition, record)
            try:
                if isinstance(record, FetchedBatch):
                    yield from self._unseen_of_batch(partition, record)
                elif record.value is not None:
                    decoded, next_offset = decode(record.value), record.offset + 1
                    yield self._unseen_of(partition, decoded, [len(decoded.batch)], [next_offset])
            except CodecError as failure:
                offset = record.first_offset if isinstance(record, FetchedBatch) else record.offset
                self.skip(partition, offset, str(failure))

    def _unseen_of_batch(self, partition: TopicPartition, fetched: FetchedBatch) -> Iterator[Piece]:
        for item in self._batch_reader.read(
            fetched.batch, fetched.first_offset, fetched.next_offset
        ):
            if isinstance(item, RefusedRecord):
                self.skip(partition, item.offset, str(item.failure))
            else:
                yield self._unseen_of(partition, item.decoded, item.ends, item.next_offsets)

    def _unseen_of(
        self,
        partition: TopicPartition,
        decoded: Decoded,
        ends: Sequence[int] | NDArray[np.int64],
        next_offsets: Sequence[int] | NDArray[np.int64],
    ) -> Piece:
        """Return the rows of records that follow each other, but for those that were seen."""
        batch = decoded.batch
        progress = self.progress_of(partition)
        known = progress.see(decoded.session, decoded.first_sequence, len(batch.rows))
        if known:
            batch = TickBatch(batch.row_class, batch.rows[known:], batch.instruments)
            ends = np.maximum(np.asarray(ends) - known, 0)
        return Piece(batch, ends, next_offsets)

    def skip(self, partition: TopicPartition, offset: int, reason: str) -> None:
        """Count and name a record that is none of ours.

        Args:
            partition: Where it is.
            offset: Its offset.
            reason: Text for people.
        """
        self.foreign_records += 1
        one = ForeignRecord(partition.topic, partition.partition, offset, reason)
        self.foreign.append(one)
        if partition not in self._warned:  # once: a topic may be full of them
            self._warned.add(partition)
            log.warning("consumer.foreign_record", **asdict(one))

    def _lose(self, partition: TopicPartition) -> None:
        """Forget a partition that another member reads on: it may come back with rows again."""
        if self._merge is not None:
            self._merge.drop(partition)
        self._taken = deque(item for item in self._taken if item.sources != {partition})
        if self._taking is not None and self._taking.sources == {partition}:
            self._batches = iter(())
        for item in (*self._taken, *([self._taking] if self._taking else [])):
            item.forget(partition)
        self._handed.pop(partition, None)
        if partition in self.progress:
            self.progress[partition].forget()
