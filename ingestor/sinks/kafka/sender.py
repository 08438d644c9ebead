"""From lanes to acks: which rows go into which request, and what becomes of them.

At the end of a turn of the loop in which rows were queued, and whenever an answer has come, `_pump`
starts a request to each broker that leads a lane with something to send: whatever has gathered in
all its lanes goes at once. Rows whose lane has a batch under way wait for its answer, or until it
has been under way for some time (see `window`). So there is no linger here, and batches grow with
load by themselves.

A batch that the broker may take later is sent again as it is. Any other failure is judged (see
`producer.classify_failure`), and ends the producer: the sender then raises ProducerFailed, and goes
on with the unacked rows, encoded again, when it is given the next producer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition, errors

from ingestor.codec import Encoder, Headers, Record, joined
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.backoff import Backoff
from ingestor.model.rows import DTYPE_OF, RowClass, Rows
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.produce_request import Failures, ProduceClient
from ingestor.sinks.kafka.producer import DeliveryAction, cause, classify_failure
from ingestor.sinks.kafka.queue import PartitionQueue, PublishQueue

log = structlog.get_logger(__name__)

GRACE_S: Final = 0.5  # for acks that are on their way when a producer is to be replaced
# Under way to one broker. So a lane has no more batches under way than the broker knows again, the
# last five of a producer and partition (KIP-98): else one that is sent again could be there twice.
REQUESTS_MAX: Final = 5
REQUEST_BYTES_MAX: Final = 1 << 20  # before compression; a lane's batch is never divided for it
BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0)
_JSON_ROW_BYTES: Final = 350  # the first guess; each class learns its own


class ProducerFailed(Exception):
    """A delivery failed: the producer is of no more use. `failure` is aiokafka's error."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__(repr(failure))
        self.failure = failure


