"""ingestor.sources.rate_limiter, on a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.sources.rate_limiter import RateLimiter


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
