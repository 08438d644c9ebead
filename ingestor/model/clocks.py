"""The clocks of a process: one object, so that a test can bring its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_SECOND: Final = 1_000_000_000  # ns


def forward_clock(clock_ns: Callable[[], int] = time.time_ns) -> Callable[[], int]:
    """Return a wall clock that never shows a time twice, and none before one that it showed.

    When the clock of the machine is set back, this one crawls until the other has caught up.

    clock_ns: ns since the epoch.
    """
    last_ns = 0

    def now_ns() -> int:
        nonlocal last_ns
        now = clock_ns()
        last_ns = now if now > last_ns else last_ns + 1
        return last_ns

    return now_ns


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks of one process.

    steady_ns: ns of a clock that is never set. cpu_s: what the calling thread had of the processor.
    wall_ns: ns since the epoch; rows are stamped with it, and never go back within a session.
    """

    steady_ns: Callable[[], int] = time.monotonic_ns
    cpu_s: Callable[[], float] = time.thread_time
    wall_ns: Callable[[], int] = field(default_factory=forward_clock)

    def steady_s(self) -> float:
        """Return `steady_ns` in seconds."""
        return self.steady_ns() / _SECOND
