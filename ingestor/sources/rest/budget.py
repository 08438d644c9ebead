"""The budget of one REST pool: how fast it is asked, and when not at all.

A pool is what a venue counts together, for a source address: the origins of `RestLimit.pool`. Every
request of this process takes its weight here. The venue's own count, in a header of its answers,
knows other programs on the address too. After HTTP 429 or 418 nothing of the pool is sent until the
time that the venue names is over: further requests would prolong a ban.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from ingestor.adapter import RestLimit
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.model.retry_after import retry_after_s
from ingestor.sources.rate_limiter import Holds, RateLimiter, bounded_s, holds

_MINUTE_S: Final = 60.0
_TOO_MANY: Final = 429
_BANNED: Final = 418
# How long a pool is left alone when an answer doesn't say so.
_HOLD_S: Final[Mapping[int, float]] = {_TOO_MANY: 10.0, _BANNED: 120.0}


class RestBudget:
    """The limiter of one pool."""

    def __init__(
        self,
        venue: str,
        pool: str,
        limit: RestLimit,
        workers: int = 1,
        clocks: Clocks | None = None,
        wall_s: Callable[[], float] = time.time,
        kept: Holds = holds,
    ) -> None:
        """Create the REST budget.

        Args:
            venue: whose pool it is.
            pool: its name: that of the limit, or an origin.
            limit: what the venue allows.
            workers: processes that share what the venue allows.
            clocks: of the process.
            wall_s: returns seconds since the epoch: a venue counts by the minutes of the day.
            kept: the holds of the process, which outlive a budget.
        """
        self._venue = venue
        self._pool = pool
        self._limit = limit
        self._clocks = clocks or Clocks()
        self._wall_s = wall_s
        self._limiter = RateLimiter(
            limit.weight_per_s / workers,
            max(1, limit.weight_burst // workers),
            self._clocks.steady_s,
        )
        self._kept = kept
        self._until_s = -float("inf")

    @property
    def held_s(self) -> float:
        """Seconds for which the pool is to be left alone."""
        mine_s = max(0.0, self._until_s - self._clocks.steady_s())
        return max(mine_s, self._kept.remaining_s(self._venue, "rest", self._pool))

    async def acquire(self, weight: int, patience_s: float) -> None:
        """Wait until a request may be sent.

        Args:
            weight: of the request.
            patience_s: the longest hold of the venue that is waited for.

        Raises:
            TransportError: the venue wants to be left alone for longer.
        """
        while True:
            held_s = self.held_s
            if held_s > patience_s:
                raise TransportError(
                    self._pool, f"the venue wants no request for {held_s:.0f} s more"
                )
            if held_s > 0:
                self._limiter.hold(held_s)
            await self._limiter.acquire(weight)
            if self.held_s <= 0:  # else the venue spoke meanwhile
                return

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Take note of an answer: a refusal, or how much of the minute's weight is used."""
        if status in _HOLD_S:
            wait_s = retry_after_s(headers.get("Retry-After"))
            self._hold(_HOLD_S[status] if wait_s is None else wait_s)
            return
        used = headers.get(self._limit.used_header, "") if self._limit.used_header else ""
        if used.isdecimal() and int(used) > self._limit.used_max:
            self._hold(_MINUTE_S - self._wall_s() % _MINUTE_S)

    def _hold(self, delay_s: float) -> None:
        self._kept.note(self._venue, "rest", self._pool, delay_s)
        self._until_s = max(self._until_s, self._clocks.steady_s() + bounded_s(delay_s))
