"""Measure how late the event loop runs its callbacks, by one timer for all connections."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ingestor.telemetry.histogram import Histogram

INTERVAL_S: Final = 0.05


class LoopLag:
    """Measures the delay of a periodic timer; `delay` is a histogram of one feed (number 0)."""

    def __init__(self) -> None:
        self.delay = Histogram()
        self.delay.grow(1)
        self.worst_ns = 0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due_ns = time.monotonic_ns() + round(INTERVAL_S * 1e9)
            await asyncio.sleep(INTERVAL_S)
            late_ns = max(time.monotonic_ns() - due_ns, 0)
            self.worst_ns = max(self.worst_ns, late_ns)
            self.delay.add_one(0, late_ns)
