"""Decide how long rows wait for others before they are flushed. Pure.

A flush has a price of its own, whatever it holds, one to two milliseconds of the loop. While the
loop has time to spare, rows wait for the linger that was asked for. The busier it is, the longer
they wait, up to STRETCH_MAX times as long: rows that would only wait for the loop to come to them
wait for each other instead, and are cheaper together.
"""

from __future__ import annotations

from typing import Final

STRETCH_MAX: Final = 4.0
BUSY_FROM: Final = 0.8  # shares of one core
BUSY_TO: Final = 0.95
_LOOK_S: Final = 0.05


class Linger:
    """seconds: how long the first row of a batch waits, as of the last `observe`."""

    def __init__(self, least_s: float) -> None:
        self.seconds = least_s
        self._least_s = least_s
        self._looked_s = self._cpu_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Return True if it is time to `observe`; it costs a subtraction."""
        return now_s - self._looked_s >= _LOOK_S

    def observe(self, now_s: float, cpu_s: float) -> None:
        """Look at what the loop's thread had of the processor. now_s: of a steady clock."""
        share = (cpu_s - self._cpu_s) / (now_s - self._looked_s)
        self._looked_s, self._cpu_s = now_s, cpu_s
        busy = min(max((share - BUSY_FROM) / (BUSY_TO - BUSY_FROM), 0.0), 1.0)
        self.seconds = self._least_s * (1.0 + (STRETCH_MAX - 1.0) * busy)
