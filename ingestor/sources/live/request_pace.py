"""Pace the requests of a connection by its own limits and those of its source address."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from ingestor.adapter import Limits
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.rate_limiter import RateLimiter

_HOUR_S: Final = 3_600.0


class RequestPace:
    """The limiters of one connection's requests."""

    __slots__ = ("_hourly", "_own", "_shared")

    def __init__(
        self,
        limits: Limits,
        shared: RateLimiter | None = None,
        clock_s: Callable[[], float] = monotonic,
    ) -> None:
        """Create the request pace.

        Args:
            limits: the venue's.
            shared: of all connections from this connection's source address; None = no such limit.
            clock_s: seconds of a clock that is never set.
        """
        self._own = RateLimiter(limits.requests_per_s, max(1, int(limits.requests_per_s)), clock_s)
        self._shared = shared
        # Half at once and half over the hour: no hour has more, wherever it begins.
        half = limits.requests_per_hour // 2
        self._hourly = RateLimiter(half / _HOUR_S, half, clock_s) if half else None

    def has_room(self, count: int) -> bool:
        """Say whether the hour's limit allows so many requests now."""
        return self._hourly is None or self._hourly.delay_s(count) <= 0

    async def acquire(self) -> None:
        """Wait until a request may be sent."""
        for limiter in (self._hourly, self._own, self._shared):
            if limiter is not None:
                await limiter.acquire()


class SharedPaces:
    """The limiters of source addresses, one for each venue and address that has such a limit."""

    def __init__(self, workers: int, clock_s: Callable[[], float]) -> None:
        """Create the shared paces.

        Args:
            workers: processes that share what the venues allow.
            clock_s: seconds of a clock that is never set.
        """
        self._workers = workers
        self._clock_s = clock_s
        self._limiters: dict[tuple[str, str | None], RateLimiter] = {}

    def of(self, planned: PlannedConnection) -> RateLimiter | None:
        """Return the limiter of a connection's address, None where the venue has no such limit."""
        rate = planned.limits.address_requests_per_s / self._workers
        if rate <= 0:
            return None
        key = (planned.venue, planned.source_address)
        if key not in self._limiters:
            self._limiters[key] = RateLimiter(rate, max(1, int(rate / 2)), self._clock_s)
        return self._limiters[key]
