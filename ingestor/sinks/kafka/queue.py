"""The bounded queue between the pipeline and Kafka.

One lane for each (row class, partition), FIFO. Queued rows are kept as bytes, copied in and out:
what the budget counts is what is held, and a long outage leaves a few big chunks instead of a
million small arrays. Sequence numbers are given when rows leave a lane for encoding, so that
conflating and shedding leave no holes in them.

A partition that Kafka refuses while it takes others is set apart: its rows have a share of the
budget of their own, beyond which they are shed, and count for nothing else.

Times are those of the monotonic clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from ingestor.model.errors import LedgerBroken
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Rows
from ingestor.sinks.backpressure import Backpressure
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.overload import (
    Budget,
    OverloadPolicy,
    Step,
    Throttle,
    conflate,
    largest,
    shed,
)

log = structlog.get_logger(__name__)

CHUNK_BYTES: Final = 256 << 10
_CONFLATE_ROWS_MIN: Final = 16
SHARE_OF_TOPIC: Final = 0.25  # of the budget, for a topic that is set apart


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Now and at the worst. bytes and rows include what is in flight; age is of queued rows.

    fill: how full each bound of the budget is, `bytes`, `rows` and `age`; 1 = full. What is set
    apart counts for none of them.

    held: what Kafka refuses now, as `topic: reason` or `topic[partitions]: reason`, with the number
    of partitions by topic in `held_partitions`. side: records of auxiliary topics by (topic,
    outcome).
    """

    bytes: int
    bytes_peak: int
    bytes_max: int
    rows: int
    rows_peak: int
    rows_in_flight: int
    age_s: float
    age_peak_s: float
    paused: bool
    steps: dict[str, int]
    fill: dict[str, float] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    held_partitions: dict[str, int] = field(default_factory=dict)
    side: dict[tuple[str, str], int] = field(default_factory=dict)


class PartitionQueue:
    """The rows of one class bound for one partition."""

    __slots__ = (
        "_chunks",
        "_dtype",
        "_tail",
        "_tail_since_ns",
        "next_sequence",
        "partition",
        "row_class",
        "rows",
        "rows_in_flight",
    )

    def __init__(self, row_class: RowClass, partition: int) -> None:
        self.row_class = row_class
        self.partition = partition
        self.rows = 0  # queued, not in flight
        self.rows_in_flight = 0
        self.next_sequence = 0
        self._dtype = row_class.dtype
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._tail = bytearray()
        self._tail_since_ns = 0

    def put(self, rows: Rows, now_ns: int) -> None:
        if not self._tail:
            self._tail_since_ns = now_ns
        self._tail += rows.tobytes()
        self.rows += len(rows)
        if len(self._tail) >= CHUNK_BYTES:
            self._chunks.append((bytes(self._tail), self._tail_since_ns))
            self._tail = bytearray()

    def put_first(self, rows: Rows, now_ns: int) -> None:
        """Queue rows before all others of this lane."""
        self._chunks.appendleft((rows.tobytes(), now_ns))
        self.rows += len(rows)

    def take(self, rows_max: int) -> tuple[Rows, int]:
        """Remove the oldest rows, at most `rows_max` (at least 1); may be none.

        Returns them and since when (ns) the first of them waited.
        """
        since_ns = self._tail_since_ns
        chunk: bytes | bytearray
        if self._chunks:
            chunk, since_ns = self._chunks.popleft()
        else:
            chunk, self._tail = self._tail, bytearray()
        rows = np.frombuffer(chunk, self._dtype)
        if len(rows) > rows_max:
            self._chunks.appendleft((rows[rows_max:].tobytes(), since_ns))
            rows = rows[:rows_max]
        self.rows -= len(rows)
        return rows, since_ns

    def all(self) -> tuple[Rows, int]:
        """Return every queued row, and since when (ns) the oldest waits."""
        since_ns = self._chunks[0][1] if self._chunks else self._tail_since_ns
        whole = b"".join([*(chunk for chunk, _ in self._chunks), self._tail])
        return np.frombuffer(whole, self._dtype), since_ns

    def replace(self, rows: Rows, since_ns: int) -> None:
        """Put `rows` in the place of every queued row."""
        self._chunks.clear()
        self._tail = bytearray()
        self.rows = 0
        if len(rows):
            self.put(rows, since_ns)

    @property
    def held_rows(self) -> int:
        """Rows that are queued or in flight."""
        return self.rows + self.rows_in_flight

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return self._dtype.itemsize

    def since_ns(self) -> int | None:
        """Since when the oldest queued row waits, None when there is none."""
        if self._chunks:
            return self._chunks[0][1]
        return self._tail_since_ns if self._tail else None


