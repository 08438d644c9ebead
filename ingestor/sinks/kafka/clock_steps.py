"""Know by which wall clock a row was stamped, through steps of that clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

STEP_NS: Final = 1_000_000_000  # less is slewing
STEPS_MAX: Final = 64
# Rows are stamped by the first look, and by a clock that stepped since the last one.
_BEFORE_NS: Final = 60_000_000_000
_SLACK_NS: Final = 2_000_000_000


class ClockSteps:
    """Keeps how far the wall clock was ahead of the monotonic one, and from when to when."""

    def __init__(
        self,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Create the clock steps.

        Args:
            clock: ns since the epoch.
            monotonic: ns since any time.
        """
        self._clock = clock
        self._monotonic = monotonic
        now_ns = monotonic()
        self._periods: deque[tuple[int, int]] = deque(maxlen=STEPS_MAX)  # since when, ahead by
        self._periods.append((now_ns - _BEFORE_NS, clock() - now_ns))

    def look(self) -> int:
        """Return by how many ns the wall clock stepped since the last look, 0 for no step."""
        now_ns = self._monotonic()
        ahead_ns = self._clock() - now_ns
        since_ns, before_ns = self._periods[-1]
        if abs(ahead_ns - before_ns) < STEP_NS:
            self._periods[-1] = since_ns, ahead_ns
            return 0
        self._periods.append((now_ns, ahead_ns))
        return ahead_ns - before_ns

    def explains(self, times_ns: NDArray[np.int64]) -> bool:
        """Tell whether the wall clock, as it was at some time, can have shown each of these times.

        Args:
            times_ns: ns since the epoch.
        """
        self.look()
        explained = np.zeros(len(times_ns), np.bool_)
        until_ns = self._monotonic()
        for since_ns, ahead_ns in reversed(self._periods):
            stamped_ns = times_ns.astype(np.int64) - ahead_ns
            explained |= (stamped_ns >= since_ns - _SLACK_NS) & (stamped_ns <= until_ns + _SLACK_NS)
            until_ns = since_ns
        return bool(explained.all())
