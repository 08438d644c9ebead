"""From lanes to acks: which rows go into which request, and what becomes of them.

At the end of a turn of the loop in which rows were queued, and whenever an answer has come, `_pump`
starts a request to each broker that leads a lane with something to send: whatever has gathered in
all its lanes goes at once. Rows whose lane has a batch under way wait for its answer, or until it
has been under way for some time (see `window`). So there is no linger here, and batches grow with
load by themselves.

A batch that the broker may take later is sent again as it is. Any other failure is judged (see
`refusals`) and costs its partition alone. What fails for all of them, and any exception that
nothing foresaw, ends the producer: the sender then raises ProducerFailed, and goes on with the
unacked rows, encoded again, when it is given the next producer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

import structlog
from aiokafka import TopicPartition, errors

from ingestor.codec import joined
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.backoff import Backoff
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.apart import lanes_apart, trouble_of
from ingestor.sinks.kafka.batch_maker import BatchMaker
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.life import LifeEnded
from ingestor.sinks.kafka.produce_request import Failures, ProduceClient
from ingestor.sinks.kafka.queue import PartitionQueue, PublishQueue
from ingestor.sinks.kafka.refusals import Refusals
from ingestor.telemetry.bulkheads import bulkheads

log = structlog.get_logger(__name__)

GRACE_S: Final = 0.5  # for acks that are on their way when a producer is to be replaced
# Under way to one broker. So a lane has no more batches under way than the broker knows again, the
# last five of a producer and partition (KIP-98): else one that is sent again could be there twice.
REQUESTS_MAX: Final = 5
REQUEST_BYTES_MAX: Final = 1 << 20  # before compression; a lane's batch is never divided for it
RETRY_CAP_S: Final = 1.0  # after failures that pass
DOUBT: Final = -1  # no broker: a task asks whether this life goes on


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
        batches: BatchMaker,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], int],
        progress: asyncio.Event,
        refusals: Refusals,
    ) -> None:
        """Create the sender.

        Args:
            settings: of the producer.
            queue: rows to send.
            counts: told of acks.
            batches: makes batches of rows.
            clock: ns since the epoch.
            monotonic: ns, as the times of the queue.
            progress: set whenever something was settled, or failed.
            refusals: judges batches that are refused for good.
        """
        self._settings = settings
        self._queue = queue
        self._counts = counts
        self.batches = batches
        self._clock = clock
        self._progress = progress
        self._monotonic = monotonic
        self._refusals = refusals
        self._retry = Backoff(base_s=settings.retry_backoff_ms / 1_000, cap_s=RETRY_CAP_S)
        self._retry_now = asyncio.Event()
        self.frozen_classes: set[RowClass] = set()  # how many partitions they have isn't known
        self.refused_topics: dict[str, str] = {}  # tick topics that must not be written to, and why
        self.last_ack_s = float("-inf")  # by the loop's clock
        self._reach_attempts = 0  # to connect, in a row
        self._windows: dict[PartitionQueue, InFlightWindow] = {}
        self._waiting: dict[
            InFlightWindow, None
        ] = {}  # they may have something to send: longest wait first
        self.produce: ProduceClient | None = None  # None: nothing new is sent now
        self._group: asyncio.TaskGroup | None = None
        self._pump_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._requests: Counter[int] = Counter()  # under way, by broker
        self._reaching: set[int | None] = (
            set()
        )  # brokers that a task connects to; None: it asks who
        self._is_retrying = False
        self._withdrawn: set[InFlightWindow] = set()  # held until `thaw`
        self.refused: Counter[str] = Counter()  # batches that were refused for good, by reason

    def start(self, produce: ProduceClient, group: asyncio.TaskGroup) -> None:
        """Send, in tasks of `group`; one of them raises ProducerFailed at the end."""
        for window in self._windows.values():
            window.reset()
        self._waiting.clear()
        self._reaching.clear()
        self._requests.clear()
        self._withdrawn.clear()
        self._group = group
        self.produce = produce
        self.wake(self._queue.partition_queues.values())

    def stop(self) -> None:
        """The tasks have ended: send nothing until the next `start`."""
        self._group = self.produce = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self, partition_queues: Iterable[PartitionQueue]) -> None:
        """Rows may have been queued in these lanes: send them once this turn of the loop is over,
        with what else it brings.
        """
        if self.produce is not None:
            self._wake(
                [
                    self._windows.get(partition_queue) or self._window(partition_queue)
                    for partition_queue in partition_queues
                ]
            )

    def _wake(self, windows: Iterable[InFlightWindow]) -> None:
        for window in windows:
            self._waiting[window] = None
        if self._waiting and not self._pump_is_due and self.produce is not None:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _window(self, partition_queue: PartitionQueue) -> InFlightWindow:
        topic = self._settings.tick_topic(partition_queue.row_class)
        window = self._windows[partition_queue] = InFlightWindow(
            partition_queue, TopicPartition(topic, partition_queue.partition)
        )
        window.is_frozen = partition_queue.row_class in self.frozen_classes
        return window

    def _pump(self) -> None:
        """Start a request to each broker that has room for one and something to get."""
        self._pump_is_due = False
        produce = self.produce
        if produce is None:
            return
        try:
            if produce.in_doubt:
                self._reach(produce, DOUBT)
            else:
                self._start_requests(produce)
        except Exception as failure:  # noqa: BLE001  # the boundary
            bulkheads.bug("partition", failure)
            self._spawn(partial(self.give_up, failure, 0.0))

    def _start_requests(self, produce: ProduceClient) -> None:
        loads: dict[int, list[InFlightWindow]] = {}
        size_bytes: Counter[int] = Counter()
        is_too_much = False
        now_s = asyncio.get_running_loop().time()
        for window in list(self._waiting):
            if not (window.in_flight_batches or window.partition_queue.rows):
                del self._waiting[window]
                continue
            node = self._leader(produce, window, now_s)
            if node is None:
                continue
            connection = produce.connection(node)
            if connection is None:
                window.miss(now_s, f"no connection to broker {node}", is_own=False)
                self._reach(produce, node)
                continue
            window.absence = None
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
                size_bytes[node] += self.batches.size_bytes(window)
        for node, windows in loads.items():
            self._requests[node] += 1
            self._spawn(partial(self._request, produce, node, windows))
        if is_too_much:
            self._wake(())  # after the loop has looked at its sockets

    def _leader(self, produce: ProduceClient, window: InFlightWindow, now_s: float) -> int | None:
        """Return the broker to send a partition's rows to, None when there is none."""
        topic = window.place.topic
        if topic in self.refused_topics:
            window.miss(now_s, self.refused_topics[topic], is_own=True)
            del self._waiting[window]  # `allow` wakes it
            return None
        node = produce.leader(window.place)
        if node is None:
            window.miss(now_s, produce.absence(topic), is_own=True)
            self._reach(produce, None)
        return node

    def _pump_in(self, wait_s: float) -> None:
        """Pump again after this time. What starts later may go later: one timer is enough."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._pump()

    def _spawn(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        bounded = self._bounded(work)
        try:
            assert self._group is not None, "not started"
            self._group.create_task(bounded)
        except RuntimeError:  # the group's tasks are being cancelled: `stop` is next
            bounded.close()

    async def _bounded(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Let an exception cost the producer, and nothing else."""
        try:
            await work()
        except (ProducerFailed, LifeEnded):
            raise
        except (errors.KafkaError, OSError) as failure:
            await self.give_up(failure, 0.0)
        except Exception as failure:  # noqa: BLE001  # the boundary
            bulkheads.bug("partition", failure)
            await self.give_up(failure, 0.0)

    def _reach(self, produce: ProduceClient, node: int | None) -> None:
        if node not in self._reaching:
            self._reaching.add(node)
            self._spawn(partial(self._connect, produce, node))

    async def _connect(self, produce: ProduceClient, node: int | None) -> None:
        """Connect to a broker; where that fails, or none is known, ask who leads, and wait."""
        if node == DOUBT:
            await produce.confirm()
        elif node is None or not await produce.connect(node):
            if node is not None:  # a partition without a leader is told of by `held`
                self._say_retrying(errors.NodeNotReadyError())
            await self._pause(produce, self._reach_attempts)
            self._reach_attempts += 1
        else:
            self._reach_attempts = 0
        self._reaching.discard(node)
        self._wake(())

    async def _request(
        self, produce: ProduceClient, node: int, windows: Sequence[InFlightWindow]
    ) -> None:
        """Send the next batch of each lane, and see to what becomes of them."""
        unmade: dict[InFlightWindow, Exception] = {}
        in_flight_batches = self._flights(produce, node, windows, unmade)
        batches = {
            window.place: in_flight.payload
            for window, in_flight in in_flight_batches
            if in_flight.payload is not None
        }
        failures: Failures
        try:
            failures = await produce.send(node, batches) if batches else {}
        except errors.KafkaError as no_answer:
            failures = dict.fromkeys(batches, no_answer)
        self._requests[node] -= 1
        self._progress.set()
        acked: list[tuple[InFlightWindow, InFlightBatch]] = []
        failed: list[tuple[InFlightWindow, InFlightBatch, Exception]] = []
        for window, in_flight in in_flight_batches:
            window.land(in_flight)
            failure = unmade.get(window) or failures[window.place]
            if failure is None:
                acked.append((window, in_flight))
            else:
                failed.append((window, in_flight, failure))
        if acked:
            self._settle(acked)
        for window, in_flight, failure in failed:
            await self._fail(window, in_flight, failure)
        self._try_again(
            produce,
            [window for window, _ in in_flight_batches if window.is_held and not window.under_way],
        )
        self._wake(windows)

    async def _fail(
        self, window: InFlightWindow, in_flight: InFlightBatch, failure: Exception
    ) -> None:
        """Hold a lane until its batch may be tried again; give up the producer if it is refused."""
        now_s = asyncio.get_running_loop().time()
        is_final = window.is_final(in_flight, failure)
        window.fail()
        if not is_final:
            window.attempts += 1
            is_own = isinstance(failure, errors.UnknownTopicOrPartitionError)
            window.suffer(now_s, error_name(failure), is_own=is_own)
            self._say_retrying(failure)
            return
        in_flight.end_span(failure)
        decision = self._refusals.judge(window, in_flight, failure)
        window.suffer(now_s, decision.reason, is_own=decision.is_own)
        window.retry_s = decision.delay_s
        self.refused[decision.reason] += 1
        if decision.replaces:
            await self.give_up(failure, decision.delay_s)

    def _try_again(self, produce: ProduceClient, windows: Sequence[InFlightWindow]) -> None:
        """Let lanes whose batches have all landed go on, each at its time."""
        passing = [window for window in windows if window.retry_s is None]
        if passing:
            self._spawn(partial(self._again, produce, passing))
        for window in windows:
            if window.retry_s is not None:
                self._spawn(partial(self._again, produce, [window]))

    def _flights(
        self,
        produce: ProduceClient,
        node: int,
        windows: Sequence[InFlightWindow],
        unmade: dict[InFlightWindow, Exception],
    ) -> list[tuple[InFlightWindow, InFlightBatch]]:
        """Start the next batch of each lane that may still start one: the same as before after a
        failure that passes, else the next rows, all of a class encoded together. unmade: gets what
        was raised while a batch was made.
        """
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
            self.batches.make(produce, row_class, of_class, unmade)
        # What is left of a lane starts beside this.
        self._wake(
            [
                window
                for window, _ in in_flight_batches
                if window.wait_s(connection, now_s) is not None
            ]
        )
        return in_flight_batches

    def _take(self, window: InFlightWindow) -> InFlightBatch:
        partition_queue = window.partition_queue
        rows, since_ns = self._queue.take(partition_queue, self.batches.rows_max(partition_queue))
        in_flight = InFlightBatch(rows, partition_queue.next_sequence, since_ns)
        partition_queue.next_sequence += len(rows)
        window.in_flight_batches.append(in_flight)
        return in_flight

    def _settle(self, in_flight_batches: Sequence[tuple[InFlightWindow, InFlightBatch]]) -> None:
        """These flights are in the topic."""
        now_ns, monotonic_ns = self._clock(), self._monotonic()
        self.last_ack_s = asyncio.get_running_loop().time()
        self._is_retrying = False
        acked: dict[RowClass, list[Rows]] = {}
        oldest_ns = monotonic_ns
        for window, in_flight in in_flight_batches:
            rows, _ = in_flight.settle()
            in_flight.end_span()
            if window.clamps_times:
                window.clamps_times = self._refusals.is_clamped(in_flight)
            window.drop(in_flight)
            window.recover()
            self._queue.settle(window.partition_queue, rows)
            acked.setdefault(window.partition_queue.row_class, []).append(rows)
            oldest_ns = min(oldest_ns, in_flight.since_ns)
        for row_class, parts in acked.items():
            waited_ns = monotonic_ns - oldest_ns
            self._counts.acked(row_class, joined(parts), now_ns, now_ns - waited_ns)
        if self._queue.pressed:
            self._queue.check(monotonic_ns)

    async def _again(self, produce: ProduceClient, windows: Sequence[InFlightWindow]) -> None:
        """Wait, ask who leads these lanes' partitions, and try again."""
        delay_s = windows[0].retry_s
        if delay_s is None:
            await self._pause(produce, min(window.attempts for window in windows) - 1)
        elif delay_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._retry_now.wait()
            await produce.refresh()
        for window in windows:
            if window.needs_renewal:
                await window.renew(produce)
            window.retry_s = None
            window.is_held = False
        self._wake(windows)

    async def _pause(self, produce: ProduceClient, attempts: int) -> None:
        await produce.refresh()
        await asyncio.sleep(self._retry.delay_s(attempts, lambda: 0.5 + random.random() / 2))

    def retry_now(self) -> None:
        """Try at once what waits for another try: a reason to refuse it may have ended."""
        self._retry_now.set()
        self._retry_now = asyncio.Event()

    def _say_retrying(self, reason: Exception) -> None:
        if not self._is_retrying:
            log.warning("kafka.retrying", reason=repr(reason))
        self._is_retrying = True

    # Partitions that fail alone, or come and go.

    def set_apart(self, apart: Iterable[PartitionQueue]) -> frozenset[PartitionQueue]:
        """Return the lanes that take nothing while Kafka takes others, or because it refuses them.

        Args:
            apart: those that were found by the last call; they stay until they take something.
        """
        now_s = asyncio.get_running_loop().time()
        return lanes_apart(self._windows, set(apart), self.last_ack_s, now_s)

    def reason(self, partition_queue: PartitionQueue) -> str:
        """Return why a lane takes nothing."""
        trouble = trouble_of(self._windows[partition_queue])
        return trouble.reason if trouble is not None else "nothing was sent yet"

    def freeze(self, row_class: RowClass) -> bool:
        """Start nothing more of a class; return whether nothing of it is under way any more."""
        self.frozen_classes.add(row_class)
        windows = self._of(row_class)
        for window in windows:
            window.is_frozen = True
        return not any(window.under_way for window in windows)

    def withdraw(self, row_class: RowClass) -> list[tuple[PartitionQueue, InFlightBatch]]:
        """Give up the batches of a frozen class, each lane's oldest first."""
        found = []
        for window in self._of(row_class):
            found += [(window.partition_queue, in_flight) for in_flight in window.withdraw()]
            if window.needs_renewal and not window.is_held:  # else `_again` sees to it already
                window.is_held, window.retry_s = True, 0.0
                self._withdrawn.add(window)
        return found

    def thaw(self, row_class: RowClass) -> None:
        """Go on with a class whose partitions are known; lanes that are gone are forgotten."""
        self.frozen_classes.discard(row_class)
        known = set(self._queue.partition_queues.values())
        for window in self._of(row_class):
            window.is_frozen = False
            window.absence = None
            if window.partition_queue not in known:
                del self._windows[window.partition_queue]
            elif window in self._withdrawn and self.produce is not None:
                self._spawn(partial(self._again, self.produce, [window]))
            self._withdrawn.discard(window)
        self.wake(item for item in known if item.row_class is row_class)

    def _of(self, row_class: RowClass) -> list[InFlightWindow]:
        windows = list(self._windows.values())
        return [window for window in windows if window.partition_queue.row_class is row_class]

    async def give_up(self, failure: BaseException, delay_s: float) -> NoReturn:
        """Wait, let the other answers come in, and raise ProducerFailed."""
        await asyncio.sleep(delay_s)
        self.produce = None
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._requests.total():
                    self._progress.clear()
                    await self._progress.wait()
        raise ProducerFailed(failure)
