"""The overload policy decides in the documented order; what it drops leaves no silent hole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import Cause, Kind
from ingestor.sinks.kafka.overload import (
    THROTTLE_BYTES,
    THROTTLE_MAX_S,
    Budget,
    OverloadPolicy,
    Step,
    Throttle,
    conflate,
    largest,
    shed,
)
from tests.fakes.rows import MAKERS, quotes, trades
from tests.fakes.weather import WEATHER

SECOND = 1_000_000_000
BUDGET = Budget(bytes_max=1_000, rows_max=100, age_max_s=10, pause_max_s=5)


def decide(policy: OverloadPolicy, level: float, now_s: float) -> list[Step]:
    steps = policy.decide(level, int(now_s * SECOND))
    for step in steps:
        policy.took(step, level, int(now_s * SECOND))
    return steps


@pytest.mark.rows("K5", "L6")
def test_a_growing_backlog_meets_the_steps_in_order() -> None:
    policy = OverloadPolicy(BUDGET)
    assert decide(policy, 0.25, 0) == []
    assert decide(policy, 0.26, 1) == [Step.CONFLATE]
    assert decide(policy, 0.75, 2) == [Step.CONFLATE, Step.PAUSE]
    assert decide(policy, 0.9, 3) == [Step.CONFLATE]
    assert decide(policy, 1.0, 4) == [Step.CONFLATE, Step.SHED]
    assert decide(policy, 0.5, 5) == [Step.CONFLATE]
    assert policy.paused
    assert decide(policy, 0.2, 6) == [Step.RESUME]
    assert not policy.paused
    assert [step for _, step, _ in policy.events][:2] == [Step.CONFLATE, Step.CONFLATE]
    assert policy.taken[Step.CONFLATE] == 5


def test_one_jump_takes_all_steps_at_once_in_order() -> None:
    assert decide(OverloadPolicy(BUDGET), 1.5, 0) == [Step.CONFLATE, Step.PAUSE, Step.SHED]


def test_a_pause_ends_by_time_and_is_then_used_up() -> None:
    policy = OverloadPolicy(BUDGET)
    decide(policy, 0.8, 0)
    assert decide(policy, 0.8, 4.9) == [Step.CONFLATE]
    assert decide(policy, 0.8, 5) == [Step.CONFLATE, Step.RESUME, Step.SHED]
    assert decide(policy, 0.74, 6) == [Step.CONFLATE]
    assert decide(policy, 0.8, 7) == [Step.CONFLATE, Step.SHED]
    assert decide(policy, 0.1, 8) == []
    assert decide(policy, 0.8, 9) == [Step.CONFLATE, Step.PAUSE]


def test_a_pile_of_unsent_rows_holds_reading_until_it_is_worked_off() -> None:
    throttle = Throttle(Budget())
    assert not throttle.decide(THROTTLE_BYTES - 1, 0)
    assert throttle.decide(THROTTLE_BYTES, 1)
    assert throttle.decide(THROTTLE_BYTES // 4 + 1, 2)
    assert not throttle.decide(THROTTLE_BYTES // 4, 3)
    assert not throttle.decide(THROTTLE_BYTES - 1, 4)
    assert throttle.decide(THROTTLE_BYTES, 5)


def test_a_pile_that_kafka_does_not_take_is_left_to_the_policy() -> None:
    throttle = Throttle(Budget())
    limit_ns = int(THROTTLE_MAX_S * SECOND)
    assert throttle.decide(THROTTLE_BYTES, 0)
    assert throttle.decide(THROTTLE_BYTES * 2, limit_ns - 1)
    assert not throttle.decide(THROTTLE_BYTES * 2, limit_ns)
    assert not throttle.decide(THROTTLE_BYTES * 9, limit_ns * 9)
    assert not throttle.decide(0, limit_ns * 10)
    assert throttle.decide(THROTTLE_BYTES, limit_ns * 11)


def test_the_throttle_comes_before_the_first_step() -> None:
    budget = Budget(bytes_max=1_000_000)
    throttle, unsent = Throttle(budget), int(1_000_000 * budget.low / 2)
    assert throttle.decide(unsent, 0)
    assert OverloadPolicy(budget).decide(budget.level(unsent, 0), 0) == []


def test_level_is_the_fullest_bound() -> None:
    assert BUDGET.level(100, 50, 9 * SECOND) == pytest.approx(0.9)
    assert BUDGET.level(100, 50) == pytest.approx(0.5)
    assert BUDGET.level(600, 50) == pytest.approx(0.6)


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 0.8}, {"high": 1.1}, {"bytes_max": 0}])
def test_a_senseless_budget_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget(**wrong)  # type: ignore[arg-type]


def test_conflating_keeps_the_latest_quote_and_mark() -> None:
    gap = control_row(RowClass.QUOTE, Kind.GAP, 1, 5, cause=Cause.SEQUENCE)
    rows = np.concatenate([quotes(6, instruments=2), gap, quotes(3, first=7, instruments=2)])
    kept, dropped = conflate(RowClass.QUOTE, rows)
    assert kept["sequence"].tolist() == [0, 8, 9]
    assert dropped["sequence"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_conflating_keeps_the_latest_row_of_each_key() -> None:
    rows = np.zeros(6, WEATHER.dtype)
    rows["kind"], rows["sequence"] = WEATHER.id, np.arange(1, 7)
    rows["instrument"] = [0, 0, 0, 1, 1, 0]
    rows["station"] = [70, 71, 70, 70, 70, 71]
    kept, dropped = conflate(WEATHER, rows)
    assert kept["sequence"].tolist() == [3, 5, 6]
    assert dropped["sequence"].tolist() == [1, 2, 4]


def test_shedding_leaves_a_mark_in_place() -> None:
    rows = trades(9, instruments=3)  # of instruments 1 2 0 1 2 0 1 2 0
    kept, dropped, marks = shed(RowClass.TRADE, rows, np.array([1, 7]))
    assert kept["sequence"].tolist() == [0, 2, 3, 5, 6, 8, 9]
    assert dropped["sequence"].tolist() == [1, 4, 7]
    assert marks.tolist() == kept[:1].tolist()
    assert (marks["kind"][0], marks["side"][0]) == (Kind.GAP, Cause.SHED)
    assert (marks["price"][0], marks["size"][0]) == (1, 7)
    again, dropped, marks = shed(RowClass.TRADE, kept, np.array([1]))
    assert again.tolist()[1:] == kept.tolist()[1:]
    assert len(dropped) == len(marks) == 1
    # The venue's numbers are no longer known where a mark was the end of the hole.
    assert (marks["price"][0], marks["size"][0]) == (0, 0)


@given(
    st.sampled_from(tuple(ROW_CLASSES)),
    st.integers(1, 60),
    st.integers(1, 5),
    st.sets(st.integers(0, 6)),
)
def test_shedding_keeps_all_others_in_order(
    row_class: RowClass, count: int, instruments: int, victims: set[int]
) -> None:
    rows = MAKERS[row_class](count, instruments=instruments)
    kept, dropped, marks = shed(row_class, rows, np.array(sorted(victims), np.int64))
    doomed = np.isin(rows["instrument"], list(victims))
    assert dropped.tolist() == rows[doomed].tolist()
    assert len(kept) == len(rows) - len(dropped) + len(marks)
    is_control_row = kept["kind"] == Kind.GAP
    assert kept[~is_control_row].tolist() == rows[~doomed].tolist()
    assert kept[is_control_row].tolist() == sorted(marks.tolist(), key=kept.tolist().index)
    assert set(marks["instrument"].tolist()) == set(rows["instrument"].tolist()) & victims


@pytest.mark.rows("L6")
def test_the_largest_go_first_and_no_more_than_needed() -> None:
    size_of = np.array([100, 500, 64, 300])
    assert largest(size_of, 400, 64).tolist() == [1]
    assert largest(size_of, 500, 64).tolist() == [1, 3]
    assert largest(size_of, 10_000, 64).tolist() == [1, 3, 0]
