"""The clock that stamps rows."""

from __future__ import annotations

import pytest

from ingestor.model.clocks import Clocks, forward_clock


@pytest.mark.rows("D3")
def test_a_clock_that_is_set_back_crawls_until_it_has_caught_up() -> None:
    shown = [100, 105, 105, 3, 90, 107, 108, 500]
    clock = forward_clock(lambda: shown.pop(0))
    assert [clock() for _ in range(8)] == [100, 105, 106, 107, 108, 109, 110, 500]


def test_each_process_has_a_clock_of_its_own() -> None:
    first, second = Clocks(), Clocks()
    assert first.wall_ns is not second.wall_ns
    assert first.wall_ns() < first.wall_ns()


def test_the_steady_clock_in_seconds() -> None:
    assert Clocks(steady_ns=lambda: 1_500_000_000).steady_s() == 1.5
