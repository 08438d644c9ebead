"""Lanes keep order, the outbox keeps its bounds and its ledger, whatever happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import Cause, Kind, Rows
from ingestor.sinks.backpressure import Backpressure
from ingestor.sinks.kafka.overload import Budget, Step
from ingestor.sinks.kafka.queue import CHUNK_BYTES, PartitionQueue, PublishQueue
from tests.effort import tried
from tests.fakes.rows import MAKERS, Ledger, quotes, trades

CLASSES = tuple(ROW_CLASSES)
SECOND = 1_000_000_000


class Owner:
    """An outbox, its ledger, and what it called."""

    def __init__(self, budget: Budget) -> None:
        self.ledger = Ledger()
        self.shed: list[tuple[RowClass, int]] = []
        self.heard: list[str] = []
        self.rows_in = 0
        backpressure = Backpressure()
        backpressure.observe_shed(
            lambda row_class, instrument: self.shed.append((row_class, instrument))
        )
        backpressure.add_reader(
            lambda: self.heard.append("pause"), lambda: self.heard.append("resume")
        )
        self.queue = PublishQueue(
            budget,
            self.ledger,
            backpressure,
        )

    def put(self, row_class: RowClass, rows: Rows, now_ns: int = 0, partition: int = 0) -> None:
        self.queue.put(self.queue.partition_queue(row_class, partition), rows, now_ns)
        self.rows_in += len(rows)
        self.queue.check(now_ns)

    def deliver(self, partition_queue: PartitionQueue, rows_max: int) -> Rows:
        rows, _ = self.queue.take(partition_queue, rows_max)
        self.queue.settle(partition_queue, rows)
        self.ledger.acked(partition_queue.row_class, rows, 0, 0)
        self.queue.check(0)
        return rows


@given(st.lists(st.integers(1, 3_000), max_size=20), st.integers(1, 5_000))
@tried(15, 500)
def test_a_lane_is_first_in_first_out(counts: list[int], rows_max: int) -> None:
    partition_queue, first = PartitionQueue(RowClass.TRADE, 0), 1
    for count in counts:
        partition_queue.put(trades(count, first=first), 0)
        first += count
    assert partition_queue.rows == sum(counts)
    assert partition_queue.all()[0]["sequence"].tolist() == list(range(1, first))
    found: list[int] = []
    while partition_queue.rows:
        rows, _ = partition_queue.take(rows_max)
        assert 0 < len(rows) <= rows_max
        found += rows["sequence"].tolist()
    assert found == list(range(1, first))
    assert partition_queue.since_ns() is None
    assert not len(partition_queue.take(rows_max)[0])


def test_a_lane_knows_its_oldest_row() -> None:
    partition_queue = PartitionQueue(RowClass.TRADE, 0)
    whole_chunk = CHUNK_BYTES // 64
    partition_queue.put(trades(whole_chunk), 5)
    partition_queue.put(trades(1), 7)
    assert partition_queue.since_ns() == 5
    partition_queue.take(whole_chunk - 1)
    assert partition_queue.since_ns() == 5
    partition_queue.take(whole_chunk)
    assert partition_queue.since_ns() == 7
    partition_queue.put_first(trades(1), 9)
    assert partition_queue.take(1)[0]["sequence"].tolist() == [1]


@pytest.mark.rows("K5", "L6")
def test_steps_come_in_their_order() -> None:
    owner = Owner(Budget(bytes_max=64_000))
    for first in range(1, 2_000, 20):
        owner.put(RowClass.QUOTE, quotes(20, first=first))
        owner.put(RowClass.TRADE, trades(20, first=first))
    order = list(dict.fromkeys(step for _, step, _ in owner.queue.policy.events))
    assert order == [Step.CONFLATE, Step.PAUSE, Step.SHED]
    assert owner.heard == ["pause"]
    # Quotes go before the first trade does.
    assert owner.shed[0][0] is RowClass.QUOTE
    assert owner.queue.bytes <= 64_000
    assert owner.queue.statistics(0).bytes_peak <= 64_000
    for row_class in (RowClass.TRADE, RowClass.QUOTE):
        partition_queue = owner.queue.partition_queue(row_class, 0)
        while partition_queue.rows:
            owner.deliver(partition_queue, 10_000)
    assert owner.heard == ["pause", "resume"]
    assert owner.ledger.unexplained(owner.rows_in, owner.queue.rows) == 0


def test_reading_waits_for_rows_that_were_not_even_sent() -> None:
    owner = Owner(Budget(bytes_max=64_000))  # throttled at 8,000 unsent bytes, 125 trades
    partition_queue = owner.queue.partition_queue(RowClass.TRADE, 0)
    owner.put(RowClass.TRADE, trades(124))
    assert owner.heard == []
    owner.put(RowClass.TRADE, trades(1, first=125))
    assert owner.heard == ["pause"]
    in_flight, _ = owner.queue.take(
        partition_queue, 94
    )  # 31 rows are left: what is under way doesn't count
    owner.queue.check(0)
    assert owner.heard == ["pause", "resume"]
    owner.queue.settle(partition_queue, in_flight)
    assert {step: n for step, n in owner.queue.statistics(0).steps.items() if n} == {"throttle": 1}


def test_a_throttle_does_not_end_a_pause() -> None:
    owner = Owner(Budget(bytes_max=64_000))
    owner.put(RowClass.TRADE, trades(800))  # 80 % of the budget: the policy pauses as well
    partition_queue = owner.queue.partition_queue(RowClass.TRADE, 0)
    in_flight, _ = owner.queue.take(partition_queue, 790)
    owner.queue.check(SECOND)
    assert not owner.queue.throttle.is_on
    assert owner.heard == ["pause"]
    owner.queue.settle(partition_queue, in_flight)
    owner.queue.check(SECOND)
    assert owner.heard == ["pause", "resume"]


def test_rows_that_grow_too_old_are_shed() -> None:
    owner = Owner(Budget(age_max_s=10, pause_max_s=1))
    owner.put(RowClass.TRADE, trades(40, instruments=2), 0)
    owner.queue.check(3 * SECOND, with_age=True)
    owner.queue.check(8 * SECOND, with_age=True)
    assert owner.heard == ["pause"]
    owner.queue.check(10 * SECOND, with_age=True)
    assert owner.heard == ["pause", "resume"]
    assert sorted(owner.shed) == [(RowClass.TRADE, 0), (RowClass.TRADE, 1)]
    assert owner.queue.rows == 2
    assert owner.queue.statistics(10 * SECOND).age_peak_s == 10
    assert owner.ledger.unexplained(40, 2) == 0


def test_each_bound_of_the_budget_has_its_fill() -> None:
    owner = Owner(Budget(bytes_max=64_000, rows_max=1_000, age_max_s=10, pause_max_s=1))
    owner.put(RowClass.TRADE, trades(40, instruments=2), 0)
    fill = owner.queue.statistics(8 * SECOND).fill
    assert fill == pytest.approx({"bytes": 40 * 64 / 64_000, "rows": 40 / 1_000, "age": 0.8})


def test_what_is_in_flight_is_never_shed() -> None:
    owner = Owner(Budget(bytes_max=64_000))
    owner.put(RowClass.TRADE, trades(900, instruments=2))
    in_flight, since_ns = owner.queue.take(owner.queue.partition_queue(RowClass.TRADE, 0), 500)
    owner.put(RowClass.TRADE, trades(600, first=901, instruments=2))
    assert in_flight["sequence"].tolist() == list(range(1, 501))
    assert since_ns == 0
    assert owner.queue.rows_in_flight == 500
    assert owner.queue.rows == 502
    marks = owner.queue.partition_queue(RowClass.TRADE, 0).all()[0]
    assert marks["kind"].tolist() == [Kind.GAP, Kind.GAP]


def test_repartitioning_keeps_order_by_instrument() -> None:
    owner = Owner(Budget())
    rows = trades(300, instruments=6)
    for partition in range(3):
        owner.put(RowClass.TRADE, rows[rows["instrument"] % 3 == partition], partition=partition)

    def halves(part: Rows) -> list[tuple[int, Rows]]:
        return [(half, part[part["instrument"] % 2 == half]) for half in range(2)]

    owner.queue.repartition(RowClass.TRADE, halves, 2)
    assert sorted(partition for _, partition in owner.queue.partition_queues) == [0, 1]
    for half in range(2):
        queued = owner.queue.partition_queue(RowClass.TRADE, half).all()[0]
        for number in range(half, 6, 2):
            mine = queued[queued["instrument"] == number]["sequence"].tolist()
            assert mine == rows[rows["instrument"] == number]["sequence"].tolist()


class Traffic(RuleBasedStateMachine):
    """Rows come, go, wait and get marked in any order."""

    INSTRUMENTS = 4
    BYTES_MAX, ROWS_MAX = 6_000, 90

    def __init__(self) -> None:
        super().__init__()
        self.owner = Owner(Budget(self.BYTES_MAX, self.ROWS_MAX, pause_max_s=2))
        self.now_ns = 0
        self.next = dict.fromkeys(CLASSES, 1)
        self.in_flight_batches: dict[tuple[RowClass, int], Rows] = {}
        self.delivered: dict[tuple[RowClass, int], list[Any]] = {}

    @rule(
        row_class=st.sampled_from(CLASSES),
        count=st.integers(1, 30),
        by=st.integers(1, 4),
    )
    def put(self, row_class: RowClass, count: int, by: int) -> None:
        rows = MAKERS[row_class](count, first=self.next[row_class], instruments=by)
        self.next[row_class] += count
        for number in np.unique(rows["instrument"]).tolist():
            part = rows[rows["instrument"] == number]
            self.owner.put(row_class, part, self.now_ns, number % 2)

    @rule(
        row_class=st.sampled_from(CLASSES),
        partition=st.integers(0, 1),
        most=st.integers(1, 40),
    )
    def take(self, row_class: RowClass, partition: int, most: int) -> None:
        if (row_class, partition) not in self.in_flight_batches:
            partition_queue = self.owner.queue.partition_queue(row_class, partition)
            self.in_flight_batches[row_class, partition], _ = self.owner.queue.take(
                partition_queue, most
            )

    @rule(
        row_class=st.sampled_from(CLASSES),
        partition=st.integers(0, 1),
        good=st.booleans(),
    )
    def settle(self, row_class: RowClass, partition: int, good: bool) -> None:
        rows = self.in_flight_batches.pop((row_class, partition), None)
        if rows is None:
            return
        owner = self.owner
        owner.queue.settle(owner.queue.partition_queue(row_class, partition), rows)
        if good:
            owner.ledger.acked(row_class, rows, 0, 0)
        else:
            owner.ledger.dead_lettered(row_class, rows)
            gap = control_row(row_class, Kind.GAP, 0, self.now_ns, cause=Cause.DEAD_LETTER)
            owner.queue.declare(owner.queue.partition_queue(row_class, partition), gap, self.now_ns)
        owner.queue.check(self.now_ns)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND
        self.owner.queue.check(self.now_ns, with_age=True)

    @invariant()
    def bounded(self) -> None:
        """What can't be shed: rows in flight, one row of each instrument and lane."""
        queue = self.owner.queue
        floor_bytes = sum(rows.nbytes for rows in self.in_flight_batches.values())
        floor_rows = sum(len(rows) for rows in self.in_flight_batches.values())
        for row_class, _ in queue.partition_queues:
            floor_bytes += row_class.dtype.itemsize * self.INSTRUMENTS
            floor_rows += self.INSTRUMENTS
        assert queue.bytes <= max(self.BYTES_MAX, floor_bytes)
        assert queue.rows <= max(self.ROWS_MAX, floor_rows)

    @invariant()
    def balanced(self) -> None:
        owner = self.owner
        assert owner.ledger.unexplained(owner.rows_in, owner.queue.rows) == 0
        queued = sum(
            partition_queue.rows for partition_queue in owner.queue.partition_queues.values()
        )
        assert owner.queue.rows == queued + owner.queue.rows_in_flight

    @invariant()
    def in_order(self) -> None:
        for partition_queue in self.owner.queue.partition_queues.values():
            rows = partition_queue.all()[0]
            for number in np.unique(rows["instrument"]).tolist():
                mine = rows[(rows["instrument"] == number) & (rows["kind"] < Kind.GAP)]
                assert (np.diff(mine["sequence"].astype(np.int64)) >= 0).all()


TestTraffic = Traffic.TestCase
TestTraffic.settings = tried(30, 500, steps=40)
