"""ingestor.sources.rate_limiter, on a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ingestor.sources.rate_limiter import HELD_MAX, Holds, RateLimiter
from ingestor.sources.rate_limiter import holds as process_holds


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(10.0, burst=3, clock=Clock())
    assert [limiter.reserve() for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_tokens_come_back_but_never_more_than_the_burst() -> None:
    clock = Clock()
    limiter = RateLimiter(10.0, burst=2, clock=clock)
    assert [limiter.reserve() for _ in range(2)] == [0, 0]
    clock.now_s += 0.1
    assert [limiter.reserve() for _ in range(2)] == pytest.approx([0, 0.1])
    clock.now_s += 1_000
    assert [limiter.reserve() for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_weights() -> None:
    limiter = RateLimiter(10.0, burst=1, clock=Clock())
    assert [limiter.reserve(5), limiter.reserve(1), limiter.reserve(1)] == pytest.approx(
        [0, 0.5, 0.6]
    )


def test_hold() -> None:
    clock = Clock()
    limiter = RateLimiter(10.0, burst=5, clock=clock)
    limiter.hold(3.0)
    assert [limiter.reserve() for _ in range(2)] == pytest.approx([3.0, 3.1])
    limiter.hold(1.0)  # shorter than what is promised already
    assert limiter.reserve() == pytest.approx(3.2)


@pytest.mark.parametrize(
    ("delay_s", "kept_s"),
    [(1e9, 3_600.0), (1e300, 3_600.0), (float("inf"), 3_600.0), (-5, 0.0), (float("nan"), 0.0)],
)
def test_a_hold_is_bounded(delay_s: float, kept_s: float) -> None:
    clock = Clock()
    limiter = RateLimiter(10.0, burst=5, clock=clock)
    limiter.hold(delay_s)
    assert limiter.reserve() == pytest.approx(kept_s)
    clock.now_s += kept_s + 1.0
    assert limiter.reserve() == 0.0


def test_holds_are_said_and_measured_and_end() -> None:
    clock = Clock()
    holds = Holds(clock)
    with capture_logs() as logs:
        assert holds.note("acme", "rest", "http://a", 10**9) == 3_600.0
        assert holds.note("acme", "rest", "http://b", 5.0) == 5.0
        assert holds.note("acme", "websocket", "", -1.0) == 0.0
    assert [(line["event"], line["venue"], line["seconds"]) for line in logs] == [
        ("venue.held", "acme", 3_600.0),
        ("venue.held", "acme", 5.0),
        ("venue.held", "acme", 0.0),
    ]
    clock.now_s += 10.0
    assert holds.longest_s() == {("acme", "rest"): 3_590.0, ("acme", "websocket"): 0.0}
    assert holds.remaining_s("acme", "rest", "http://b") == 0.0
    assert holds.remaining_s("other", "rest", "http://a") == 0.0
    clock.now_s += 3_600.0
    assert set(holds.longest_s().values()) == {0.0}


def test_remembered_holds_are_bounded() -> None:
    holds = Holds(Clock())
    with capture_logs():
        for number in range(HELD_MAX + 10):
            holds.note(f"venue {number}", "rest", "", 60.0)
    assert len(holds.longest_s()) == HELD_MAX


def test_a_limiter_with_a_name_reports_its_holds() -> None:
    limiter = RateLimiter(10.0, venue="limited")
    with capture_logs() as logs:
        limiter.hold(float("1e400"), "wss://limited.example")
    assert [(line["event"], line["kind"], line["seconds"]) for line in logs] == [
        ("venue.held", "websocket", 3_600.0)
    ]
    assert 3_590 < process_holds.longest_s()["limited", "websocket"] <= 3_600


def test_no_rate() -> None:
    with pytest.raises(ValueError, match="no rate"):
        RateLimiter(0.0)


async def test_waiters_are_served_in_order() -> None:
    limiter = RateLimiter(1_000.0)
    order: list[int] = []

    async def one(number: int) -> None:
        await limiter.acquire()
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number))
    assert order == list(range(20))
