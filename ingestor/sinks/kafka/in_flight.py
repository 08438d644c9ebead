"""Rows on their way to one partition: taken from the queue, numbered, not yet settled.

Several batches of one lane under way at a time, and their order when one of them fails.

The broker takes the requests of a connection one after another, and of one producer and partition
only the batch whose sequence numbers follow the last one's (it knows the last five again). So order
holds as long as batches are built and written in order. When one fails, those behind it are refused
too (OutOfOrderSequenceNumber): that says nothing about them. The track is mended then: nothing new
starts, all that is under way is waited for, and what is left is sent again as it is, from the
oldest on, one after another.

A partition that knows nothing of a producer takes any sequence number, so that the second batch
would pass where the first failed: the first one goes alone until it is acked.

A window also knows since when its partition takes nothing, and why (`Trouble`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition, errors

from ingestor.codec import Part
from ingestor.model.rows import Rows
from ingestor.sinks.kafka.produce_request import Connection, Numbering, ProduceClient
from ingestor.sinks.kafka.queue import PartitionQueue
from ingestor.telemetry.tracing import BatchSpan


class InFlightBatch:
    """Rows with their sequence numbers that are sent as one batch.

    Records are not kept: encoding is pure, and for another producer they are made again.
    since_ns: when the first row was submitted. payload: the record batch, made in the name of the
    producer in force, once it was; that producer can send it again as it is.
    """

    __slots__ = (
        "failures",
        "first_sequence",
        "is_under_way",
        "payload",
        "rows",
        "since_ns",
        "span",
    )

    def __init__(self, rows: Rows, first_sequence: int, since_ns: int) -> None:
        self.rows = rows
        self.first_sequence = first_sequence
        self.since_ns = since_ns
        self.failures = 0  # in a row
        self.payload: bytearray | None = None
        self.is_under_way = False
        self.span: BatchSpan | None = None  # of one of a sample; its first record names it

    def part(self) -> Part:
        """Return the rows, and the sequence number of the first one."""
        return self.rows, self.first_sequence

    def settle(self) -> Part:
        """Forget the payload; return the rows and the sequence number of the first one."""
        self.payload = None
        return self.part()

    def end_span(self, failure: Exception | None = None) -> None:
        """End the span of a sampled batch, which failed where a failure is given."""
        if self.span is not None:
            self.span.end(failure)
            self.span = None

    def cut(self, rows: int) -> InFlightBatch:
        """Keep the first `rows` rows; return the others as a flight of their own."""
        rest = InFlightBatch(self.rows[rows:], self.first_sequence + rows, self.since_ns)
        self.rows = self.rows[:rows]
        return rest


# A lane's next batch starts beside one under way when that one is so old: soon enough that a slow
# answer costs little, and not so soon that a lane at its limit, whose batches grow while they wait
# for an answer, sends many small ones instead.
BESIDE_S: Final = 0.004


IDLE_S: Final = 3_600.0  # brokers forget a producer after a day without a batch


_CLOCK_S: Final = 0.001  # uvloop's clock and timers know no less: a shorter wait would be a spin


@dataclass(frozen=True, slots=True)
class Trouble:
    """Say why a partition takes nothing. since_s: by the loop's clock. is_own: Kafka itself refuses
    this topic or partition; else the reason may hold for all of them.
    """

    since_s: float
    reason: str
    is_own: bool = False


def _since(before: Trouble | None, now_s: float, reason: str, *, is_own: bool) -> Trouble:
    return Trouble(now_s if before is None else before.since_s, reason, is_own)


class InFlightWindow:
    """The flights of one lane, in the order of their rows, and when the next one may start."""

    __slots__ = (
        "_beside_s",
        "_connection",
        "_is_known",
        "_is_mending",
        "absence",
        "attempts",
        "clamps_times",
        "in_flight_batches",
        "is_frozen",
        "is_held",
        "needs_renewal",
        "numbering",
        "partition_queue",
        "place",
        "refused_in_a_row",
        "retry_s",
        "trouble",
        "under_way",
    )

    def __init__(self, partition_queue: PartitionQueue, place: TopicPartition) -> None:
        self.partition_queue = partition_queue
        self.place = place
        self.in_flight_batches: deque[InFlightBatch] = deque()  # not settled
        self.is_frozen = False  # nothing new may start: the partition is to be dealt anew
        self.trouble: Trouble | None = None  # None: the last answer was an ack
        self.absence: Trouble | None = None  # None: there is a connection to its leader
        self.attempts = 0  # failures that pass, in a row
        self.refused_in_a_row = 0  # records, each for itself, without an ack between
        self.clamps_times = False  # rows of a clock that was ahead: see `refusals`
        self.reset()

    def reset(self) -> None:
        """Another producer begins: what is left is to be sent in its name, as after a failure."""
        self.under_way = 0
        self.is_held = False  # a flight failed: until all have landed and it may be tried again
        self.retry_s: float | None = None  # how long to wait then; None: as after a failed request
        self.numbering = Numbering()
        self._begin_again()
        self._connection: Connection | None = None  # of those under way
        self._beside_s = 0.0
        for in_flight in self.in_flight_batches:
            in_flight.is_under_way = False

    async def renew(self, produce: ProduceClient) -> None:
        """Begin again with the next epoch: batches get other numbers. Nothing may be under way.

        Raises what `ProduceClient.renew` raises.
        """
        await produce.renew(self.numbering)
        self._begin_again()

    def _begin_again(self) -> None:
        self.needs_renewal = False
        self._is_mending = bool(self.in_flight_batches)
        self._is_known = False  # the partition has a batch with this producer and epoch
        for in_flight in self.in_flight_batches:
            in_flight.payload = None

    def wait_s(self, connection: Connection, now_s: float) -> float | None:
        """Return in how many seconds a flight may start over a connection; None: there is nothing
        to start, or something else must happen first.
        """
        if self.is_held or self.is_frozen:
            return None
        if not self.under_way:
            return 0.0 if self.in_flight_batches or self.partition_queue.rows else None
        if self._is_mending or not self._is_known or connection is not self._connection:
            return None
        if not self.partition_queue.rows and self.in_flight_batches[-1].is_under_way:
            return None
        left_s = self._beside_s - now_s
        return left_s if left_s > _CLOCK_S / 2 else 0.0

    def next(self) -> InFlightBatch | None:
        """Return the oldest flight that isn't under way, None when new rows are to be taken."""
        return next(
            (
                in_flight_batch
                for in_flight_batch in self.in_flight_batches
                if not in_flight_batch.is_under_way
            ),
            None,
        )

    def start(self, in_flight: InFlightBatch, connection: Connection, now_s: float) -> None:
        """Take note that a batch is about to be sent: the newest one, or the only one to be mended.

        Args:
            in_flight: The batch.
            connection: Where it goes.
            now_s: The loop's time.
        """
        if now_s - self._beside_s > IDLE_S:
            self._is_known = False
        in_flight.is_under_way = True
        self.under_way += 1
        self._connection = connection
        self._beside_s = now_s + BESIDE_S

    def land(self, in_flight: InFlightBatch) -> None:
        """A flight was answered, or never will be."""
        in_flight.is_under_way = False
        self.under_way -= 1

    def is_final(self, in_flight: InFlightBatch, failure: Exception) -> bool:
        """Say whether a failure is to be judged; else the flight is sent again as it is.

        Only the oldest flight's is: why a younger one was refused, an older one may have caused.
        """
        retriable = isinstance(failure, errors.KafkaError) and failure.retriable
        return in_flight is self.in_flight_batches[0] and not retriable

    def fail(self) -> None:
        """A flight that has landed is to be sent again."""
        self._is_mending = self.is_held = True

    def suffer(self, now_s: float, reason: str, *, is_own: bool) -> None:
        """Note why a batch was not taken; the time of the first failure stays.

        Args:
            now_s: The loop's time.
            reason: Text for people.
            is_own: Kafka itself refuses this topic or partition.
        """
        self.trouble = _since(self.trouble, now_s, reason, is_own=is_own)

    def miss(self, now_s: float, reason: str, *, is_own: bool) -> None:
        """Note why there is nobody to send to; the time of the first failure stays.

        Args:
            now_s: The loop's time.
            reason: Text for people.
            is_own: Kafka itself refuses this topic or partition.
        """
        self.absence = _since(self.absence, now_s, reason, is_own=is_own)

    def recover(self) -> None:
        """Forget all failures: a batch was acked."""
        self.trouble = self.absence = None
        self.attempts = self.refused_in_a_row = 0

    def withdraw(self) -> list[InFlightBatch]:
        """Give up all flights, oldest first. None of them may be under way.

        The numbers that are used up need renewal before anything else starts.
        """
        in_flight_batches = list(self.in_flight_batches)
        self.in_flight_batches.clear()
        self._begin_again()
        self.needs_renewal = self.numbering.is_used
        return in_flight_batches

    def cut(self, in_flight: InFlightBatch, rows: int) -> None:
        """Divide a flight after `rows` rows: the rest follows it as another one."""
        self.in_flight_batches.insert(
            self.in_flight_batches.index(in_flight) + 1, in_flight.cut(rows)
        )

    def bisect(self, in_flight: InFlightBatch) -> bool:
        """Halve a flight; return False when it is one row already."""
        if len(in_flight.rows) == 1:
            return False
        self.cut(in_flight, len(in_flight.rows) // 2)
        return True

    def drop(self, in_flight: InFlightBatch) -> None:
        """A flight is settled: acked, or set aside before another producer begins."""
        self.in_flight_batches.remove(in_flight)
        self._is_known = True
        self._is_mending = self._is_mending and bool(self.in_flight_batches)
