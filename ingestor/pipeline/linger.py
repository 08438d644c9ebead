"""Decide how long rows wait for others before they are flushed. Pure.

A flush has a price of its own, whatever it holds: a quarter of a millisecond to two of the loop.
While the loop has time to spare, that price is worth paying for every few rows, which then leave
at once. The busier the loop is, the longer rows wait for each other, since they are cheaper
together. The wait moves by a part of the way at each look: flushing less makes the loop less busy,
and a wait that followed at once would swing.

Where others want the processor too, or a quota ends, the loop comes late with a small share of it.
So rows wait for as long again as flushes come late, at least: that much is lost already.
"""

from __future__ import annotations

from typing import Final

BUSY_FROM: Final = 0.3  # shares of one core
BUSY_TO: Final = 0.8
STEP: Final = 0.25  # of the way to the wait that the share asks for, in each look
TICK_S: Final = 1e-3  # of uvloop's timers; a wait below it ends with the loop's turn
_LOOK_S: Final = 0.05
_LATE_STEP: Final = 0.1  # the mean of about ten waits
_FACTOR_FROM_S: Final = 1e-4  # a wait grows by factors, and so from more than nothing


class Linger:
    """seconds: how long the first row of a batch waits, as of the last `observe`."""

    def __init__(self, least_s: float, most_s: float) -> None:
        """least_s: with time to spare. most_s: while the loop is busy; bounds `least_s` too."""
        self._least_s = min(least_s, most_s)
        self._span = most_s / max(self._least_s, _FACTOR_FROM_S)
        self._most_s = most_s
        self._looked_s = self._cpu_s = self._late_s = 0.0
        self._stretch = 0.0  # from 0, the least, to 1, the most
        self.seconds = self._least_s if self._span <= 1.0 else 0.0

    def is_due(self, now_s: float) -> bool:
        """Return True if it is time to `observe`; it costs a subtraction."""
        return now_s - self._looked_s >= _LOOK_S

    def observe(self, now_s: float, cpu_s: float) -> None:
        """Look at what the loop's thread had of the processor. now_s: of a steady clock."""
        share = (cpu_s - self._cpu_s) / (now_s - self._looked_s)
        self._looked_s, self._cpu_s = now_s, cpu_s
        busy = min(max((share - BUSY_FROM) / (BUSY_TO - BUSY_FROM), 0.0), 1.0)
        self._stretch += STEP * (busy - self._stretch)
        if self._span > 1.0:
            wait_s = max(self._least_s, _FACTOR_FROM_S) * self._span**self._stretch
            wait_s = min(max(wait_s, self._late_s), self._most_s)
            self.seconds = int(wait_s / TICK_S) * TICK_S

    def ended(self, late_s: float) -> None:
        """A wait is over. late_s: how much longer it was than `seconds`."""
        self._late_s += _LATE_STEP * (late_s - self._late_s)
