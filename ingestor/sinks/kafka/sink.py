"""The Kafka sink: rows in, acks out, and whatever a broker may do in between.

Rows wait in the `queue` of their partition, one for each topic and partition, until they are acked;
`sender` takes them from there into produce requests. When the producer must be replaced, the sender
goes on with the unacked rows, in order, encoded again. Each topic and partition fails alone:
`topic_keeper` creates topics again and follows their partitions.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, errors

from ingestor.codec import Headers, encoder, headers, schema_name
from ingestor.kafka.aiokafka_compat import end_of_background_tasks, end_producer
from ingestor.kafka.diagnosis import Reason, explain_connection_failure
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.partitions import Partitions
from ingestor.kafka.settings import AUXILIARY_TOPICS, DEAD_LETTER, STATUS, KafkaSettings
from ingestor.kafka.transactions import ProducerIdentity
from ingestor.model.batch import Instruments, TickBatch
from ingestor.model.errors import LedgerBroken, SinkUnavailable
from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import Cause, Kind
from ingestor.sinks.backpressure import Backpressure
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.auxiliary_queue import AuxiliaryQueue, dead_letter, void
from ingestor.sinks.kafka.auxiliary_topic import AuxiliaryRecord
from ingestor.sinks.kafka.batch_maker import BatchMaker, json_batches_of
from ingestor.sinks.kafka.clock_steps import ClockSteps
from ingestor.sinks.kafka.in_flight import InFlightBatch
from ingestor.sinks.kafka.life import Life, LifeEnded
from ingestor.sinks.kafka.life_end import drop_all
from ingestor.sinks.kafka.overload import Budget
from ingestor.sinks.kafka.produce_request import ProduceClient
from ingestor.sinks.kafka.producer import (
    end_quietly,
    identify,
    leaves_of,
    start_producer,
    while_alive,
)
from ingestor.sinks.kafka.queue import PartitionQueue, PublishQueue, QueueStatistics
from ingestor.sinks.kafka.refusals import BACKOFF, Refusals
from ingestor.sinks.kafka.reports import refused_now
from ingestor.sinks.kafka.sender import ProducerFailed, Sender
from ingestor.sinks.kafka.topic_keeper import TopicKeeper
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.tracing import tracing

log = structlog.get_logger(__name__)

TICK_S: Final = 0.25
ACK_WITHIN_S: Final = 5.0  # or Kafka doesn't take rows; see `is_up`
STABLE_S: Final = 10.0  # a producer that served so long is followed by the next one at once
# Failures of a connection that have their own words; any other exception is a bug.
_FORESEEN: Final = (errors.KafkaError, OSError, TimeoutError, SinkUnavailable)


class KafkaSink:
    """Publishes batches of all three classes, and records on the side topics.

    `run` owns all tasks; `submit` and `publish` may be called before and while it runs, from the
    loop's thread.

    Once another has fenced its life, it drops and counts whatever it holds and is given, calls
    `on_fenced`, and never publishes again. `voids` then has what its next life is to publish on the
    topic `status.v1`: the numbers that will never come.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        instruments: Instruments,
        counts: SinkCounts,
        *,
        session: bytes,
        life: str | None = None,
        budget: Budget | None = None,
        backpressure: Backpressure | None = None,
        on_fenced: Callable[[], None] = lambda: None,
        more_headers: Headers | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Create the Kafka sink.

        Args:
            settings: of producer and topics.
            instruments: by number, may grow.
            counts: told what becomes of rows.
            session: 16 bytes, unique to this run of the process.
            life: transactional id of this run alone, by which others can fence it; None where
                nobody else publishes the same.
            budget: bounds of what waits for Kafka.
            backpressure: stops reading, and is told of instruments whose rows are dropped.
            on_fenced: called once another has fenced this life. Who runs several may set it later.
            more_headers: of every record of rows, beside `schema`.
            clock: ns since the epoch, for timestamps alone.
            monotonic: ns since any time, for all durations.
        """
        self.settings = settings
        self.session = session
        self.backpressure = backpressure or Backpressure()
        self.on_fenced = on_fenced
        self.has_ended = False
        self.voids: list[bytes] = []
        self.life = None if life is None else Life(life)
        self._progress = asyncio.Event()  # something was settled, or failed
        self.side = AuxiliaryQueue(self._progress, clock=clock, bytes_max=settings.max_batch_bytes)
        self.producer_resets: Counter[str] = Counter()
        self.failure: str | None = "not started"  # why nothing is accepted now; None = connected
        self._instruments = instruments
        self._counts = counts
        self._clock = clock
        self._monotonic = monotonic
        self._steps = ClockSteps(clock, monotonic)
        self._encoder = encoder(settings.encoding, instruments, session)
        self._topics = {cls: settings.tick_topic(cls) for cls in ROW_CLASSES}
        self._no_records = {(settings.topic(name), "acked"): 0 for name in AUXILIARY_TOPICS}
        self._partitions = {
            cls: Partitions(instruments, settings.partitions) for cls in ROW_CLASSES
        }
        self._idle_ns = monotonic()  # when no row waited, or one was acked, last
        self.queue = PublishQueue(budget or Budget(), counts, self.backpressure)
        self._sender = self._sender_of(more_headers or [])
        self.refused = self._sender.refused  # batches that were refused for good, by reason
        self.refused_topics = self._sender.refused_topics  # must not be written to, and why
        self._keeper = TopicKeeper(settings, self.refused_topics)
        self._acked_s = self._sender.last_ack_s
        self._connected = asyncio.Event()
        self._judged = asyncio.Event()  # connected, or refused for good
        self._running: asyncio.Task[None] | None = None
        self._closing = False  # a failure at the same moment may swallow the cancellation

    def _sender_of(self, more_headers: Headers) -> Sender:
        refusals = Refusals(self._steps, self._clock, self._dead_letter)
        encoding = self.settings.encoding
        all_headers = {cls: headers(cls, encoding) + more_headers for cls in ROW_CLASSES}
        batches = json_batches_of(self.settings, self._encoder, self._instruments, all_headers)
        sender = Sender(
            self.settings,
            self.queue,
            self._counts,
            BatchMaker(self.settings, self._encoder, all_headers, refusals, batches),
            clock=self._clock,
            monotonic=self._monotonic,
            progress=self._progress,
            refusals=refusals,
        )
        sender.frozen_classes.update(ROW_CLASSES)
        return sender

    @property
    def is_up(self) -> bool:
        """Return True if Kafka takes rows: it is connected, and acks come while rows wait."""
        waited_ns = self._monotonic() - self._idle_ns
        return self.failure is None and (not self.queue.rows or waited_ns < ACK_WITHIN_S * 1e9)

    def submit(self, batch: TickBatch, _now_ns: int) -> None:
        """Queue rows for their partitions. Never blocks and never fails for lack of room."""
        if not len(batch.rows):
            return
        row_class, queue, now_ns = batch.row_class, self.queue, self._monotonic()
        if self.has_ended:
            self._counts.fenced(row_class, batch.rows)
            return
        if not row_class.is_standard:
            self._keeper.want(row_class)
        partition_queues = []
        # Split before the first row is queued: what raises here is the caller's to shed, whole.
        for partition, rows in list(self._partitions[row_class].split(batch.rows)):
            try:
                partition_queue = queue.partition_queue(row_class, partition)
                queue.put(partition_queue, rows, now_ns)
            except Exception as failure:  # noqa: BLE001  # the boundary of a partition
                bulkheads.bug("partition", failure, partition=partition)
                self._counts.shed(row_class, rows)
            else:
                partition_queues.append(partition_queue)
        try:
            queue.check(now_ns)
        except Exception as failure:  # noqa: BLE001  # the rows are queued: they go on
            bulkheads.bug("partition", failure)
        self._sender.wake(partition_queues)

    def want(self, row_class: RowClass) -> None:
        """Have the topic of a class made, before its first row comes."""
        self._keeper.want(row_class)

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        """Queue one record for an auxiliary topic.

        It is dropped, and counted in `side.dropped`, when the queue is full.

        Args:
            topic: Name of the topic without the prefix.
            key: Key of the record.
            value: Value of the record.
            ts_ms: Time of the record in ms since the epoch.
        """
        name = self.settings.topic(topic)
        self.side.put(AuxiliaryRecord(name, schema_name(topic), key, value, ts_ms))

    def position(self, row_class: RowClass, instrument: int) -> dict[str, object]:
        """Return where a reader of an image taken now goes on: topic, partition, session, and a
        sequence number that no row submitted after this call is below.

        Rows that are queued now are read once more: sizes are absolute, so that does no harm.
        """
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
        """Return what waits for Kafka, and what Kafka refuses."""
        apart = [
            (self._topics[item.row_class], item.partition, self._sender.reason(item))
            for item in self.queue.apart
        ]
        held, partitions = refused_now(apart, self.refused_topics, self.side.topics)
        return replace(
            self.queue.statistics(self._monotonic()),
            held=held,
            held_partitions=dict.fromkeys(self._topics.values(), 0) | partitions,
            side=self._no_records | self.side.outcomes(),
        )

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
        """Connect, send, replace the producer when it must be; until cancelled, or fenced.

        Raises:
            LedgerBroken: when rows are unaccounted for; no other exception ends it.
        """
        self._running = asyncio.current_task()
        ticking = asyncio.create_task(bulkheads.keep("sink", self._tick))
        attempt, step = 0, "start producer"
        try:
            while not self._closing:
                started_ns = self._monotonic()
                try:
                    with tracing.span(step):
                        producer, identity = await self._connect()
                    step = "replace producer"
                except LifeEnded as ended:
                    self._end_life(ended)
                    return
                except Exception as failure:  # noqa: BLE001  # the boundary
                    await self._wait_for_kafka(failure, attempt)
                    attempt += 1
                    continue
                over = await self._serve(producer, identity)
                if over is not None:
                    self._end_life(over)
                    return
                served_s = (self._monotonic() - started_ns) / 1e9
                attempt = 0 if served_s > STABLE_S else attempt + 1
                if attempt > 1 and not self._closing:
                    await asyncio.sleep(BACKOFF.delay_s(attempt, random.random))
        finally:
            ticking.cancel()
            self._running = None

    async def _wait_for_kafka(self, failure: Exception, attempt: int) -> None:
        """Say why there is no producer, and wait before the next try."""
        if not isinstance(failure, _FORESEEN):
            bulkheads.bug("producer", failure)
        try:
            reason = await self._reason(failure)
        except Exception as another:  # noqa: BLE001  # the boundary
            bulkheads.bug("producer", another)
            reason = Reason(repr(failure))
        self.failure = reason.text
        if reason.is_final:
            self._judged.set()
        delay_s = BACKOFF.delay_s(attempt, random.random)
        log.warning("kafka.unavailable", reason=self.failure, retry_s=round(delay_s, 2))
        await asyncio.sleep(delay_s)

    async def _tick(self) -> None:
        """Do what time alone brings about: ages, ends of pauses, partitions that fail alone."""
        while True:
            await asyncio.sleep(TICK_S)
            now_ns = self._monotonic()
            if not self.queue.rows or self._sender.last_ack_s != self._acked_s:
                self._idle_ns, self._acked_s = now_ns, self._sender.last_ack_s
            step_ns = self._steps.look()
            if step_ns:
                log.warning("clock.stepped", seconds=round(step_ns / 1e9, 3))
                self._sender.retry_now()
            self._set_apart()
            self._follow_partitions()
            self.queue.check(now_ns, with_age=True)

    def _set_apart(self) -> None:
        before, queue = self.queue.apart, self.queue
        queue.apart = self._sender.set_apart(before)
        for partition_queue in queue.apart - before:
            where = {
                "topic": self._topics[partition_queue.row_class],
                "partition": partition_queue.partition,
            }
            log.error("kafka.partition_held", **where, reason=self._sender.reason(partition_queue))
        for partition_queue in before - queue.apart:
            topic = self._topics[partition_queue.row_class]
            log.info("kafka.partition_resumed", topic=topic, partition=partition_queue.partition)
        self._sender.wake(queue.apart)  # what was refused may be allowed

    def _follow_partitions(self) -> None:
        """Route by the topics' real partitions, once they are known, and when they have become
        fewer: a topic was made again. One that grows would tear an instrument's order apart, so
        that its new partitions are not used before the next start.
        """
        produce = self._sender.produce
        if produce is None:
            return
        for row_class, topic in self._topics.items():
            found, known = produce.partitions(topic), self._partitions[row_class].count
            is_new = row_class in self._sender.frozen_classes
            if found and (is_new or found < known) and self._sender.freeze(row_class):
                if not is_new:
                    text = "kafka.topic_repartitioned"
                    log.warning(text, topic=topic, before=known, partitions=found)
                if found != known:
                    self._repartition(row_class, topic, found)
                self._sender.thaw(row_class)

    def _repartition(self, row_class: RowClass, topic: str, found: int) -> None:
        """Deal all rows of a class anew, those of batches that were not acked first."""
        now_ms = self._clock() // 1_000_000
        for partition_queue, in_flight in reversed(self._sender.withdraw(row_class)):
            rows, first = in_flight.settle()
            self.queue.withdraw(partition_queue, rows, in_flight.since_ns)
            # Where they go they get other numbers.
            where = (topic, partition_queue.partition, self.session, first)
            text = void(*where, len(rows), "partitions changed")
            self.publish(STATUS, None, text, ts_ms=now_ms)
        self._partitions[row_class] = partitions = Partitions(self._instruments, found)
        self.queue.repartition(row_class, partitions.split, found)

    async def _connect(self) -> tuple[AIOKafkaProducer, ProducerIdentity]:
        await self._keeper.prepare()
        producer = await start_producer(self.settings)
        try:
            await while_alive(producer, self._keeper.find(producer))
            identity = await identify(producer, self.life, self.settings)
        except BaseException:
            await end_producer(producer)
            raise
        self.failure = None
        self._connected.set()
        self._judged.set()
        return producer, identity

    async def _reason(self, failure: Exception) -> Reason:
        if isinstance(failure, SinkUnavailable):
            return Reason(failure.reason, is_final=self._keeper.is_final)
        return await explain_connection_failure(failure, self.settings.client_options())

    async def _serve(
        self, producer: AIOKafkaProducer, identity: ProducerIdentity
    ) -> LifeEnded | None:
        """Send until a delivery fails for good, then end the producer; return why none follows."""
        broken: LedgerBroken | None = None
        ended: LifeEnded | None = None
        try:
            async with asyncio.TaskGroup() as group:
                produce = ProduceClient(
                    producer,
                    compression=self.settings.compression,
                    timeout_ms=self.settings.request_timeout_ms,
                    life=self.life,
                    identity=identity,
                )
                if self.life is not None:
                    group.create_task(self.life.keep())
                group.create_task(self._watch(producer))
                group.create_task(
                    bulkheads.keep("topic", lambda: self._keeper.run(producer, produce))
                )
                self.side.start(produce, group)
                self._sender.start(produce, group)
                self._follow_partitions()
        except* LedgerBroken as group_of_failures:
            [broken, *_] = leaves_of(group_of_failures)
        except* Exception as group_of_failures:  # noqa: BLE001  # the boundary
            for failure in leaves_of(group_of_failures):
                if isinstance(failure, LifeEnded):
                    ended = failure
                elif isinstance(failure, ProducerFailed):
                    self.producer_resets[error_name(failure.failure)] += 1
                    log.warning("kafka.producer.replaced", reason=repr(failure.failure))
                else:
                    bulkheads.bug("producer", failure)
        finally:
            self._sender.stop()
            self.side.stop()
            await end_quietly(producer)
        if broken is not None:
            raise broken
        return ended

    def _end_life(self, ended: LifeEnded) -> None:
        """Drop and count all that is held: whoever took over publishes the same."""
        self.has_ended, self.failure = True, str(ended)
        of_all = self._sender, self.queue, self._counts, self._topics, self.session
        self.voids, dropped = drop_all(*of_all, ended.reason)
        self.side.end()
        log.error("life.ended", life=ended.life, reason=ended.reason, rows_dropped=dropped)
        self._judged.set()
        self._progress.set()
        bulkheads.guard("sink", self.on_fenced)()

    async def _watch(self, producer: AIOKafkaProducer) -> None:
        """Replace the producer when one of aiokafka's own tasks dies: it would wait for ever."""
        raise ProducerFailed(await end_of_background_tasks(producer))

    def _dead_letter(
        self, partition_queue: PartitionQueue, in_flight: InFlightBatch, reason: str
    ) -> None:
        """Put the one row of the first span aside and declare what it leaves behind."""
        rows, first = in_flight.settle()
        topic, now_ns = self._topics[partition_queue.row_class], self._clock()
        try:
            [record] = self._encoder.encode(partition_queue.row_class, rows, first)
        except Exception:  # noqa: BLE001  # reported where its batch was made
            record = (None, rows.tobytes(), now_ns // 1_000_000, len(rows))
        where = (topic, partition_queue.partition, self.session, first)
        letter = dead_letter(*where, record, reason)
        self.publish(DEAD_LETTER, record[0], letter, ts_ms=now_ns // 1_000_000)
        self.publish(STATUS, None, void(*where, len(rows), reason), ts_ms=now_ns // 1_000_000)
        log.error("kafka.dead_letter", topic=topic, seq=first, rows=len(rows), reason=reason)
        self.queue.settle(partition_queue, rows)
        self._counts.dead_lettered(partition_queue.row_class, rows)
        instrument = int(rows["instrument"][0])
        if rows["kind"][0] != Kind.GAP:  # else every mark that is refused would bring another
            # A time of the future would have Kafka refuse the mark as well.
            ts_recv = min(int(rows["ts_recv"][0]), now_ns)
            gap = control_row(
                partition_queue.row_class, Kind.GAP, instrument, ts_recv, cause=Cause.DEAD_LETTER
            )
            self.queue.declare(partition_queue, gap, self._monotonic())
        self.backpressure.shed(partition_queue.row_class, instrument)
