"""Reads raw records of partitions from a start to an end, alone or as a member of a group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka import (
    AIOKafkaConsumer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    TopicPartition,
)
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
)

from ingestor.consumer.merge import Supply
from ingestor.consumer.positions import OffsetFinder, Position
from ingestor.kafka.aiokafka_compat import fail_writes_to_lost_sockets, topics_of, wait_for_metadata
from ingestor.kafka.diagnosis import require_broker, unavailable
from ingestor.kafka.fetched_batches import (
    FetchedBatch,
    hand_over_whole_batches,
    until,
    whole_batches,
)
from ingestor.model.errors import TopicAbsent
from ingestor.native import native

Records = dict[TopicPartition, list[ConsumerRecord]]
RecordsOrBatches = dict[TopicPartition, list[ConsumerRecord | FetchedBatch]]

_NONE: Final = TopicPartition("", 0)  # is never assigned: asks for errors alone
_JOINING_MS: Final = 50


class PartitionReader(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Reads all partitions of topics, or, with a group, those that the group gives to this member.

    A partition is ready once its start and its end are known. A group's committed offset goes
    before the start.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topics: Sequence[str],
        start: Position,
        end: Position | None,
        *,
        options: Mapping[str, Any],
        margin_ns: int | None = None,
        group_id: str | None = None,
        on_lost: Callable[[TopicPartition], None] = lambda _: None,
        may_be_absent: Collection[str] = (),
    ) -> None:
        """Create the partition reader.

        Args:
            bootstrap_servers: addresses.
            topics: names.
            start: where reading begins.
            end: where it ends, None = never.
            options: passed on to aiokafka.
            margin_ns: see `OffsetFinder`.
            group_id: of the group, None = alone.
            on_lost: is told of each partition that goes to another member.
            may_be_absent: topics that are left out where they don't exist.
        """
        self.ready: list[TopicPartition] = []
        self._topics = topics
        self._may_be_absent = may_be_absent
        self._start = start
        self._end = end
        self._margin_ns = margin_ns
        self._group_id = group_id
        self._on_lost = on_lost
        self._options = {**options, "bootstrap_servers": bootstrap_servers}
        self._ends: dict[TopicPartition, int] = {}
        self._failure: Exception | None = None
        self._is_assigned = False
        self._kafka: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Connect, and find where to begin.

        Raises:
            SinkUnavailable: where no broker answers.
            TopicAbsent: for a topic that is not there. Nothing is created by asking.
        """
        await require_broker(self._options)
        fail_writes_to_lost_sockets()
        defaults: dict[str, Any] = {"auto_offset_reset": "earliest"}
        if native().library is not None:
            hand_over_whole_batches()
            defaults["value_deserializer"] = whole_batches
        self._kafka = AIOKafkaConsumer(
            **{**defaults, **self._options},
            group_id=self._group_id,
            enable_auto_commit=False,
        )
        try:
            await self._kafka.start()
            self._require(await topics_of(self._kafka))
            if self._group_id is None:
                await self._assign()
            else:
                self._kafka.subscribe(list(self._topics), listener=self)
        except KafkaError as failure:
            await self._kafka.stop()
            raise await unavailable(failure, self._options) from None
        except BaseException:
            await self._kafka.stop()
            raise

    async def stop(self) -> None:
        """Leave the group and close the connections."""
        if self._kafka is not None:
            await self._kafka.stop()

    async def poll(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> Records:
        """Return what `poll_batches` returns, as records."""
        found: Records = {}
        for partition, some in (await self.poll_batches(partitions, timeout_ms)).items():
            records = found[partition] = []
            for item in some:
                records += item.records() if isinstance(item, FetchedBatch) else [item]
        return found

    async def poll_batches(
        self, partitions: Iterable[TopicPartition], timeout_ms: int
    ) -> RecordsOrBatches:
        """Return what came, at most after a while, up to the end of each partition: records, or
        batches of them where the library reads these.

        Args:
            partitions: those that are wanted; the others are not read.
            timeout_ms: how long to wait where nothing is there.
        """
        if self._failure is not None:
            raise self._failure
        wanted = [partition for partition in partitions if partition in self.ready]
        found: RecordsOrBatches = await self._client.getmany(
            *(wanted or [_NONE]), timeout_ms=timeout_ms if wanted else _JOINING_MS
        )
        for partition, records in found.items():
            end = self._ends.get(partition)
            if end is not None:
                found[partition] = [
                    before for record in records if (before := until(record, end)) is not None
                ]
        # While it waited, the group may have given one to somebody else.
        return {one: records for one, records in found.items() if one in self.ready and records}

    async def supplies(self) -> dict[TopicPartition, Supply]:
        """Return what is to be expected of each partition that is ready."""
        return {item: await self._supply(item) for item in list(self.ready)}

    def is_finished(self, supplies: Mapping[TopicPartition, Supply]) -> bool:
        """Return whether everything was read up to the end."""
        is_bounded = (
            self._end is not None and self._is_assigned and len(supplies) == len(self.ready)
        )
        return is_bounded and all(supply is Supply.ENDED for supply in supplies.values())

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Commit offsets; return False where partitions went to another member meanwhile."""
        held = {one: offset for one, offset in offsets.items() if one in self.ready}
        try:
            if held:
                await self._client.commit(held)
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError):
            return False
        return len(held) == len(offsets)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Forget partitions that go to another member (called by aiokafka)."""
        self._is_assigned = False
        self.ready.clear()
        for partition in revoked:
            self._on_lost(partition)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin with the partitions that the group gave to this member (called by aiokafka)."""
        try:
            await self._begin(sorted(assigned))
        except Exception as failure:  # noqa: BLE001  # aiokafka would log it and go on
            self._failure = failure

    @property
    def _client(self) -> AIOKafkaConsumer:
        assert self._kafka is not None, "enter the consumer first: `async with`"
        return self._kafka

    def _require(self, known: Collection[str]) -> None:
        self._topics = [
            topic for topic in self._topics if topic in known or topic not in self._may_be_absent
        ]
        for topic in self._topics:
            if topic not in known:
                raise TopicAbsent(topic, self._options["bootstrap_servers"])

    async def _assign(self) -> None:
        partitions = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in sorted(await self._partitions_of(topic))
        ]
        self._client.assign(partitions)
        await self._begin(partitions)

    async def _begin(self, partitions: Sequence[TopicPartition]) -> None:
        kafka = self._client
        finder = OffsetFinder(kafka, self._margin_ns)
        starts = await finder.starts(partitions, self._start) if partitions else {}
        if self._group_id is not None:
            for partition in partitions:
                committed = await kafka.committed(partition)
                if committed is not None:
                    starts[partition] = committed
        if self._end is not None:
            self._ends = await finder.ends(partitions, self._end) if partitions else {}
        for partition, offset in starts.items():
            kafka.seek(partition, offset)
        self.ready[:] = partitions
        self._is_assigned = True

    async def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets behind what is there now."""
        return await OffsetFinder(self._client, None).ends(partitions, Position())

    async def is_before(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Return whether a partition is still to be read up to an offset."""
        client = self._client
        return any([await client.position(one) < end for one, end in offsets.items()])

    async def seek(self, partitions: Sequence[TopicPartition], where: Position) -> None:
        """Read partitions again, or on, from another place."""
        found = await OffsetFinder(self._client, self._margin_ns).starts(partitions, where)
        for partition, offset in found.items():
            self._client.seek(partition, offset)

    async def _partitions_of(self, topic: str) -> set[int]:
        await wait_for_metadata(self._client, topic)
        partitions: set[int] | None = self._client.partitions_for_topic(topic)
        return partitions or set()

    async def _supply(self, partition: TopicPartition) -> Supply:
        try:
            position = await self._client.position(partition)
            end = self._ends.get(partition)
            if end is not None and position >= end:
                return Supply.ENDED
            last = self._client.highwater(partition)
        except (AssertionError, IllegalStateError):  # it was just given to another member
            return Supply.QUIET
        return Supply.QUIET if last is not None and position >= last else Supply.BEHIND