class Sender:
    """Sends the rows of an outbox, for as many producers as that takes."""

    def __init__(
        self,
        settings: KafkaSettings,
        queue: PublishQueue,
        counts: SinkCounts,
        encoder: Encoder,
        headers: Mapping[RowClass, Headers],
        *,
        clock: Callable[[], int],
        progress: asyncio.Event,
        dead_letter: Callable[[PartitionQueue, InFlightBatch, str], None],
    ) -> None:
        """progress: set whenever something was settled, or failed. dead_letter: called with the
        flight of one row that Kafka will never take, and the reason."""
        self._settings = settings
        self._queue = queue
        self._counts = counts
        self._encoder = encoder
        self._headers = headers
        self._clock = clock
        self._progress = progress
        self._dead_letter = dead_letter
        self._windows: dict[PartitionQueue, InFlightWindow] = {}
        self._waiting: dict[
            InFlightWindow, None
        ] = {}  # they may have something to send: longest wait first
        self._row_bytes = {
            row_class: float(dtype.itemsize if settings.encoding == "binary" else _JSON_ROW_BYTES)
            for row_class, dtype in DTYPE_OF.items()
        }
        self._produce: ProduceClient | None = None  # None: nothing new is sent now
        self._group: asyncio.TaskGroup | None = None
        self._pump_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._requests: Counter[int] = Counter()  # under way, by broker
        self._reaching: set[int | None] = (
            set()
        )  # brokers that a task connects to; None: it asks who
        self._is_retrying = False

    def start(self, producer: AIOKafkaProducer, group: asyncio.TaskGroup) -> None:
        """Send, in tasks of `group`; one of them raises ProducerFailed at the end."""
        for window in self._windows.values():
            window.reset()
        self._waiting.clear()
        self._reaching.clear()
        self._requests.clear()
        self._group = group
        self._produce = ProduceClient(
            producer,
            compression=self._settings.compression,
            timeout_ms=self._settings.request_timeout_ms,
        )
        self.wake(self._queue.partition_queues.values())

    def stop(self) -> None:
        """The tasks have ended: send nothing until the next `start`."""
        self._group = self._produce = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self, partition_queues: Iterable[PartitionQueue]) -> None:
        """Rows may have been queued in these lanes: send them once this turn of the loop is over,
        with what else it brings."""
        if self._produce is not None:
            self._wake(
                [
                    self._windows.get(partition_queue) or self._window(partition_queue)
                    for partition_queue in partition_queues
                ]
            )

    def _wake(self, windows: Iterable[InFlightWindow]) -> None:
        for window in windows:
            self._waiting[window] = None
        if self._waiting and not self._pump_is_due and self._produce is not None:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _window(self, partition_queue: PartitionQueue) -> InFlightWindow:
        topic = self._settings.tick_topic(partition_queue.row_class)
        window = self._windows[partition_queue] = InFlightWindow(
            partition_queue, TopicPartition(topic, partition_queue.partition)
        )
        return window

    def _pump(self) -> None:
        """Start a request to each broker that has room for one and something to get."""
        self._pump_is_due = False
        produce = self._produce
        if produce is None:
            return
        loads: dict[int, list[InFlightWindow]] = {}
        size_bytes: Counter[int] = Counter()
        is_too_much = False
        now_s = asyncio.get_running_loop().time()
        for window in list(self._waiting):
            node = produce.leader(window.place)
            connection = None if node is None else produce.connection(node)
            if node is None or connection is None:
                self._reach(produce, node)
                continue
            wait_s = window.wait_s(connection, now_s)
            if wait_s is None:
                del self._waiting[window]
            elif wait_s:
                self._pump_in(wait_s)
            elif size_bytes[node] >= REQUEST_BYTES_MAX:
                is_too_much = True
            elif self._requests[node] < REQUESTS_MAX:
                del self._waiting[window]
                loads.setdefault(node, []).append(window)
                size_bytes[node] += self._size_bytes(window)
        for node, windows in loads.items():
            self._requests[node] += 1
            self._spawn(self._request(produce, node, windows))
        if is_too_much:
            self._wake(())  # after the loop has looked at its sockets

    def _pump_in(self, wait_s: float) -> None:
        """Pump again after this time. What starts later may go later: one timer is enough."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._pump()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        assert self._group is not None, "not started"
        try:
            self._group.create_task(work)
        except RuntimeError:  # the group's tasks are being cancelled: `stop` is next
            work.close()

    def _reach(self, produce: ProduceClient, node: int | None) -> None:
        if node not in self._reaching:
            self._reaching.add(node)
            self._spawn(self._connect(produce, node))

    async def _connect(self, produce: ProduceClient, node: int | None) -> None:
        """Connect to a broker; where that fails, or none is known, ask who leads, and wait."""
        if node is None or not await produce.connect(node):
            self._say_retrying(errors.NodeNotReadyError())
            await self._pause(produce)
        self._reaching.discard(node)
        self._wake(())

    def _size_bytes(self, window: InFlightWindow) -> int:
        """Return about how many bytes a lane's next batch will have before compression."""
        in_flight = window.next()
        rows = len(in_flight.rows) if in_flight is not None else window.partition_queue.rows
        rows_bytes = int(rows * self._row_bytes[window.partition_queue.row_class])
        return min(rows_bytes, self._settings.max_batch_bytes)

    async def _request(
        self, produce: ProduceClient, node: int, windows: Sequence[InFlightWindow]
    ) -> None:
        """Send the next batch of each lane, and see to what becomes of them."""
        in_flight_batches = self._flights(produce, node, windows)
        batches = {
            window.place: in_flight.payload or b"" for window, in_flight in in_flight_batches
        }
        failures: Failures
        try:
            failures = await produce.send(node, batches) if batches else {}
        except errors.KafkaError as no_answer:
            failures = dict.fromkeys(batches, no_answer)
        self._requests[node] -= 1
        self._progress.set()
        acked: list[tuple[InFlightWindow, InFlightBatch]] = []
        refused: list[tuple[InFlightWindow, InFlightBatch, errors.KafkaError]] = []
        for window, in_flight in in_flight_batches:
            window.land(in_flight)
            failure = failures[window.place]
            if failure is None:
                acked.append((window, in_flight))
            elif window.is_final(in_flight, failure):
                window.is_refused = True
                refused.append((window, in_flight, failure))
            else:
                window.fail()
                self._say_retrying(failure)
        if acked:
            self._settle(acked)
        again = [
            window for window, _ in in_flight_batches if window.is_held and not window.under_way
        ]
        if again:
            self._spawn(self._again(produce, again))
        self._wake(windows)
        if refused:
            delays_s = [self._judge(*one) for one in refused]
            await self.give_up(refused[0][2], max(delays_s))

    def _flights(
        self, produce: ProduceClient, node: int, windows: Sequence[InFlightWindow]
    ) -> list[tuple[InFlightWindow, InFlightBatch]]:
        """Start the next batch of each lane that may still start one: the same as before after a
        failure that passes, else the next rows, all of a class encoded together."""
        connection = produce.connection(node)
        if connection is None:
            return []
        now_s = asyncio.get_running_loop().time()
        in_flight_batches: list[tuple[InFlightWindow, InFlightBatch]] = []
        new: dict[RowClass, list[tuple[InFlightWindow, InFlightBatch]]] = {}
        for window in windows:
            if window.wait_s(connection, now_s) != 0.0:
                continue
            in_flight = window.next() or self._take(window)
            window.start(in_flight, connection, now_s)
            in_flight_batches.append((window, in_flight))
            if in_flight.payload is None:
                new.setdefault(window.partition_queue.row_class, []).append((window, in_flight))
        for row_class, of_class in new.items():
            parts = [in_flight.part() for _, in_flight in of_class]
            encoded = self._encoder.encode_parts(row_class, parts)
            for (window, in_flight), records in zip(of_class, encoded, strict=True):
                self._build(produce, window, in_flight, records)
        # What is left of a lane starts beside this.
        self._wake(
            [
                window
                for window, _ in in_flight_batches
                if window.wait_s(connection, now_s) is not None
            ]
        )
        return in_flight_batches

    def _build(
        self,
        produce: ProduceClient,
        window: InFlightWindow,
        in_flight: InFlightBatch,
        records: Sequence[Record],
    ) -> None:
        """Make the batch of a flight, or of as much of it as one batch holds."""
        row_class = window.partition_queue.row_class
        in_flight.payload, count, size_bytes = produce.build(
            window.place, records, self._headers[row_class], self._settings.max_batch_bytes
        )
        rows = sum([record[3] for record in records[:count]])
        if count < len(records):
            window.cut(in_flight, rows)
        self._row_bytes[row_class] = max(size_bytes / rows, 1.0)

    def _take(self, window: InFlightWindow) -> InFlightBatch:
        partition_queue = window.partition_queue
        rows_max = self._settings.max_batch_bytes / self._row_bytes[partition_queue.row_class]
        rows, since_ns = self._queue.take(partition_queue, max(int(rows_max), 1))
        in_flight = InFlightBatch(rows, partition_queue.next_sequence, since_ns)
        partition_queue.next_sequence += len(rows)
        window.in_flight_batches.append(in_flight)
        return in_flight

    def _settle(self, in_flight_batches: Sequence[tuple[InFlightWindow, InFlightBatch]]) -> None:
        """These flights are in the topic."""
        now_ns = self._clock()
        self._is_retrying = False
        acked: dict[RowClass, list[Rows]] = {}
        oldest_ns = now_ns
        for window, in_flight in in_flight_batches:
            rows, _ = in_flight.settle()
            window.drop(in_flight)
            self._queue.settle(rows)
            acked.setdefault(window.partition_queue.row_class, []).append(rows)
            oldest_ns = min(oldest_ns, in_flight.since_ns)
        for row_class, parts in acked.items():
            self._counts.acked(row_class, joined(parts), now_ns, oldest_ns)
        if self._queue.pressed:
            self._queue.check(now_ns)

    async def _again(self, produce: ProduceClient, windows: Sequence[InFlightWindow]) -> None:
        """Ask who leads these lanes' partitions, and try again."""
        await self._pause(produce)
        for window in windows:
            window.is_held = False
        self._wake(windows)

    async def _pause(self, produce: ProduceClient) -> None:
        await produce.refresh()
        await asyncio.sleep(self._settings.retry_backoff_ms / 1_000 * (0.5 + random.random()))

    def _say_retrying(self, reason: errors.KafkaError) -> None:
        if not self._is_retrying:
            log.warning("kafka.retrying", reason=repr(reason))
        self._is_retrying = True

    def _judge(
        self, window: InFlightWindow, in_flight: InFlightBatch, failure: errors.KafkaError
    ) -> float:
        """Decide what becomes of a refused batch; return how long to wait (s) before a new try."""
        in_flight.failures += 1
        failures = in_flight.failures
        match classify_failure(failure, failures):
            case DeliveryAction.BISECT:
                if not window.bisect(in_flight):
                    self._dead_letter(window.partition_queue, in_flight, cause(failure))
                    window.drop(in_flight)
                return 0.0
            case DeliveryAction.HOLD:
                delay_s = BACKOFF.delay_s(failures, random.random)
                where = f"{window.place.topic}[{window.place.partition}]"
                log.error("kafka.refused", where=where, reason=repr(failure), retry_s=delay_s)
                return delay_s
        return BACKOFF.delay_s(failures, random.random) if failures > 1 else 0.0

    async def give_up(self, failure: errors.KafkaError, delay_s: float) -> NoReturn:
        """Wait, let the other answers come in, and raise ProducerFailed."""
        await asyncio.sleep(delay_s)
        self._produce = None
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._requests.total():
                    self._progress.clear()
                    await self._progress.wait()
        raise ProducerFailed(failure)
