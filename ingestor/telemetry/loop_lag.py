"""Measure how late the event loop runs its callbacks, and how busy its thread is, by one timer."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ingestor.telemetry.histogram import Histogram

INTERVAL_S: Final = 0.05
BUSY_WINDOW_S: Final = 10.0


class LoopLag:
    """Measures the delay of a periodic timer; `delay` is a histogram of one feed (number 0).

    busy_ratio: CPU time of the loop's thread in the last whole window, as part of that time.
    """

    def __init__(self) -> None:
        self.delay = Histogram()
        self.delay.grow(1)
        self.worst_ns = 0
        self.busy_ratio = 0.0

    async def run(self) -> None:
        """Measure until cancelled, on the loop's thread."""
        began_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        while True:
            due_ns = time.monotonic_ns() + round(INTERVAL_S * 1e9)
            await asyncio.sleep(INTERVAL_S)
            late_ns = max(time.monotonic_ns() - due_ns, 0)
            self.worst_ns = max(self.worst_ns, late_ns)
            self.delay.add_one(0, late_ns)
            window_ns = time.monotonic_ns() - began_ns
            if window_ns >= BUSY_WINDOW_S * 1e9:
                used_ns = time.thread_time_ns() - cpu_ns
                self.busy_ratio = min(1.0, used_ns / window_ns)
                began_ns, cpu_ns = began_ns + window_ns, cpu_ns + used_ns
