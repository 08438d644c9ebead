"""Steps of the wall clock: rows it stamped are known again, and durations don't notice."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.sinks.kafka.clock_steps import ClockSteps

SECOND = 1_000_000_000
EPOCH = 1_700_000_000 * SECOND


class Clocks:
    def __init__(self) -> None:
        self.monotonic_ns = 5 * SECOND
        self.ahead_ns = EPOCH
        self.steps = ClockSteps(self.wall, lambda: self.monotonic_ns)

    def wall(self) -> int:
        return self.monotonic_ns + self.ahead_ns

    def explains(self, *times_ns: int) -> bool:
        return self.steps.explains(np.array(times_ns))


@pytest.mark.rows("I8")
@pytest.mark.parametrize("step_s", [-600, 3_600, 7_200, -86_400])
def test_rows_of_a_clock_that_stepped_are_known(step_s: int) -> None:
    clocks = Clocks()
    before = clocks.wall()
    clocks.monotonic_ns += 100 * SECOND
    clocks.ahead_ns += step_s * SECOND
    assert clocks.steps.look() == step_s * SECOND
    meanwhile = clocks.wall()
    clocks.monotonic_ns += 100 * SECOND
    clocks.ahead_ns = EPOCH
    assert clocks.steps.look() == -step_s * SECOND
    after = clocks.wall()
    assert clocks.explains(before, meanwhile, after)


def test_a_time_that_no_clock_showed_is_not_explained() -> None:
    clocks = Clocks()
    clocks.monotonic_ns += 1_000 * SECOND
    now = clocks.wall()
    assert not clocks.explains(now, now + 86_400 * SECOND)
    assert not clocks.explains(now + 60 * SECOND)
    assert not clocks.explains(now - 86_400 * SECOND)


def test_slewing_is_no_step() -> None:
    clocks = Clocks()
    for _ in range(100):
        clocks.monotonic_ns += SECOND
        clocks.ahead_ns += SECOND // 2
        assert clocks.steps.look() == 0
    assert clocks.explains(clocks.wall())
