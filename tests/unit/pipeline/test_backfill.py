"""What is asked for next, and when it is given up."""

from __future__ import annotations

from ingestor.adapter import LostTrades
from ingestor.model.timestamps import SECOND
from ingestor.pipeline.backfill import BackfillPlanner, BackfillSettings, Wanted
from ingestor.pipeline.trade_gaps import Lost

SETTINGS = BackfillSettings(
    delay_s=1.0, backoff_s=2.0, backoff_max_s=5.0, misses_max=4, trades_max=100, ranges_max=3
)


def lost(first: int, last: int) -> Lost:
    return Lost(0, LostTrades(first, last, 0, 0))


def test_a_range_is_asked_for_after_the_delay() -> None:
    planner = BackfillPlanner(SETTINGS)
    assert planner.due_ns is None
    assert planner.take(10**18) is None
    assert planner.submit([lost(1, 5)], 0) == []
    assert planner.take(SECOND - 1) is None
    assert planner.due_ns == SECOND
    assert planner.take(SECOND) == Wanted(lost(1, 5))
    assert len(planner) == 0


def test_what_is_too_large_or_too_much_is_refused() -> None:
    planner = BackfillPlanner(SETTINGS)
    assert planner.submit([lost(1, 101)], 0) == [lost(1, 101)]
    many = [lost(number, number) for number in range(5)]
    assert planner.submit(many, 0) == many[3:]


def test_what_an_answer_leaves_is_asked_for_at_once() -> None:
    planner = BackfillPlanner(SETTINGS)
    wanted = Wanted(lost(1, 9), misses=2)
    assert planner.answered(wanted, [lost(1, 2), lost(7, 9)], 50) == []
    assert planner.take(50) == Wanted(lost(1, 2))
    assert planner.take(50) == Wanted(lost(7, 9))
    assert planner.answered(wanted, [], 50) == []
    assert len(planner) == 0


def test_what_brings_nothing_waits_longer_each_time_and_is_given_up() -> None:
    planner = BackfillPlanner(SETTINGS)
    wanted, now_ns, waits = Wanted(lost(1, 9)), 0, []
    while not (given_up := planner.answered(wanted, [lost(1, 9)], now_ns)):
        assert planner.due_ns is not None
        waits.append((planner.due_ns - now_ns) / SECOND)
        now_ns = planner.due_ns
        found = planner.take(now_ns)
        assert found is not None
        wanted = found
    assert waits == [2.0, 4.0, 5.0]
    assert given_up == [lost(1, 9)]
    assert len(planner) == 0
