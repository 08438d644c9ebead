"""From lanes to acks: which rows go into which request, and what becomes of them.

At the end of a turn of the loop in which rows were queued, and whenever an answer has come, `_pump`
starts a request to each broker that leads a lane with something to send: whatever has gathered in
all its lanes goes at once. A lane whose rows are under way waits for their ack, the others don't.
So there is no linger here, and batches grow with load by themselves.

A batch that the broker may take later is sent again as it is. Any other failure is judged (see
`producer.verdict`), and ends the producer: the sender then raises ProducerFailed, and goes on with
the unacked rows, encoded again, when it is given the next producer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition, errors

from ingestor.backoff import Backoff
from ingestor.codec import Encoder, Headers, Record, joined
from ingestor.edge.kafka.channel import Lane, Outbox, SinkCounts
from ingestor.edge.kafka.flight import Flight
from ingestor.edge.kafka.produce import Failures, Produce
from ingestor.edge.kafka.producer import Verdict, cause, verdict
from ingestor.edge.kafka.settings import KafkaSettings
from ingestor.rows import DTYPE_OF, RowClass, Rows

log = structlog.get_logger(__name__)

GRACE_S: Final = 0.5  # for acks that are on their way when a producer is to be replaced
REQUESTS_MAX: Final = 4  # under way to one broker; each lane is in one of them at most
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
        outbox: Outbox,
        counts: SinkCounts,
        encoder: Encoder,
        headers: Mapping[RowClass, Headers],
        *,
        clock: Callable[[], int],
        progress: asyncio.Event,
        dead_letter: Callable[[Lane, Flight, str], None],
    ) -> None:
        """progress: set whenever something was settled, or failed. dead_letter: called with the
        flight whose first span is one row that Kafka will never take, and the reason."""
        self._settings = settings
        self._outbox = outbox
        self._counts = counts
        self._encoder = encoder
        self._headers = headers
        self._clock = clock
        self._progress = progress
        self._dead_letter = dead_letter
        self._flights: dict[Lane, Flight] = {}
        self._places: dict[Lane, TopicPartition] = {}
        # A lane with something to send is in one of these: the longest wait first; with a task.
        self._waiting: dict[Lane, None] = {}
        self._busy: set[Lane] = set()
        self._row_bytes = {
            row_class: float(dtype.itemsize if settings.encoding == "binary" else _JSON_ROW_BYTES)
            for row_class, dtype in DTYPE_OF.items()
        }
        self._produce: Produce | None = None  # None: nothing new is sent now
        self._group: asyncio.TaskGroup | None = None
        self._pump_is_due = False
        self._requests: Counter[int] = Counter()  # under way, by broker
        self._is_retrying = False

    def start(self, producer: AIOKafkaProducer, group: asyncio.TaskGroup) -> None:
        """Send, in tasks of `group`; one of them raises ProducerFailed at the end."""
        for flight in self._flights.values():
            flight.payload = None  # it was made in the name of the producer before
        self._busy.clear()
        self._waiting.clear()
        self._requests.clear()
        self._group = group
        self._produce = Produce(
            producer,
            compression=self._settings.compression,
            timeout_ms=self._settings.request_timeout_ms,
        )
        self.wake(self._outbox.lanes.values())

    def stop(self) -> None:
        """The tasks have ended: send nothing until the next `start`."""
        self._group = self._produce = None

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Rows may have been queued in these lanes: send them once this turn of the loop is over,
        with what else it brings."""
        for lane in lanes:
            if lane not in self._busy and (lane.rows or lane in self._flights):
                self._waiting[lane] = None
        if self._waiting and not self._pump_is_due and self._produce is not None:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Start a request to each broker that has room for one and something to get."""
        self._pump_is_due = False
        produce, group = self._produce, self._group
        if produce is None or group is None:
            return
        loads: dict[int | None, list[Lane]] = {}
        size_bytes: Counter[int | None] = Counter()
        is_too_much = False
        for lane in self._waiting:
            node = produce.leader(self._place(lane))
            if node is not None and self._requests[node] >= REQUESTS_MAX:
                continue
            if size_bytes[node] >= REQUEST_BYTES_MAX:
                is_too_much = True
                continue
            loads.setdefault(node, []).append(lane)
            size_bytes[node] += self._size_bytes(lane)
        for node, lanes in loads.items():
            for lane in lanes:
                del self._waiting[lane]
            self._busy.update(lanes)
            if node is None:
                group.create_task(self._later(produce, lanes))
            else:
                self._requests[node] += 1
                group.create_task(self._request(produce, node, lanes))
        if is_too_much:
            self.wake(())  # after the loop has looked at its sockets

    def _place(self, lane: Lane) -> TopicPartition:
        place = self._places.get(lane)
        if place is None:
            topic = self._settings.tick_topic(lane.row_class)
            place = self._places[lane] = TopicPartition(topic, lane.partition)
        return place

    def _size_bytes(self, lane: Lane) -> int:
        """Return about how many bytes a lane's next batch will have before compression."""
        rows_bytes = int(lane.rows * self._row_bytes[lane.row_class])
        return min(rows_bytes, self._settings.max_batch_bytes)

    async def _request(self, produce: Produce, node: int, lanes: Sequence[Lane]) -> None:
        """Send the next batch of each lane, and see to what becomes of them."""
        batches = self._batches(produce, lanes)
        failures: Failures
        try:
            failures = await produce.send(node, batches)
        except errors.KafkaError as no_answer:
            failures = dict.fromkeys(batches, no_answer)
        self._requests[node] -= 1
        self._progress.set()
        acked: list[Lane] = []
        later: list[Lane] = []
        refused: list[tuple[Lane, errors.KafkaError]] = []
        for lane in lanes:
            failure = failures[self._place(lane)]
            if failure is None:
                acked.append(lane)
            elif failure.retriable:
                later.append(lane)
            else:
                refused.append((lane, failure))
        if acked:
            self._settle(acked)
        if later and self._group is not None:
            if not self._is_retrying:
                log.warning("kafka.retrying", reason=repr(failures[self._place(later[0])]))
            self._is_retrying = True
            self._group.create_task(self._later(produce, later))
        if refused:
            delays_s = [self._judge(lane, failure) for lane, failure in refused]
            await self.give_up(refused[0][1], max(delays_s))

    def _batches(self, produce: Produce, lanes: Sequence[Lane]) -> dict[TopicPartition, bytearray]:
        """Return what is to be sent of each lane: the same as before after a failure that passes,
        else the next rows, all of a class encoded together."""
        new: dict[RowClass, list[tuple[Lane, Flight]]] = {}
        batches: dict[TopicPartition, bytearray] = {}
        for lane in lanes:
            flight = self._flights.get(lane) or self._take(lane)
            if flight.payload is not None:
                batches[self._place(lane)] = flight.payload
            else:
                new.setdefault(lane.row_class, []).append((lane, flight))
        for row_class, of_class in new.items():
            parts = [flight.part() for _, flight in of_class]
            encoded = self._encoder.encode_parts(row_class, parts)
            for (lane, flight), records in zip(of_class, encoded, strict=True):
                batches[self._place(lane)] = self._built(produce, lane, flight, records)
        return batches

    def _built(
        self, produce: Produce, lane: Lane, flight: Flight, records: Sequence[Record]
    ) -> bytearray:
        """Make a batch of a flight's first span, or of as much of it as one batch holds."""
        row_class = lane.row_class
        payload, count, size_bytes = produce.build(
            self._place(lane), records, self._headers[row_class], self._settings.max_batch_bytes
        )
        rows = sum([record[3] for record in records[:count]])
        if count < len(records):
            flight.cut(rows)
        flight.payload = payload
        self._row_bytes[row_class] = max(size_bytes / rows, 1.0)
        return payload

    def _take(self, lane: Lane) -> Flight:
        rows_max = self._settings.max_batch_bytes / self._row_bytes[lane.row_class]
        rows, since_ns = self._outbox.take(lane, max(int(rows_max), 1))
        flight = self._flights[lane] = Flight(lane.row_class, rows, lane.next_sequence, since_ns)
        lane.next_sequence += len(rows)
        return flight

    def _settle(self, lanes: Sequence[Lane]) -> None:
        """The first span of each lane's flight is in the topic."""
        now_ns = self._clock()
        self._is_retrying = False
        acked: dict[RowClass, list[Rows]] = {}
        oldest_ns = now_ns
        for lane in lanes:
            flight = self._flights[lane]
            rows, _ = flight.settle()
            if not flight.spans:
                del self._flights[lane]
            self._outbox.settle(rows)
            acked.setdefault(lane.row_class, []).append(rows)
            oldest_ns = min(oldest_ns, flight.since_ns)
        for row_class, parts in acked.items():
            self._counts.acked(row_class, joined(parts), now_ns, oldest_ns)
        if self._outbox.pressed:
            self._outbox.check(now_ns)
        self._busy.difference_update(lanes)
        self.wake(lanes)

    async def _later(self, produce: Produce, lanes: Sequence[Lane]) -> None:
        """Ask who leads these lanes' partitions, and try again."""
        await produce.refresh()
        await asyncio.sleep(self._settings.retry_backoff_ms / 1_000 * (0.5 + random.random()))
        self._busy.difference_update(lanes)
        self.wake(lanes)

    def _judge(self, lane: Lane, failure: errors.KafkaError) -> float:
        """Decide what becomes of a refused batch; return how long to wait (s) before a new try."""
        flight = self._flights[lane]
        flight.failures += 1
        failures = flight.failures
        match verdict(failure, failures):
            case Verdict.BISECT:
                if not flight.bisect():
                    self._dead_letter(lane, flight, cause(failure))
                    if not flight.spans:
                        del self._flights[lane]
                return 0.0
            case Verdict.HOLD:
                delay_s = BACKOFF.delay_s(failures, random.random)
                where = f"{self._place(lane).topic}[{lane.partition}]"
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
