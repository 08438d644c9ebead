"""Queue and send the side records: status, instruments, snapshots, quarantine, dead letters.

They are small and rare. Each topic has its own bound, its own task and its own numbering, so that
one that Kafka refuses costs no other. Records have a share of nothing else's budget.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

import orjson
import structlog
from aiokafka import TopicPartition, errors

from ingestor.codec import Headers, Record
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.partitions import partition_of_key
from ingestor.model.backoff import Backoff
from ingestor.sinks.kafka.produce_request import EPOCH_MAX, Numbering, ProduceClient
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


class AuxiliaryTopic:
    """The records of one topic, in order. `acked`, `dropped` (for lack of room) and `refused` (by
    Kafka, for good) count them; what is neither of these is pending."""

    def __init__(
        self,
        name: str,
        schema: str,
        progress: asyncio.Event,
        clock: Callable[[], int],
        bytes_max: int,
    ) -> None:
        """Args:
        name: full name of the topic.
        schema: of its records.
        progress: set whenever records were acked or dropped.
        clock: ns since the epoch.
        bytes_max: size of a batch.
        """
        self.name = name
        self.acked = self.dropped = self.refused = 0
        self.failures = 0  # in a row
        self.reason: str | None = None  # why nothing is taken
        self._headers: Headers = [("schema", schema.encode())]
        self._progress = progress
        self._clock = clock
        self._bytes_max = bytes_max
        self._queue: deque[AuxiliaryRecord] = deque()
        self._in_flight: list[AuxiliaryRecord] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._numberings: dict[int, Numbering] = {}

    def __len__(self) -> int:
        return len(self._queue) + len(self._in_flight)

    def put(self, record: AuxiliaryRecord) -> None:
        """Queue a record, or drop it where the topic is full."""
        if len(self) >= SIDE_RECORDS_MAX or self._bytes + record.size > SIDE_BYTES_MAX:
            self.dropped += 1
            return
        self._queue.append(record)
        self._bytes += record.size
        self._wake.set()

    def begin(self) -> None:
        """Another producer begins."""
        self._numberings.clear()

    async def run(self, produce: ProduceClient) -> None:
        """Send until cancelled; records that were not acked are sent first by the next call.

        After a failure records go one by one, so that one that is refused for itself is found.

        Raises:
            ProducerFailed: when the producer is of no more use.
        """
        for numbering in self._numberings.values():
            numbering.renew()  # it isn't known what the last run sent
        while True:
            self._queue.extendleft(reversed(self._in_flight))
            self._in_flight = []
            self._wake.clear()
            if not self._queue:
                await self._wake.wait()
            partitions = produce.partitions(self.name)
            if not partitions:
                await self._hold(produce, produce.absence(self.name))
                continue
            self._in_flight = self._take()
            for partition, records in self._by_partition(partitions):
                failure = await self._send(produce, partition, records)
                if failure is not None:
                    await self._fail(produce, partition, records, failure)
                    break
                self._settle(records)
                self.failures, self.reason = 0, None
                self.acked += len(records)

    def _take(self) -> list[AuxiliaryRecord]:
        taken = [self._queue.popleft()]
        size_bytes = taken[0].size
        while self._queue and not self.failures and len(taken) < _WINDOW:
            size_bytes += self._queue[0].size
            if size_bytes > self._bytes_max // 2:
                break
            taken.append(self._queue.popleft())
        return taken

    def _by_partition(self, partitions: int) -> Iterator[tuple[int, list[AuxiliaryRecord]]]:
        """Yield (partition, its records in order)."""
        numbered = [
            (0 if one.key is None else partition_of_key(one.key, partitions), one)
            for one in self._in_flight
        ]
        numbered.sort(key=itemgetter(0))
        for partition, group in groupby(numbered, itemgetter(0)):
            yield partition, [record for _, record in group]

    async def _send(
        self, produce: ProduceClient, partition: int, records: list[AuxiliaryRecord]
    ) -> errors.KafkaError | None:
        """Send a batch; return why it was not taken."""
        place = TopicPartition(self.name, partition)
        node = produce.leader(place)
        if node is None:
            return errors.LeaderNotAvailableError()
        if produce.connection(node) is None and not await produce.connect(node):
            return errors.NodeNotReadyError()
        now_ms = self._clock() // 1_000_000
        made: list[Record] = [
            # A time that is far from the clock's would be refused, and is in the value anyway.
            (
                one.key,
                one.value,
                one.ts_ms if abs(one.ts_ms - now_ms) < _TIME_SLACK_MS else now_ms,
                1,
            )
            for one in records
        ]
        numbering = self._numberings.setdefault(partition, Numbering())
        batch, count, _ = produce.build(numbering, made, self._headers, self._bytes_max * 2)
        if count < len(made):  # can't be: `_take` took half of what fits
            return errors.RecordListTooLargeError()
        try:
            failures = await produce.send(node, {place: batch})
        except errors.KafkaError as no_answer:
            return no_answer
        return failures[place]

    async def _fail(
        self,
        produce: ProduceClient,
        partition: int,
        records: list[AuxiliaryRecord],
        failure: Exception,
    ) -> None:
        """Find out what to do about records that were not taken, and wait before the next try."""
        if partition in self._numberings:
            # Whether or not the broker has the batch: it is made again with other numbers. Side
            # records may be there twice.
            self._numberings[partition].renew()
            if self._numberings[partition].epoch > EPOCH_MAX:
                raise ProducerFailed(failure)
        action = classify_failure(failure, self.failures + 1)
        is_of_clock = isinstance(failure, errors.InvalidTimestampError)
        if action is DeliveryAction.REPLACE:
            raise ProducerFailed(failure)
        if action is DeliveryAction.BISECT and len(records) == 1 and not is_of_clock:
            log.error("kafka.record_refused", topic=self.name, reason=error_name(failure))
            self.refused += 1
            self._settle(records)
        await self._hold(produce, error_name(failure))

    async def _hold(self, produce: ProduceClient, reason: str) -> None:
        self.failures += 1
        if self.reason is None:
            log.warning("kafka.topic_held", topic=self.name, reason=reason)
        self.reason = reason
        await asyncio.sleep(BACKOFF.delay_s(self.failures, random.random))
        await produce.refresh()

    def _settle(self, records: list[AuxiliaryRecord]) -> None:
        for record in records:
            self._in_flight.remove(record)
            self._bytes -= record.size
        self._progress.set()


class AuxiliaryQueue:
    """All side records, by topic."""

    def __init__(
        self,
        progress: asyncio.Event,
        *,
        clock: Callable[[], int] = time.time_ns,
        bytes_max: int = 512 << 10,
    ) -> None:
        """Args:
        progress: set whenever records were acked or dropped.
        clock: ns since the epoch.
        bytes_max: size of a batch.
        """
        self.topics: dict[str, AuxiliaryTopic] = {}
        self._progress = progress
        self._clock = clock
        self._bytes_max = bytes_max
        self._run: Callable[[AuxiliaryTopic], None] | None = None

    def __len__(self) -> int:
        return sum(map(len, self.topics.values()))

    @property
    def acked(self) -> Counter[str]:
        return Counter({name: topic.acked for name, topic in self.topics.items()})

    @property
    def dropped(self) -> Counter[str]:
        return +Counter({name: topic.dropped for name, topic in self.topics.items()})

    @property
    def refused(self) -> Counter[str]:
        return +Counter({name: topic.refused for name, topic in self.topics.items()})

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return the number of records by (topic, outcome), the outcome `pending` included."""
        return {
            (name, outcome): count
            for name, topic in self.topics.items()
            for outcome, count in (
                ("acked", topic.acked),
                ("dropped", topic.dropped),
                ("refused", topic.refused),
                ("pending", len(topic)),
            )
        }

    def put(self, record: AuxiliaryRecord) -> None:
        """Queue a record."""
        topic = self.topics.get(record.topic)
        if topic is None:
            topic = AuxiliaryTopic(
                record.topic, record.schema, self._progress, self._clock, self._bytes_max
            )
            self.topics[record.topic] = topic
            if self._run is not None:
                self._run(topic)
        topic.put(record)

    def start(self, produce: ProduceClient, group: asyncio.TaskGroup) -> None:
        """Send, in a task of `group` for each topic; one of them may raise ProducerFailed."""

        def run(topic: AuxiliaryTopic) -> None:
            running = _kept(topic, produce)
            try:
                group.create_task(running)
            except RuntimeError:  # the group's tasks are being cancelled: `stop` is next
                running.close()

        for topic in self.topics.values():
            topic.begin()
            run(topic)
        self._run = run

    def stop(self) -> None:
        """The tasks have ended: send nothing until the next `start`."""
        self._run = None


