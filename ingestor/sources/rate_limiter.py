"""Token buckets: how fast a venue may be asked for connections, and over REST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic


class RateLimiter:
    """A token bucket whose waiters are served in order.

    rate_per_s tokens come in each second, at most `burst` are kept. Time is handed out ahead: each
    caller reserves its place and sleeps until then, so a thousand waiters cost a sleep each and
    nothing in between.
    """

    __slots__ = ("_burst_s", "_clock", "_interval_s", "_next_s")

    def __init__(
        self, rate_per_s: float, burst: int = 1, clock: Callable[[], float] = monotonic
    ) -> None:
        if rate_per_s <= 0 or burst < 1:
            raise ValueError(f"no rate: {rate_per_s} per second, burst {burst}")
        self._interval_s = 1.0 / rate_per_s
        self._burst_s = (burst - 1) * self._interval_s
        self._clock = clock
        self._next_s = -float("inf")  # when the next token is due, were the bucket never full

    def reserve(self, tokens: int = 1) -> float:
        """Take tokens; return how many seconds to wait before using them."""
        now_s = self._clock()
        due_s = max(self._next_s, now_s - self._burst_s)
        self._next_s = due_s + tokens * self._interval_s
        return max(0.0, due_s - now_s)

    def hold(self, delay_s: float) -> None:
        """Hand out nothing for so long (Retry-After), and no burst then."""
        self._next_s = max(self._next_s, self._clock() + delay_s)

    async def acquire(self, tokens: int = 1) -> None:
        """Wait until the tokens may be used."""
        delay_s = self.reserve(tokens)
        if delay_s > 0:
            await asyncio.sleep(delay_s)
