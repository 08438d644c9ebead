"""From lanes to acks: which rows go into which request, and what becomes of them.

At the end of a turn of the loop in which rows were queued, and whenever an answer has come, `_pump`
starts a request to each broker that leads a lane with something to send: whatever has gathered in
all its lanes goes at once. Rows whose lane has a batch under way wait for its answer, or until it
has been under way for some time (see `track`). So there is no linger here, and batches grow with
load by themselves.

A batch that the broker may take later is sent again as it is. Any other failure is judged (see
`producer.verdict`), and ends the producer: the sender then raises ProducerFailed, and goes on with
the unacked rows, encoded again, when it is given the next producer.
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
from ingestor.sinks.kafka.in_flight import Flight, Track
from ingestor.sinks.kafka.produce_request import Failures, Produce
from ingestor.sinks.kafka.producer import Verdict, cause, verdict
from ingestor.sinks.kafka.queue import Lane, Outbox

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
        flight of one row that Kafka will never take, and the reason."""
        self._settings = settings
        self._outbox = outbox
        self._counts = counts
        self._encoder = encoder
        self._headers = headers
        self._clock = clock
        self._progress = progress
        self._dead_letter = dead_letter
        self._tracks: dict[Lane, Track] = {}
        self._waiting: dict[Track, None] = {}  # they may have something to send: longest wait first
        self._row_bytes = {
            row_class: float(dtype.itemsize if settings.encoding == "binary" else _JSON_ROW_BYTES)
            for row_class, dtype in DTYPE_OF.items()
        }
        self._produce: Produce | None = None  # None: nothing new is sent now
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
        for track in self._tracks.values():
            track.reset()
        self._waiting.clear()
        self._reaching.clear()
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Rows may have been queued in these lanes: send them once this turn of the loop is over,
        with what else it brings."""
        if self._produce is not None:
            self._wake([self._tracks.get(lane) or self._track(lane) for lane in lanes])

    def _wake(self, tracks: Iterable[Track]) -> None:
        for track in tracks:
            self._waiting[track] = None
        if self._waiting and not self._pump_is_due and self._produce is not None:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _track(self, lane: Lane) -> Track:
        topic = self._settings.tick_topic(lane.row_class)
        track = self._tracks[lane] = Track(lane, TopicPartition(topic, lane.partition))
        return track

    def _pump(self) -> None:
        """Start a request to each broker that has room for one and something to get."""
        self._pump_is_due = False
        produce = self._produce
        if produce is None:
            return
        loads: dict[int, list[Track]] = {}
        size_bytes: Counter[int] = Counter()
        is_too_much = False
        now_s = asyncio.get_running_loop().time()
        for track in list(self._waiting):
            node = produce.leader(track.place)
            connection = None if node is None else produce.connection(node)
            if node is None or connection is None:
                self._reach(produce, node)
                continue
            wait_s = track.wait_s(connection, now_s)
            if wait_s is None:
                del self._waiting[track]
            elif wait_s:
                self._pump_in(wait_s)
            elif size_bytes[node] >= REQUEST_BYTES_MAX:
                is_too_much = True
            elif self._requests[node] < REQUESTS_MAX:
                del self._waiting[track]
                loads.setdefault(node, []).append(track)
                size_bytes[node] += self._size_bytes(track)
        for node, tracks in loads.items():
            self._requests[node] += 1
            self._spawn(self._request(produce, node, tracks))
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

    def _reach(self, produce: Produce, node: int | None) -> None:
        if node not in self._reaching:
            self._reaching.add(node)
            self._spawn(self._connect(produce, node))

    async def _connect(self, produce: Produce, node: int | None) -> None:
        """Connect to a broker; where that fails, or none is known, ask who leads, and wait."""
        if node is None or not await produce.connect(node):
            self._say_retrying(errors.NodeNotReadyError())
            await self._pause(produce)
        self._reaching.discard(node)
        self._wake(())

    def _size_bytes(self, track: Track) -> int:
        """Return about how many bytes a lane's next batch will have before compression."""
        flight = track.next()
        rows = len(flight.rows) if flight is not None else track.lane.rows
        rows_bytes = int(rows * self._row_bytes[track.lane.row_class])
        return min(rows_bytes, self._settings.max_batch_bytes)

    async def _request(self, produce: Produce, node: int, tracks: Sequence[Track]) -> None:
        """Send the next batch of each lane, and see to what becomes of them."""
        flights = self._flights(produce, node, tracks)
        batches = {track.place: flight.payload or b"" for track, flight in flights}
        failures: Failures
        try:
            failures = await produce.send(node, batches) if batches else {}
        except errors.KafkaError as no_answer:
            failures = dict.fromkeys(batches, no_answer)
        self._requests[node] -= 1
        self._progress.set()
        acked: list[tuple[Track, Flight]] = []
        refused: list[tuple[Track, Flight, errors.KafkaError]] = []
        for track, flight in flights:
            track.land(flight)
            failure = failures[track.place]
            if failure is None:
                acked.append((track, flight))
            elif track.is_final(flight, failure):
                track.is_refused = True
                refused.append((track, flight, failure))
            else:
                track.fail()
                self._say_retrying(failure)
        if acked:
            self._settle(acked)
        again = [track for track, _ in flights if track.is_held and not track.under_way]
        if again:
            self._spawn(self._again(produce, again))
        self._wake(tracks)
        if refused:
            delays_s = [self._judge(*one) for one in refused]
            await self.give_up(refused[0][2], max(delays_s))

    def _flights(
        self, produce: Produce, node: int, tracks: Sequence[Track]
    ) -> list[tuple[Track, Flight]]:
        """Start the next batch of each lane that may still start one: the same as before after a
        failure that passes, else the next rows, all of a class encoded together."""
        connection = produce.connection(node)
        if connection is None:
            return []
        now_s = asyncio.get_running_loop().time()
        flights: list[tuple[Track, Flight]] = []
        new: dict[RowClass, list[tuple[Track, Flight]]] = {}
        for track in tracks:
            if track.wait_s(connection, now_s) != 0.0:
                continue
            flight = track.next() or self._take(track)
            track.start(flight, connection, now_s)
            flights.append((track, flight))
            if flight.payload is None:
                new.setdefault(track.lane.row_class, []).append((track, flight))
        for row_class, of_class in new.items():
            parts = [flight.part() for _, flight in of_class]
            encoded = self._encoder.encode_parts(row_class, parts)
            for (track, flight), records in zip(of_class, encoded, strict=True):
                self._build(produce, track, flight, records)
        # What is left of a lane starts beside this.
        self._wake([track for track, _ in flights if track.wait_s(connection, now_s) is not None])
        return flights

    def _build(
        self, produce: Produce, track: Track, flight: Flight, records: Sequence[Record]
    ) -> None:
        """Make the batch of a flight, or of as much of it as one batch holds."""
        row_class = track.lane.row_class
        flight.payload, count, size_bytes = produce.build(
            track.place, records, self._headers[row_class], self._settings.max_batch_bytes
        )
        rows = sum([record[3] for record in records[:count]])
        if count < len(records):
            track.cut(flight, rows)
        self._row_bytes[row_class] = max(size_bytes / rows, 1.0)

    def _take(self, track: Track) -> Flight:
        lane = track.lane
        rows_max = self._settings.max_batch_bytes / self._row_bytes[lane.row_class]
        rows, since_ns = self._outbox.take(lane, max(int(rows_max), 1))
        flight = Flight(rows, lane.next_sequence, since_ns)
        lane.next_sequence += len(rows)
        track.flights.append(flight)
        return flight

    def _settle(self, flights: Sequence[tuple[Track, Flight]]) -> None:
        """These flights are in the topic."""
        now_ns = self._clock()
        self._is_retrying = False
        acked: dict[RowClass, list[Rows]] = {}
        oldest_ns = now_ns
        for track, flight in flights:
            rows, _ = flight.settle()
            track.drop(flight)
            self._outbox.settle(rows)
            acked.setdefault(track.lane.row_class, []).append(rows)
            oldest_ns = min(oldest_ns, flight.since_ns)
        for row_class, parts in acked.items():
            self._counts.acked(row_class, joined(parts), now_ns, oldest_ns)
        if self._outbox.pressed:
            self._outbox.check(now_ns)

    async def _again(self, produce: Produce, tracks: Sequence[Track]) -> None:
        """Ask who leads these lanes' partitions, and try again."""
        await self._pause(produce)
        for track in tracks:
            track.is_held = False
        self._wake(tracks)

    async def _pause(self, produce: Produce) -> None:
        await produce.refresh()
        await asyncio.sleep(self._settings.retry_backoff_ms / 1_000 * (0.5 + random.random()))

    def _say_retrying(self, reason: errors.KafkaError) -> None:
        if not self._is_retrying:
            log.warning("kafka.retrying", reason=repr(reason))
        self._is_retrying = True

    def _judge(self, track: Track, flight: Flight, failure: errors.KafkaError) -> float:
        """Decide what becomes of a refused batch; return how long to wait (s) before a new try."""
        flight.failures += 1
        failures = flight.failures
        match verdict(failure, failures):
            case Verdict.BISECT:
                if not track.bisect(flight):
                    self._dead_letter(track.lane, flight, cause(failure))
                    track.drop(flight)
                return 0.0
            case Verdict.HOLD:
                delay_s = BACKOFF.delay_s(failures, random.random)
                where = f"{track.place.topic}[{track.place.partition}]"
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