async def _kept(topic: AuxiliaryTopic, produce: ProduceClient) -> None:
    """Run a topic; begin it again after an exception that nothing foresaw."""
    attempt = 0
    while True:
        try:
            await topic.run(produce)
        except ProducerFailed:
            raise
        except OSError as failure:
            log.warning("kafka.topic_held", topic=topic.name, reason=repr(failure))
        except Exception as failure:  # noqa: BLE001  # the boundary
            bulkheads.bug("topic", failure, topic=topic.name)
        attempt += 1
        await asyncio.sleep(BACKOFF.delay_s(attempt, random.random))


RAW_BYTES_MAX: Final = 64 << 10  # of a refused value, kept in its dead letter


def dead_letter(
    topic: str, partition: int, session: bytes, first: int, record: Record, reason: str
) -> bytes:
    """Return the value of a record for the topic `deadletter`: who, where, why, and the bytes."""
    key, value, ts_ms, rows = record
    return orjson.dumps(
        {
            "topic": topic,
            "partition": partition,
            "session": session.hex(),
            "seq": first,
            "rows": rows,
            "ts_ms": ts_ms,
            "reason": reason,
            "key": None if key is None else key.decode(),
            "value_bytes": len(value),
            "value_base64": base64.b64encode(value[:RAW_BYTES_MAX]).decode(),
        }
    )


def void(topic: str, partition: int, session: bytes, first: int, rows: int, reason: str) -> bytes:
    """Return the value of a status record: these sequence numbers will never be in the topic."""
    return orjson.dumps(
        {
            "kind": "void",
            "topic": topic,
            "partition": partition,
            "session": session.hex(),
            "first": first,
            "last": first + rows - 1,
            "reason": reason,
        }
    )
