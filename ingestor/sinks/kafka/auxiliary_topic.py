"""Send the side records of one topic; each of its partitions waits and fails alone."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from aiokafka import TopicPartition, errors

from ingestor.codec import Headers, Record
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.partitions import partition_of_key
from ingestor.model.backoff import Backoff
from ingestor.sinks.kafka.life import LifeEnded
from ingestor.sinks.kafka.produce_request import Numbering, ProduceClient
from ingestor.sinks.kafka.producer import DeliveryAction, classify_failure
from ingestor.sinks.kafka.sender import ProducerFailed
from ingestor.telemetry.bulkheads import bulkheads

log = structlog.get_logger(__name__)

SIDE_RECORDS_MAX: Final = 20_000  # of one topic
SIDE_BYTES_MAX: Final = 8 << 20
BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0)
_WINDOW: Final = 256  # records of one request
_TIME_SLACK_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class AuxiliaryRecord:
    """One side record. topic: its full name. schema: what its header says it follows."""

    topic: str
    schema: str
    key: bytes | None
    value: bytes
    ts_ms: int

    @property
    def size(self) -> int:
        return len(self.value) + len(self.key or b"")


@dataclass(slots=True)
class _Partition:
    """Records of one partition, in order. failures: in a row. due_s: when to try again.

    reason: why nothing is taken; None while records are.
    """

    number: int
    queue: deque[AuxiliaryRecord] = field(default_factory=deque)
    in_flight: list[AuxiliaryRecord] = field(default_factory=list)
    size_bytes: int = 0
    numbering: Numbering = field(default_factory=Numbering)
    failures: int = 0
    due_s: float = 0.0
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.queue) + len(self.in_flight)

    def put(self, record: AuxiliaryRecord) -> None:
        self.queue.append(record)
        self.size_bytes += record.size

    def drop_last(self) -> None:
        self.size_bytes -= self.queue.pop().size

    def take_back(self) -> None:
        """Put the batch that is under way back, to be sent again first."""
        self.queue.extendleft(reversed(self.in_flight))
        self.in_flight = []

    def take(self, bytes_max: int) -> None:
        """Take the next batch: after a failure one record, so that the one that is refused for
        itself is found.
        """
        self.in_flight = [self.queue.popleft()]
        size_bytes = self.in_flight[0].size
        while self.queue and not self.failures and len(self.in_flight) < _WINDOW:
            size_bytes += self.queue[0].size
            if size_bytes > bytes_max:
                break
            self.in_flight.append(self.queue.popleft())

    def settle(self) -> int:
        """Forget the batch; return how many records it had."""
        settled, self.in_flight = self.in_flight, []
        self.size_bytes -= sum(batch.size for batch in settled)
        return len(settled)

    def fail(self, reason: str, now_s: float) -> None:
        self.failures += 1
        self.reason = reason
        self.due_s = now_s + BACKOFF.delay_s(self.failures, random.random)


class AuxiliaryTopic:
    """The records of one topic, in order for each key.

    `acked`, `dropped` (for lack of room), `refused` (by Kafka, for good) and `fenced` (this life
    was over) count them; what is none of these is pending.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        progress: asyncio.Event,
        clock: Callable[[], int],
        bytes_max: int,
    ) -> None:
        """Create the auxiliary topic.

        Args:
            name: full name of the topic.
            schema: of its records.
            progress: set whenever records were acked or refused.
            clock: ns since the epoch.
            bytes_max: size of a batch.
        """
        self.name = name
        self.acked = self.dropped = self.refused = self.fenced = 0
        self._has_ended = False
        self._absence: str | None = None  # why there are no partitions
        self._absences = 0  # answers in a row that say so
        self._headers: Headers = [("schema", schema.encode())]
        self._progress = progress
        self._clock = clock
        self._bytes_max = bytes_max
        self._partitions = [_Partition(0)]  # all records wait in one until there is a topic
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._partitions))

    @property
    def reasons(self) -> dict[int, str]:
        """Return, by partition, why nothing is taken."""
        if self._absence is not None:
            return {partition.number: self._absence for partition in self._partitions}
        return {
            partition.number: partition.reason
            for partition in self._partitions
            if partition.reason is not None
        }

    def put(self, record: AuxiliaryRecord) -> None:
        """Queue a record. Where the topic is full, the partition that holds most pays for it."""
        if self._has_ended:
            self.fenced += 1
            return
        partition = self._partition_of(record)
        while self._is_full(record):
            largest = max(self._partitions, key=lambda one: one.size_bytes)
            self.dropped += 1
            if largest is partition or not largest.queue:
                return
            largest.drop_last()
        partition.put(record)
        self._wake.set()

    def end(self) -> None:
        """Give up all records, and those that come: this life is over."""
        self._has_ended = True
        self.fenced += len(self)
        self._partitions = [_Partition(0)]

    def _is_full(self, record: AuxiliaryRecord) -> bool:
        size_bytes = sum(partition.size_bytes for partition in self._partitions)
        return len(self) >= SIDE_RECORDS_MAX or size_bytes + record.size > SIDE_BYTES_MAX

    def _partition_of(self, record: AuxiliaryRecord) -> _Partition:
        count = len(self._partitions)
        if record.key is None or count == 1:
            return self._partitions[0]
        return self._partitions[partition_of_key(record.key, count)]

    def begin(self) -> None:
        """Another producer begins."""
        for partition in self._partitions:
            partition.numbering = Numbering()

    async def run(self, produce: ProduceClient) -> None:
        """Send until cancelled; records that were not acked are sent first by the next call.

        Raises:
            ProducerFailed: when the producer is of no more use.
            LifeEnded: when nothing may be sent any more.
        """
        for partition in self._partitions:
            if partition.numbering.is_used:  # it isn't known what the last run sent
                await produce.renew(partition.numbering)
            partition.take_back()
            partition.due_s = 0.0
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                if any(partition.queue for partition in self._partitions):
                    await self._deal(produce, is_idle=not sending)
                if self._is_dealt(produce):
                    sending |= {self._start(produce, partition) for partition in self._due()}
                    await self._rest(self._next_due_s())
                elif sending:
                    await self._rest(None)
                for task in [batch for batch in sending if batch.done()]:
                    sending.discard(task)
                    task.result()
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    def _is_dealt(self, produce: ProduceClient) -> bool:
        return produce.partitions(self.name) == len(self._partitions)

    async def _deal(self, produce: ProduceClient, *, is_idle: bool) -> None:
        """Deal the records to the partitions that there are, or wait a while where there are none.

        They are dealt anew only while nothing is under way, so that those of a key stay in order.
        """
        count = produce.partitions(self.name)
        if not count and is_idle:
            if self._absence is None:
                self._absence = produce.absence(self.name)
                log.warning("kafka.topic_held", topic=self.name, reason=self._absence)
            self._absences += 1
            await asyncio.sleep(BACKOFF.delay_s(self._absences, random.random))
            await produce.refresh()
        elif count:
            self._absence, self._absences = None, 0
            if is_idle and count != len(self._partitions):
                before = self._partitions
                numberings = {batch.number: batch.numbering for batch in before}
                self._partitions = [
                    _Partition(number, numbering=numberings.get(number, Numbering()))
                    for number in range(count)
                ]
                for record in (record for batch in before for record in batch.queue):
                    self._partition_of(record).put(record)

    def _waiting(self) -> list[_Partition]:
        return [
            partition
            for partition in self._partitions
            if partition.queue and not partition.in_flight
        ]

    def _due(self) -> list[_Partition]:
        now_s = asyncio.get_running_loop().time()
        return [partition for partition in self._waiting() if partition.due_s <= now_s]

    def _next_due_s(self) -> float | None:
        return min((partition.due_s for partition in self._waiting()), default=None)

    def _start(self, produce: ProduceClient, partition: _Partition) -> asyncio.Task[None]:
        partition.take(self._bytes_max // 2)
        task = asyncio.create_task(self._try(produce, partition))
        task.add_done_callback(lambda _: self._wake.set())
        return task

    async def _rest(self, until_s: float | None) -> None:
        """Wait for a record, for the end of a batch, or until it is time to try one again."""
        try:
            async with asyncio.timeout_at(until_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _try(self, produce: ProduceClient, partition: _Partition) -> None:
        """Send a batch. It is the boundary of a partition: whatever fails costs this one alone."""
        failure: Exception | None
        try:
            if partition.failures:
                await produce.refresh()
            failure = await self._send(produce, partition)
        except LifeEnded:
            raise
        except (errors.KafkaError, OSError) as foreseen:
            failure = foreseen
        except Exception as bug:  # noqa: BLE001  # the boundary
            bulkheads.bug("partition", bug, topic=self.name, partition=partition.number)
            failure = bug
        if failure is not None:
            await self._fail(produce, partition, failure)
            return
        self.acked += partition.settle()
        partition.failures, partition.reason = 0, None
        self._progress.set()

    async def _send(
        self, produce: ProduceClient, partition: _Partition
    ) -> errors.KafkaError | None:
        """Send a batch; return why it was not taken."""
        place = TopicPartition(self.name, partition.number)
        if produce.in_doubt:
            await produce.confirm()
        node = produce.leader(place)
        if node is None:
            return errors.LeaderNotAvailableError()
        if produce.connection(node) is None and not await produce.connect(node):
            return errors.NodeNotReadyError()
        now_ms = self._clock() // 1_000_000
        made: list[Record] = [
            # A time that is far from the clock's would be refused, and is in the value anyway.
            (
                batch.key,
                batch.value,
                batch.ts_ms if abs(batch.ts_ms - now_ms) < _TIME_SLACK_MS else now_ms,
                1,
            )
            for batch in partition.in_flight
        ]
        batch, count, _ = produce.build(
            partition.numbering, made, self._headers, self._bytes_max * 2
        )
        if count < len(made):  # can't be: `take` took half of what fits
            return errors.RecordListTooLargeError()
        return (await produce.send(node, {place: batch}))[place]

    async def _fail(
        self, produce: ProduceClient, partition: _Partition, failure: Exception
    ) -> None:
        """Find out what to do about records that were not taken."""
        # Whether or not the broker has the batch: it is made again with other numbers. Side
        # records may be there twice.
        try:
            await produce.renew(partition.numbering)
        except errors.KafkaError as refused:
            raise ProducerFailed(refused) from refused
        action = (
            DeliveryAction.HOLD
            if isinstance(failure, OSError)
            else classify_failure(failure, partition.failures + 1)
        )
        if action is DeliveryAction.REPLACE:
            raise ProducerFailed(failure)
        is_kafkas = isinstance(failure, errors.KafkaError)
        is_of_clock = isinstance(failure, errors.InvalidTimestampError)
        reason = error_name(failure) if is_kafkas else repr(failure)
        is_of_record = action is DeliveryAction.BISECT and not is_of_clock
        if is_of_record and len(partition.in_flight) == 1:
            log.error("kafka.record_refused", topic=self.name, reason=reason)
            self.refused += partition.settle()
            self._progress.set()
        partition.take_back()
        if partition.reason is None:
            log.warning(
                "kafka.topic_held", topic=self.name, partition=partition.number, reason=reason
            )
        partition.fail(reason, asyncio.get_running_loop().time())
