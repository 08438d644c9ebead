"""The linger: as asked for while there is time, longer the busier the loop is."""

from __future__ import annotations

import pytest

from ingestor.pipeline.linger import BUSY_FROM, BUSY_TO, STRETCH_MAX, Linger

LEAST_S = 0.008


def observed(*shares: float) -> Linger:
    """Return a linger that saw the loop have these shares of a core, for 0.1 s each."""
    linger, now_s, cpu_s = Linger(LEAST_S), 1_000.0, 50.0
    linger.observe(now_s, cpu_s)
    for share in shares:
        now_s, cpu_s = now_s + 0.1, cpu_s + 0.1 * share
        assert linger.is_due(now_s)
        linger.observe(now_s, cpu_s)
    return linger


@pytest.mark.parametrize("share", [0.0, 0.5, BUSY_FROM])
def test_a_loop_with_time_to_spare_lingers_as_it_was_told(share: float) -> None:
    assert Linger(LEAST_S).seconds == LEAST_S
    assert observed(share).seconds == pytest.approx(LEAST_S)


@pytest.mark.parametrize("share", [BUSY_TO, 1.0, 1.2])
def test_a_busy_loop_lingers_longer_up_to_the_bound(share: float) -> None:
    assert observed(share).seconds == pytest.approx(STRETCH_MAX * LEAST_S)


def test_the_stretch_grows_with_the_share_and_ends_with_it() -> None:
    middle = observed((BUSY_FROM + BUSY_TO) / 2).seconds
    assert middle == pytest.approx((1 + (STRETCH_MAX - 1) / 2) * LEAST_S)
    assert observed(1.0, 0.3).seconds == pytest.approx(LEAST_S)


def test_it_looks_twenty_times_a_second_at_most() -> None:
    linger = observed(0.5)
    assert not linger.is_due(1_000.1 + 0.04)
    assert linger.is_due(1_000.1 + 0.06)


def test_no_linger_stays_none() -> None:
    linger = Linger(0.0)
    linger.observe(10.0, 0.0)
    linger.observe(11.0, 1.0)
    assert linger.seconds == 0.0
