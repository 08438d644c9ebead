"""The Kafka sink: rows in, acks out, and whatever a broker may do in between.

Rows wait in an outbox of lanes (`channel`), one for each topic and partition, until they are acked;
`sender` takes them from there into produce requests. When the producer must be replaced (see
`producer`), the sender goes on with the unacked rows, in order, encoded again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, errors

from ingestor.codec import Headers, encoder, headers
from ingestor.kafka.aiokafka_compat import end_producer, fail_writes_to_lost_sockets
from ingestor.kafka.diagnosis import Reason, explain_connection_failure
from ingestor.kafka.partitions import Partitions
from ingestor.kafka.settings import DEAD_LETTER, STATUS, KafkaSettings
from ingestor.kafka.topics import count_partitions, create_topics
from ingestor.model.batch import Instruments, TickBatch
from ingestor.model.errors import SinkUnavailable
from ingestor.model.rows import Cause, Kind, RowClass, control_row
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.auxiliary_queue import AuxiliaryQueue, AuxiliaryRecord, dead_letter, void
from ingestor.sinks.kafka.in_flight import InFlightBatch
from ingestor.sinks.kafka.overload import Budget
from ingestor.sinks.kafka.producer import cause, limit_logging, start_producer
from ingestor.sinks.kafka.queue import PartitionQueue, PublishQueue, QueueStatistics
from ingestor.sinks.kafka.sender import BACKOFF, ProducerFailed, Sender

log = structlog.get_logger(__name__)

TICK_S: Final = 0.25


class KafkaSink:
    """Publishes batches of all three classes, and records on the side topics.

    `run` owns all tasks; `submit` and `publish` may be called before and while it runs, from the
    loop's thread. `on_shed`, `on_pause` and `on_resume` may be set after construction.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        instruments: Instruments,
        counts: SinkCounts,
        *,
        session: bytes,
        budget: Budget | None = None,
        more_headers: Headers | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """session: 16 bytes, unique to this run of the process. more_headers: of every record of
        rows, beside `schema`. clock: ns since the epoch."""
        self.settings = settings
        self.session = session
        self.on_shed: Callable[[RowClass, int], None] = lambda _row_class, _instrument: None
        self.on_pause: Callable[[], None] = lambda: None
        self.on_resume: Callable[[], None] = lambda: None
        self._progress = asyncio.Event()  # something was settled, or failed
        self.side = AuxiliaryQueue(self._progress)
        self.producer_resets: Counter[str] = Counter()
        self.failure: str | None = "not started"  # why nothing is accepted now; None = connected
        self._instruments = instruments
        self._counts = counts
        self._clock = clock
        self._encoder = encoder(settings.encoding, instruments, session)
        self._topics = {cls: settings.tick_topic(cls) for cls in RowClass}
        self._partitions = {cls: Partitions(instruments, settings.partitions) for cls in RowClass}
        self.queue = PublishQueue(
            budget or Budget(),
            counts,
            on_shed=self._was_shed,
            on_pause=self._pause,
            on_resume=self._resume,
        )
        more = more_headers or []
        self._sender = Sender(
            settings,
            self.queue,
            counts,
            self._encoder,
            {cls: headers(cls, settings.encoding) + more for cls in RowClass},
            clock=clock,
            progress=self._progress,
            dead_letter=self._dead_letter,
        )
        self._topics_known = False
        self._connected = asyncio.Event()
        self._judged = asyncio.Event()  # connected, or refused for good
        self._running: asyncio.Task[None] | None = None
        self._closing = False  # a failure at the same moment may swallow the cancellation

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        """Queue rows for their partitions. Never blocks and never fails for lack of room."""
        if not len(batch.rows):
            return
        row_class, queue = batch.row_class, self.queue
        partition_queues = []
        for partition, rows in self._partitions[row_class].split(batch.rows):
            partition_queue = queue.partition_queue(row_class, partition)
            queue.put(partition_queue, rows, now_ns)
            partition_queues.append(partition_queue)
        queue.check(now_ns)
        self._sender.wake(partition_queues)

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        """Queue one record for a side topic; `topic` without the prefix. Dropped, and counted in
        `side.dropped`, when the side queue is full."""
        self.side.put(AuxiliaryRecord(self.settings.topic(topic), key, value, ts_ms))

    def position(self, row_class: RowClass, instrument: int) -> dict[str, object]:
        """Return where a reader of an image taken now goes on: topic, partition, session, and a
        sequence number that no row submitted after this call is below.

        Rows that are queued now are read once more: sizes are absolute, so that does no harm."""
        partition = self._partitions[row_class].of(instrument)
        partition_queue = self.queue.partition_queues.get((row_class, partition))
        return {
            "topic": self._topics[row_class],
            "partition": partition,
            "session": self.session.hex(),
            "sequence": partition_queue.next_sequence if partition_queue is not None else 0,
        }

    def sequences(self) -> dict[str, dict[str, int]]:
        """Return the last number given to a row, by topic and partition."""
        last: dict[str, dict[str, int]] = {}
        for (row_class, partition), queue in self.queue.partition_queues.items():
            if queue.next_sequence:
                topic = last.setdefault(self._topics[row_class], {})
                topic[str(partition)] = queue.next_sequence - 1
        return last

    def statistics(self) -> QueueStatistics:
        return self.queue.statistics(self._clock())

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait until Kafka has accepted us and the topics are there.

        Raises SinkUnavailable with the last reason: at once when Kafka refuses us (a password, a
        certificate), else when it takes longer than `timeout_s`.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._judged.wait(), timeout_s)
        if not self._connected.is_set():
            where = f"Kafka at {self.settings.bootstrap_servers}"
            raise SinkUnavailable(where, self.failure or "no answer")

    async def drain(self, timeout_s: float) -> int:
        """Wait until all rows are settled and the side queue is empty; return the rows left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.queue.rows or self.side:
                    await self._next_progress()
        return self.queue.rows

    async def room(self, rows_max: int) -> None:
        """Wait until fewer rows than this are not settled: for a publisher that can wait."""
        while self.queue.rows >= rows_max:
            await self._next_progress()

    async def _next_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    async def close(self) -> None:
        """End `run`, without waiting for anything undelivered."""
        self._closing = True
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    async def run(self) -> None:
        """Connect, send, replace the producer when it must be; until cancelled."""
        self._running = asyncio.current_task()
        limit_logging()
        fail_writes_to_lost_sockets()
        ticking = asyncio.create_task(self._tick())
        attempt = 0
        try:
            while not self._closing:
                try:
                    producer = await self._connect()
                except (errors.KafkaError, OSError, TimeoutError, SinkUnavailable) as failure:
                    reason = await self._reason(failure)
                    self.failure = reason.text
                    if reason.is_final:
                        self._judged.set()
                    delay_s = BACKOFF.delay_s(attempt, random.random)
                    log.warning("kafka.unavailable", reason=self.failure, retry_s=round(delay_s, 2))
                    attempt += 1
                    await asyncio.sleep(delay_s)
                    continue
                attempt = 0
                await self._serve(producer)
        finally:
            ticking.cancel()
            self._running = None

    # The hooks may be set at any time, hence the detour.

    def _was_shed(self, row_class: RowClass, instrument: int) -> None:
        self.on_shed(row_class, instrument)

    def _pause(self) -> None:
        self.on_pause()

    def _resume(self) -> None:
        self.on_resume()

    async def _tick(self) -> None:
        """What time alone brings about: the end of a pause, the age of a row."""
        while True:
            await asyncio.sleep(TICK_S)
            self.queue.check(self._clock(), with_age=True)

    async def _connect(self) -> AIOKafkaProducer:
        settings = self.settings
        if not self._topics_known and settings.create_topics:
            await create_topics(settings)
        producer = await start_producer(settings)
        try:
            found = await count_partitions(producer, self._topics.values())
        except BaseException:
            await end_producer(producer)
            raise
        if not self._topics_known:
            self._learn_partitions(found)
        self.failure = None
        self._connected.set()
        self._judged.set()
        return producer

    async def _reason(self, failure: Exception) -> Reason:
        if isinstance(failure, SinkUnavailable):
            return Reason(failure.reason)
        return await explain_connection_failure(failure, self.settings.client_options())

    def _learn_partitions(self, found: dict[str, int]) -> None:
        """Route by the topics' real partitions. They are fixed for the session: a topic that grows
        meanwhile would tear an instrument's order apart."""
        for row_class, topic in self._topics.items():
            if found[topic] != self.settings.partitions:
                partitions = Partitions(self._instruments, found[topic])
                self._partitions[row_class] = partitions
                self.queue.repartition(row_class, partitions.split)
        self._topics_known = True

    async def _serve(self, producer: AIOKafkaProducer) -> None:
        """Send until a delivery fails for good, then end the producer."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_side(producer))
                self._sender.start(producer, group)
        except* ProducerFailed as group_of_failures:
            for one in group_of_failures.exceptions:
                if isinstance(one, ProducerFailed):
                    self.producer_resets[cause(one.failure)] += 1
                    log.warning("kafka.producer.replaced", reason=repr(one.failure))
        finally:
            self._sender.stop()
            await end_producer(producer)

    async def _send_side(self, producer: AIOKafkaProducer) -> None:
        try:
            await self.side.send(producer)
        except errors.KafkaError as failure:
            delay_s = BACKOFF.delay_s(self.side.failures, random.random)
            await self._sender.give_up(failure, delay_s)

    def _dead_letter(
        self, partition_queue: PartitionQueue, in_flight: InFlightBatch, reason: str
    ) -> None:
        """Put the one row of the first span aside and declare what it leaves behind."""
        [record] = self._encoder.encode(partition_queue.row_class, *in_flight.part())
        rows, first = in_flight.settle()
        topic, now_ns = self._topics[partition_queue.row_class], self._clock()
        where = (topic, partition_queue.partition, self.session, first)
        letter = dead_letter(*where, record, reason)
        self.publish(DEAD_LETTER, record[0], letter, ts_ms=now_ns // 1_000_000)
        self.publish(STATUS, None, void(*where, len(rows), reason), ts_ms=now_ns // 1_000_000)
        log.error("kafka.dead_letter", topic=topic, seq=first, rows=len(rows), reason=reason)
        self.queue.settle(rows)
        self._counts.dead_lettered(partition_queue.row_class, rows)
        instrument = int(rows["instrument"][0])
        if rows["kind"][0] != Kind.GAP:  # else every mark that is refused would bring another
            gap = control_row(
                partition_queue.row_class, Kind.GAP, instrument, now_ns, cause=Cause.DEAD_LETTER
            )
            self.queue.declare(partition_queue, gap, now_ns)
        self.on_shed(partition_queue.row_class, instrument)
