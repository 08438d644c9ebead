"""Token buckets: how fast a venue may be asked for connections, and over REST; and who holds us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

import structlog

from ingestor.model.retry_after import RETRY_AFTER_MAX_S

HELD_MAX: Final = 1_024  # servers that are remembered; those whose time is over make room

log = structlog.get_logger(__name__)


class Holds:
    """Servers that want to be left alone for a while: HTTP 429, 418 or 503 with Retry-After.

    A hold ends after RETRY_AFTER_MAX_S at the latest, whatever the server says.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._until_s: dict[tuple[str, str, str], float] = {}

    def note(self, venue: str, kind: str, origin: str, delay_s: float) -> float:
        """Take note that a server holds us off, and say so.

        Args:
            venue: the server's venue.
            kind: "rest" or "websocket".
            origin: the server, as scheme, host and port, or a source address.
            delay_s: seconds that it asks for, of any size and sign.

        Returns:
            The seconds that are kept to.
        """
        held_s = bounded_s(delay_s)
        now_s = self._clock()
        if len(self._until_s) >= HELD_MAX:
            self._until_s = {key: end for key, end in self._until_s.items() if end > now_s}
        key = (venue, kind, origin)
        if len(self._until_s) < HELD_MAX or key in self._until_s:
            self._until_s[key] = max(self._until_s.get(key, now_s), now_s + held_s)
        log.warning("venue.held", venue=venue, kind=kind, origin=origin, seconds=round(held_s, 1))
        return held_s

    def remaining_s(self, venue: str, kind: str, origin: str) -> float:
        """Return how many seconds a server still holds us off; 0 when it doesn't.

        Args:
            venue: Name of the venue.
            kind: What is held: connections or requests.
            origin: Scheme, host and port.
        """
        until_s = self._until_s.get((venue, kind, origin))
        return 0.0 if until_s is None else max(0.0, until_s - self._clock())

    def longest_s(self) -> Mapping[tuple[str, str], float]:
        """Return the longest remaining hold by venue and kind, 0 for those that are over."""
        longest: dict[tuple[str, str], float] = {}
        for venue, kind, origin in self._until_s:
            remaining_s = self.remaining_s(venue, kind, origin)
            longest[venue, kind] = max(longest.get((venue, kind), 0.0), remaining_s)
        return longest


def bounded_s(delay_s: float) -> float:
    """Return a delay within 0 and RETRY_AFTER_MAX_S; 0 for what is no number."""
    return min(delay_s, RETRY_AFTER_MAX_S) if delay_s > 0 else 0.0


class RateLimiter:
    """A token bucket whose waiters are served in order.

    rate_per_s tokens come in each second, at most `burst` are kept. Time is handed out ahead: each
    caller reserves its place and sleeps until then, so a thousand waiters cost a sleep each and
    nothing in between.
    """

    __slots__ = ("_burst_s", "_clock", "_interval_s", "_next_s", "_venue")

    def __init__(
        self,
        rate_per_s: float,
        burst: int = 1,
        clock: Callable[[], float] = monotonic,
        venue: str = "",
    ) -> None:
        """Create the rate limiter.

        Args:
            rate_per_s: tokens a second.
            burst: tokens that are kept at most.
            clock: returns monotonic seconds.
            venue: whose connections are limited, for the report of a hold.
        """
        if rate_per_s <= 0 or burst < 1:
            raise ValueError(f"no rate: {rate_per_s} per second, burst {burst}")
        self._interval_s = 1.0 / rate_per_s
        self._burst_s = (burst - 1) * self._interval_s
        self._clock = clock
        self._venue = venue
        self._next_s = -float("inf")  # when the next token is due, were the bucket never full

    def reserve(self, tokens: int = 1) -> float:
        """Take tokens; return how many seconds to wait before using them."""
        now_s = self._clock()
        due_s = max(self._next_s, now_s - self._burst_s)
        self._next_s = due_s + tokens * self._interval_s
        return max(0.0, due_s - now_s)

    def delay_s(self, tokens: int = 1) -> float:
        """Return how many seconds to wait until so many tokens are there, without taking any."""
        now_s = self._clock()
        due_s = max(self._next_s, now_s - self._burst_s) + (tokens - 1) * self._interval_s
        return max(0.0, due_s - now_s)

    def hold(self, delay_s: float, origin: str = "") -> None:
        """Hand out nothing for so long (Retry-After), and no burst then.

        Args:
            delay_s: seconds, of any size and sign: RETRY_AFTER_MAX_S are kept to at most.
            origin: who asks for it, for the report.
        """
        if self._venue:
            holds.note(self._venue, "websocket", origin, delay_s)
        self._next_s = max(self._next_s, self._clock() + bounded_s(delay_s))

    async def acquire(self, tokens: int = 1) -> None:
        """Wait until the tokens may be used."""
        delay_s = self.reserve(tokens)
        if delay_s > 0:
            await asyncio.sleep(delay_s)


# The holds of this process: limits are the machine's, whichever part of the program met them.
holds: Final = Holds()
