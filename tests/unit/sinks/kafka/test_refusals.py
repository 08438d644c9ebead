"""What becomes of a refused batch: itself, its partition or the producer."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition, errors

from ingestor.codec import Record
from ingestor.kafka.error_codes import error_of
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.clock_steps import ClockSteps
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.queue import PartitionQueue
from ingestor.sinks.kafka.refusals import CLOCK_REASON, REFUSED_IN_A_ROW_MAX, Refusals
from tests.fakes.rows import START_NS, trades

HOUR_NS = 3_600_000_000_000


class Bench:
    """One partition with one batch of rows, judged at START_NS."""

    def __init__(self, rows: int = 1) -> None:
        self.now_ns = START_NS
        self.dead: list[str] = []
        self.window = InFlightWindow(
            PartitionQueue(RowClass.TRADE, 0), TopicPartition("md.trades.v1", 0)
        )
        steps = ClockSteps(lambda: self.now_ns, lambda: 0)
        self.refusals = Refusals(
            steps, lambda: self.now_ns, lambda _queue, _batch, reason: self.dead.append(reason)
        )
        self.add(rows)

    def add(self, rows: int = 1) -> InFlightBatch:
        self.batch = InFlightBatch(trades(rows), 0, 0)
        self.window.in_flight_batches.append(self.batch)
        return self.batch


@pytest.mark.parametrize("code", [10, 18, 87])
def test_a_batch_is_halved_until_a_record_is_alone(code: int) -> None:
    bench = Bench(rows=4)
    decision = bench.refusals.judge(bench.window, bench.batch, error_of(code))
    assert [len(one.rows) for one in bench.window.in_flight_batches] == [2, 2]
    assert (decision.delay_s, decision.is_own, bench.dead) == (0.0, False, [])
    assert bench.window.needs_renewal


@pytest.mark.parametrize(("code", "is_of_topic"), [(10, False), (87, True), (44, True)])
def test_records_refused_one_after_another_are_the_topic(code: int, is_of_topic: bool) -> None:
    bench = Bench()
    for number in range(6):
        decision = bench.refusals.judge(bench.window, bench.batch, error_of(code))
        if not decision.is_own:
            bench.add()
        assert decision.is_own == (is_of_topic and number >= REFUSED_IN_A_ROW_MAX)
    assert len(bench.dead) == (REFUSED_IN_A_ROW_MAX if is_of_topic else 6)


@pytest.mark.parametrize("code", [3, 17, 29])
def test_a_refused_topic_waits_and_keeps_its_numbers(code: int) -> None:
    bench = Bench()
    decision = bench.refusals.judge(bench.window, bench.batch, error_of(code))
    assert decision.is_own
    assert not bench.window.needs_renewal
    assert not bench.dead


@pytest.mark.parametrize("code", [31, 58])
def test_a_refused_producer_is_replaced(code: int) -> None:
    bench = Bench()
    assert bench.refusals.judge(bench.window, bench.batch, error_of(code)).replaces


def test_what_is_raised_while_a_batch_is_made_is_its_own_fault_when_it_comes_back() -> None:
    bench = Bench()
    for _ in range(3):
        bench.refusals.judge(bench.window, bench.batch, ArithmeticError())
        assert not bench.dead
    bench.refusals.judge(bench.window, bench.batch, ArithmeticError())
    assert bench.dead == ["Arithmetic"]


def test_the_time_of_fresh_rows_is_the_fault_of_the_clock() -> None:
    bench = Bench()
    decision = bench.refusals.judge(bench.window, bench.batch, errors.InvalidTimestampError())
    assert (decision.reason, bench.dead) == (CLOCK_REASON, [])
    bench.now_ns -= 2 * HOUR_NS  # it is set right: the rows are of a clock that was known
    decision = bench.refusals.judge(bench.window, bench.batch, errors.InvalidTimestampError())
    assert (decision.reason, bench.dead) == (CLOCK_REASON, [])
    assert bench.window.clamps_times
    now_ms = bench.now_ns // 1_000_000
    records: list[Record] = [(b"key", b"value", START_NS // 1_000_000, 1)]
    assert bench.refusals.clamp_times(records) == [(b"key", b"value", now_ms, 1)]
    assert bench.refusals.is_clamped(bench.batch)


def test_a_time_that_no_clock_showed_is_the_fault_of_its_record() -> None:
    bench = Bench()
    bench.batch.rows["ts_recv"] += 24 * HOUR_NS
    bench.refusals.judge(bench.window, bench.batch, errors.InvalidTimestampError())
    assert bench.dead == ["InvalidTimestamp"]
