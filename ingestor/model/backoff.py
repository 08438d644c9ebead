"""Capped exponential backoff with full jitter: attempt number -> seconds to wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """delay_s = random in [0, min(cap_s, base_s x 2^attempt)], at least floor_s.

    Full jitter spreads a herd over the whole window; the cap bounds the worst wait. A server's
    Retry-After is honoured as a floor, itself capped at `retry_after_cap_s`.
    """

    base_s: float = 0.5
    cap_s: float = 60.0
    floor_s: float = 0.0
    retry_after_cap_s: float = 3_600.0

    def delay_s(
        self, attempt: int, random: Callable[[], float], retry_after_s: float | None = None
    ) -> float:
        """Return how long to wait before the next attempt, in seconds.

        Args:
            attempt: 0 for the first retry.
            random: Returns a number in [0, 1).
            retry_after_s: The wait that the server asked for, in seconds, if it did.
        """
        window_s = min(self.cap_s, self.base_s * 2.0 ** min(attempt, 32))
        delay_s = max(self.floor_s, window_s * random())
        if retry_after_s is not None:
            delay_s += min(max(retry_after_s, 0.0), self.retry_after_cap_s)
        return delay_s