class PublishQueue:
    """The queues of all partitions under one budget.

    Reading stops when the policy or the throttle wants it, and goes on when neither does.
    """

    def __init__(
        self,
        budget: Budget,
        counts: SinkCounts,
        backpressure: Backpressure,
    ) -> None:
        """Create the publish queue.

        Args:
            budget: bounds of what waits.
            counts: told what becomes of rows.
            backpressure: stops reading, and is told of instruments whose rows are shed.
        """
        self.budget = budget
        self.policy = OverloadPolicy(budget)
        self.partition_queues: dict[tuple[RowClass, int], PartitionQueue] = {}
        self.bytes = 0
        self.rows = 0
        self.rows_in_flight = 0
        self.throttle = Throttle(budget)
        self._backpressure = backpressure
        self._counts = counts
        self._bytes_peak = 0
        self._rows_peak = 0
        self._age_peak_ns = 0
        self._rows_after_conflation = 0
        self._row_bytes_max = max(row_class.dtype.itemsize for row_class in ROW_CLASSES)
        self._control_bytes = sum(  # what a shed instrument leaves behind
            row_class.dtype.itemsize for row_class in ROW_CLASSES if not row_class.is_conflatable
        )
        self._bytes_in_flight = 0
        self._is_reading = True
        self.apart: frozenset[PartitionQueue] = frozenset()  # Kafka takes others, and not these
        self.pressed = False  # above the low mark, or not reading, when last looked

    def partition_queue(self, row_class: RowClass, partition: int) -> PartitionQueue:
        found = self.partition_queues.get((row_class, partition))
        if found is None:
            found = self.partition_queues[row_class, partition] = PartitionQueue(
                row_class, partition
            )
        return found

    def put(self, partition_queue: PartitionQueue, rows: Rows, now_ns: int) -> None:
        """Queue rows. `check` must follow before anything else runs.

        Args:
            partition_queue: Where they wait.
            rows: The rows.
            now_ns: Monotonic time in ns.
        """
        partition_queue.put(rows, now_ns)
        self.rows += len(rows)
        self.bytes += rows.nbytes

    def declare(self, partition_queue: PartitionQueue, marks: Rows, now_ns: int) -> None:
        """Put GAP marks of our own before everything that is queued for a partition.

        Args:
            partition_queue: The partition's queue.
            marks: The marks.
            now_ns: Monotonic time in ns.
        """
        partition_queue.put_first(marks, now_ns)
        self._add(partition_queue.row_class, marks)

    def take(self, partition_queue: PartitionQueue, rows_max: int) -> tuple[Rows, int]:
        """Hand out the oldest rows of a lane (none: an empty array); they count until `settle`.

        Returns them and since when (ns) the first of them waited.
        """
        rows, since_ns = partition_queue.take(rows_max)
        partition_queue.rows_in_flight += len(rows)
        self.rows_in_flight += len(rows)
        self._bytes_in_flight += rows.nbytes
        return rows, since_ns

    def settle(self, partition_queue: PartitionQueue, rows: Rows) -> None:
        """Forget rows that were taken: they are acked or dead-lettered.

        Raises:
            LedgerBroken: when more rows are settled than were taken.
        """
        self._land(partition_queue, rows)
        self._forget(rows)

    def _land(self, partition_queue: PartitionQueue, rows: Rows) -> None:
        partition_queue.rows_in_flight -= len(rows)
        self.rows_in_flight -= len(rows)
        self._bytes_in_flight -= rows.nbytes
        if partition_queue.rows_in_flight < 0:
            raise LedgerBroken("rows in flight", -partition_queue.rows_in_flight)

    def check(self, now_ns: int, *, with_age: bool = False) -> None:
        """Apply the policy. with_age: look at the oldest row too (a walk over all lanes)."""
        if self.apart:
            self._keep_shares(now_ns, with_age=with_age)
        age_ns = self._age_ns(now_ns) if with_age else 0
        level = self._level(age_ns)
        if level > self.budget.low or self.pressed:
            self._apply(age_ns, now_ns)
            self.pressed = self._level(age_ns) > self.budget.low
        waits_apart = sum(
            partition_queue.rows * partition_queue.row_bytes for partition_queue in self.apart
        )
        self.throttle.decide(self.bytes - self._bytes_in_flight - waits_apart, now_ns)
        self._read(not (self.throttle.is_on or self.policy.paused))
        self._bytes_peak = max(self._bytes_peak, self.bytes)
        self._rows_peak = max(self._rows_peak, self.rows)

    def _read(self, goes_on: bool) -> None:
        if goes_on != self._is_reading:
            self._is_reading = goes_on
            if goes_on:
                self._backpressure.resume()
            else:
                self._backpressure.pause()
        self.pressed |= not goes_on

    def _apart_held(self) -> tuple[int, int]:
        """Return the bytes and rows of the partitions that are set apart."""
        size_bytes = sum(
            partition_queue.held_rows * partition_queue.row_bytes for partition_queue in self.apart
        )
        return size_bytes, sum(partition_queue.held_rows for partition_queue in self.apart)

    def _level(self, age_ns: int) -> float:
        """Return how full the budget is, without what is set apart and the room that it takes."""
        if not self.apart:
            return self.budget.level(self.bytes, self.rows, age_ns)
        return max(self._fill(age_ns).values())

    def _fill(self, age_ns: int) -> dict[str, float]:
        """Return how full each bound of the budget is, as `_level` does."""
        budget = self.budget
        size_bytes, rows = self._apart_held()
        return {
            "bytes": (self.bytes - size_bytes) / max(budget.bytes_max - size_bytes, 1),
            "rows": (self.rows - rows) / max(budget.rows_max - rows, 1),
            "age": budget.level(0, 0, age_ns),
        }

    def _keep_shares(self, now_ns: int, *, with_age: bool) -> None:
        """Shed the partitions that are set apart and hold more than their share, or too old rows.

        A topic has SHARE_OF_TOPIC of the budget, in equal parts for its partitions.
        """
        budget = self.budget
        partition_queues = Counter(row_class for row_class, _ in self.partition_queues)
        for partition_queue in self.apart:
            share = SHARE_OF_TOPIC / partition_queues[partition_queue.row_class]
            level = (
                budget.level(partition_queue.rows * partition_queue.row_bytes, partition_queue.rows)
                / share
            )
            since_ns = partition_queue.since_ns() if with_age else None
            is_old = since_ns is not None and now_ns - since_ns >= budget.age_max_s * 1e9
            if level >= 1 or is_old:
                self._shed_lanes([partition_queue], _instruments([partition_queue]), now_ns)

    def withdraw(self, partition_queue: PartitionQueue, rows: Rows, since_ns: int) -> None:
        """Put rows that were taken back before the queued ones: they are not under way any more.

        Args:
            partition_queue: The partition's queue.
            rows: The rows.
            since_ns: Time since which they have waited, monotonic.
        """
        self._land(partition_queue, rows)
        partition_queue.put_first(rows, since_ns)

    def repartition(
        self,
        row_class: RowClass,
        split: Callable[[Rows], Iterable[tuple[int, Rows]]],
        partitions: int,
    ) -> None:
        """Deal the queued rows of a class anew. None of them may be in flight.

        Partitions that stay go on with their sequence numbers.

        Args:
            row_class: whose rows.
            split: yields (partition, its rows in order).
            partitions: how many partitions the topic has now.

        Raises:
            LedgerBroken: when rows are in flight.
        """
        waiting: list[tuple[int, Rows]] = []
        for partition_queue in [
            partition_queue
            for partition_queue in self.partition_queues.values()
            if partition_queue.row_class is row_class
        ]:
            if partition_queue.rows_in_flight:
                raise LedgerBroken(
                    "rows of a partition that is dealt anew", partition_queue.rows_in_flight
                )
            rows, since_ns = partition_queue.all()
            if len(rows):
                waiting.append((since_ns, rows))
            partition_queue.replace(rows[:0], since_ns)
            if partition_queue.partition >= partitions:
                del self.partition_queues[row_class, partition_queue.partition]
                self.apart -= {partition_queue}
        for since_ns, rows in sorted(waiting, key=itemgetter(0)):
            for partition, part in split(rows):
                self.partition_queue(row_class, partition).put(part, since_ns)

    def abandon(self) -> Iterator[tuple[PartitionQueue, Rows]]:
        """Forget all queued rows; yield them by lane."""
        for partition_queue in self.partition_queues.values():
            rows, since_ns = partition_queue.all()
            if len(rows):
                partition_queue.replace(rows[:0], since_ns)
                self._forget(rows)
                yield partition_queue, rows

    def statistics(self, now_ns: int) -> QueueStatistics:
        age_ns = self._age_ns(now_ns)
        return QueueStatistics(
            bytes=self.bytes,
            bytes_peak=self._bytes_peak,
            bytes_max=self.budget.bytes_max,
            rows=self.rows,
            rows_peak=self._rows_peak,
            rows_in_flight=self.rows_in_flight,
            age_s=age_ns / 1e9,
            age_peak_s=self._age_peak_ns / 1e9,
            paused=self.policy.paused,
            steps={
                "throttle": self.throttle.taken,
                **{step.value: self.policy.taken[step] for step in Step},
            },
            fill=self._fill(age_ns),
        )

    def _age_ns(self, now_ns: int) -> int:
        oldest = [
            partition_queue.since_ns()
            for partition_queue in self.partition_queues.values()
            if partition_queue not in self.apart
        ]
        age_ns = max((now_ns - since for since in oldest if since is not None), default=0)
        self._age_peak_ns = max(self._age_peak_ns, age_ns)
        return age_ns

    def _apply(self, age_ns: int, now_ns: int) -> None:
        for step in self.policy.decide(self._level(age_ns), now_ns):
            level = self._level(age_ns)
            # An earlier step may have made the later ones needless.
            if step in self.policy.decide(level, now_ns) and self._take_step(step, now_ns):
                self.policy.took(step, level, now_ns)

    def _take_step(self, step: Step, now_ns: int) -> bool:
        """Do it; return whether it changed anything."""
        match step:
            case Step.CONFLATE:
                return self._conflate()
            case Step.PAUSE:
                log.warning("sockets.paused", cause="the sink is behind")
            case Step.RESUME:
                log.warning("sockets.resumed", cause="the sink has room")
            case Step.SHED:
                return self._shed(now_ns)
        return True

    def _sheddable(self, *, conflatable: bool) -> list[PartitionQueue]:
        return [
            partition_queue
            for partition_queue in self.partition_queues.values()
            if partition_queue.row_class.is_conflatable is conflatable
            and partition_queue.rows
            and partition_queue not in self.apart
        ]

    def _conflate(self) -> bool:
        """Conflate queued rows when they doubled since the last time; return whether."""
        partition_queues = self._sheddable(conflatable=True)
        queued = sum(partition_queue.rows for partition_queue in partition_queues)
        if queued < 2 * self._rows_after_conflation + _CONFLATE_ROWS_MIN:
            return False
        for partition_queue in partition_queues:
            rows, since_ns = partition_queue.all()
            kept, dropped = conflate(partition_queue.row_class, rows)
            if len(dropped):
                partition_queue.replace(kept, since_ns)
                self._forget(dropped)
                self._counts.conflated(partition_queue.row_class, dropped)
        self._rows_after_conflation = sum(
            partition_queue.rows for partition_queue in partition_queues
        )
        return self._rows_after_conflation < queued

    def _shed(self, now_ns: int) -> bool:
        """Shed what conflates, the largest instruments, what is too old; return whether any."""
        before = self.rows
        latest, others = (self._sheddable(conflatable=which) for which in (True, False))
        self._shed_lanes(latest, _instruments(latest), now_ns)
        excess = self._excess_bytes()
        if excess > 0 and others:
            self._shed_lanes(
                others, largest(_bytes_held(others), excess, self._control_bytes), now_ns
            )
        too_old_ns = now_ns - int(self.budget.age_max_s * 1e9)
        for partition_queue in others:
            since_ns = partition_queue.since_ns()
            if since_ns is not None and since_ns <= too_old_ns:
                self._shed_lanes([partition_queue], _instruments([partition_queue]), now_ns)
        return self.rows < before

    def _excess_bytes(self) -> int:
        """Return the bytes that must go to come down to `shed_to`.

        Rows in excess count as the widest row.
        """
        budget = self.budget
        apart_bytes, apart_rows = self._apart_held()
        rows_max, bytes_max = budget.rows_max - apart_rows, budget.bytes_max - apart_bytes
        excess_rows = self.rows - apart_rows - int(rows_max * budget.shed_to)
        excess_bytes = self.bytes - apart_bytes - int(bytes_max * budget.shed_to)
        return max(excess_bytes, excess_rows * self._row_bytes_max)

    def _shed_lanes(
        self, partition_queues: list[PartitionQueue], victims: NDArray[np.int64], now_ns: int
    ) -> None:
        for partition_queue in partition_queues:
            rows, since_ns = partition_queue.all()
            # One row of an instrument frees nothing: a mark would take its place.
            several = np.flatnonzero(np.bincount(rows["instrument"]) > 1)
            doomed = np.intersect1d(victims, several)
            if not len(doomed):
                continue
            kept, dropped, marks = shed(partition_queue.row_class, rows, doomed)
            too_old = now_ns - since_ns >= self.budget.age_max_s * 1e9
            partition_queue.replace(kept, now_ns if too_old else since_ns)
            self._forget(dropped)
            self._add(partition_queue.row_class, marks)
            self._counts.shed(partition_queue.row_class, dropped)
            for instrument in marks["instrument"].tolist():
                self._backpressure.shed(partition_queue.row_class, instrument)

    def _add(self, row_class: RowClass, marks: Rows) -> None:
        self.rows += len(marks)
        self.bytes += marks.nbytes
        self._counts.declared(row_class, marks)

    def _forget(self, rows: Rows) -> None:
        self.rows -= len(rows)
        self.bytes -= rows.nbytes


def _instruments(partition_queues: list[PartitionQueue]) -> NDArray[np.int64]:
    held = _bytes_held(partition_queues)
    return np.flatnonzero(held)


def _bytes_held(partition_queues: list[PartitionQueue]) -> NDArray[np.int64]:
    """Return the queued bytes of each instrument, indexed by its number."""
    held = np.zeros(0, np.int64)
    for partition_queue in partition_queues:
        rows, _ = partition_queue.all()
        counted = np.bincount(rows["instrument"], minlength=len(held)) * rows.dtype.itemsize
        counted[: len(held)] += held
        held = counted
    return held
