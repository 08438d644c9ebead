"""ingestor.telemetry.status: snapshots of several processes as one."""

from __future__ import annotations

from dataclasses import fields

import orjson
import pytest

from ingestor.telemetry.status import FeedStatus, Phase, Status, merged

COUNTS = [one.name for one in fields(Status) if one.type == "int" and one.name != "time_ns"]
LAGS = [one.name for one in fields(Status) if one.name.endswith("_ms")]


def full(number: int, phase: Phase = Phase.RUNNING) -> Status:
    """A snapshot in which every field has a value of its own, times `number`."""
    status = Status(
        time_ns=1_000 * number,
        uptime_s=2.5 * number,
        phase=phase,
        connections={"connected": 3 * number},
        rows={"trade": 5 * number},
        feeds=[FeedStatus("okx", "spot", "book", 7 * number, 1.0, 2.0 * number, 3.0, -4.0)],
        notes=["both", f"only {number}"],
    )
    for place, name in enumerate(COUNTS, 10):
        setattr(status, name, place * number)
    for place, name in enumerate(LAGS, 50):
        setattr(status, name, float(place * number))
    return status


def test_json_and_back() -> None:
    status = full(3, Phase.PAUSED)
    assert Status.from_json(orjson.loads(orjson.dumps(status.to_json()))) == status


@pytest.mark.parametrize("content", [{}, {**Status().to_json(), "phase": "asleep"}])
def test_what_is_no_status(content: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Status.from_json(content)


def test_counts_are_summed_and_lags_the_worst() -> None:
    one, two = full(1), full(2)
    whole = merged([one, two])
    for name in COUNTS:
        assert getattr(whole, name) == getattr(one, name) * 3, name
    for name in (*LAGS, "time_ns", "uptime_s"):
        assert getattr(whole, name) == getattr(two, name), name
    assert whole.connections == {"connected": 9}
    assert whole.rows == {"trade": 15}
    assert whole.notes == ["both", "only 1", "only 2"]
    assert whole.feeds == [FeedStatus("okx", "spot", "book", 21, 1.0, 4.0, 3.0, -4.0)]


def test_no_field_is_forgotten() -> None:
    assert merged([full(1)]) == full(1)


def test_states_classes_and_feeds_of_one_alone_are_kept() -> None:
    one = Status(connections={"connected": 1}, feeds=[FeedStatus("okx", "spot", "book", 1)])
    two = Status(connections={"waiting": 2}, feeds=[FeedStatus("okx", "swap", "book", 2)])
    whole = merged([one, two])
    assert whole.connections == {"connected": 1, "waiting": 2}
    assert [feed.name for feed in whole.feeds] == ["okx:spot:book", "okx:swap:book"]
    assert whole.lag_p99_ms is None


def test_the_largest_skew_is_the_worst_of_either_sign() -> None:
    parts = [
        Status(feeds=[FeedStatus("okx", "spot", "book", skew_ms=skew)])
        for skew in (2.0, None, -9.0)
    ]
    assert merged(parts).feeds[0].skew_ms == -9.0


@pytest.mark.parametrize(
    ("phases", "worst"),
    [
        ((Phase.RUNNING, Phase.RUNNING), Phase.RUNNING),
        ((Phase.PAUSED, Phase.RUNNING), Phase.PAUSED),
        ((Phase.PAUSED, Phase.STARTING), Phase.STARTING),
        ((Phase.RUNNING, Phase.STOPPED), Phase.STOPPED),
        ((Phase.STOPPED, Phase.DRAINING), Phase.DRAINING),
    ],
)
def test_the_phase_is_the_worst(phases: tuple[Phase, ...], worst: Phase) -> None:
    assert merged(Status(phase=phase) for phase in phases).phase is worst


def test_nothing_merges_into_nothing() -> None:
    assert merged([]) == Status()
