from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.backoff import Backoff


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_full_jitter_within_the_capped_window(attempt: int, draw: float) -> None:
    backoff = Backoff(base_s=0.5, cap_s=60)
    delay_s = backoff.delay_s(attempt, lambda: draw)
    assert math.isclose(delay_s, min(60.0, 0.5 * 2 ** min(attempt, 40)) * draw)


def test_the_window_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base_s=1, cap_s=5)
    assert [backoff.delay_s(attempt, lambda: 0.5) for attempt in range(5)] == [0.5, 1, 2, 2.5, 2.5]


def test_floor_and_retry_after() -> None:
    backoff = Backoff(base_s=1, cap_s=5, floor_s=0.2, retry_after_cap_s=100)
    assert backoff.delay_s(0, lambda: 0.0) == 0.2
    assert backoff.delay_s(0, lambda: 0.5, retry_after_s=30) == 30.5
    assert backoff.delay_s(0, lambda: 0.5, retry_after_s=1e9) == 100.5
    assert backoff.delay_s(0, lambda: 0.5, retry_after_s=-5) == 0.5
