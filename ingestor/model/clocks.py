"""The clocks that durations are measured by: one object, so that a test can bring its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SECOND: Final = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks of one process, beside the wall clock (`time.time_ns`) that rows are stamped with.

    steady_ns: ns of a clock that is never set. cpu_s: what the calling thread had of the processor.
    """

    steady_ns: Callable[[], int] = time.monotonic_ns
    cpu_s: Callable[[], float] = time.thread_time

    def steady_s(self) -> float:
        """Return `steady_ns` in seconds."""
        return self.steady_ns() / _SECOND
