"""The linger: hardly any while there is time, longer the busier the loop is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingestor.pipeline.linger import BUSY_FROM, BUSY_TO, TICK_S, Linger

LEAST_S, MOST_S = 0.0005, 0.032
SETTLED = 40  # looks


def observed(linger: Linger, share: float | Callable[[float], float], looks: int) -> Linger:
    """Let a linger see the loop have a share of a core, 0.1 s each; return it.

    share: a number, or what the share is with the linger as it stands.
    """
    now_s, cpu_s = 1_000.0, 50.0
    linger.observe(now_s, cpu_s)
    for _ in range(looks):
        now_s += 0.1
        cpu_s += 0.1 * (share if isinstance(share, float) else share(linger.seconds))
        assert linger.is_due(now_s)
        linger.observe(now_s, cpu_s)
    return linger


@pytest.mark.parametrize("share", [0.0, 0.2, BUSY_FROM])
def test_with_time_to_spare_rows_wait_for_the_turn_of_the_loop(share: float) -> None:
    assert Linger(LEAST_S, MOST_S).seconds < TICK_S
    assert observed(Linger(LEAST_S, MOST_S), share, SETTLED).seconds < TICK_S


@pytest.mark.parametrize("share", [BUSY_TO, 1.0, 1.2])
def test_a_busy_loop_lingers_up_to_the_bound(share: float) -> None:
    linger = observed(Linger(LEAST_S, MOST_S), share, SETTLED)
    assert MOST_S - TICK_S <= linger.seconds <= MOST_S


def test_the_wait_grows_with_the_share_by_factors() -> None:
    waits_s = [
        observed(Linger(0.001, 0.1), share, SETTLED).seconds for share in (0.3, 0.425, 0.55, 0.8)
    ]
    assert waits_s == pytest.approx([0.001, 0.003, 0.010, 0.1], abs=1.1 * TICK_S)
    assert waits_s == sorted(waits_s)


def test_it_comes_back_when_the_load_goes() -> None:
    linger = observed(Linger(LEAST_S, MOST_S), 1.0, SETTLED)
    assert observed(linger, 0.1, SETTLED).seconds < TICK_S


def test_one_busy_moment_changes_little() -> None:
    assert observed(Linger(LEAST_S, MOST_S), 1.0, 1).seconds <= 0.002


@pytest.mark.parametrize("flush_s", [0.0003, 0.001, 0.002])
@pytest.mark.parametrize("reading", [0.05, 0.3, 0.6])
def test_it_settles_although_flushing_less_makes_the_loop_less_busy(
    flush_s: float, reading: float
) -> None:
    """The loop has `reading` of a core without flushes, and each flush costs `flush_s`."""

    def share(linger_s: float) -> float:
        return min(reading + flush_s / max(linger_s, TICK_S), 1.0)

    linger = observed(Linger(LEAST_S, MOST_S), share, SETTLED)
    seen_s = {round(observed(linger, share, looks).seconds, 4) for looks in range(1, 12)}
    assert max(seen_s) - min(seen_s) <= max(2 * TICK_S, 0.3 * max(seen_s)), seen_s
    assert share(max(seen_s)) < 0.95, "flushes leave the loop time to read"


def test_rows_wait_as_long_again_as_flushes_come_late_within_the_bound() -> None:
    linger = Linger(LEAST_S, MOST_S)
    for _ in range(100):
        linger.ended(0.0102)
    assert observed(linger, 0.1, SETTLED).seconds == pytest.approx(0.010)
    for _ in range(100):
        linger.ended(5.0)
    assert observed(linger, 0.1, 1).seconds == pytest.approx(MOST_S, abs=TICK_S)
    for _ in range(200):
        linger.ended(0.0)
    assert observed(linger, 0.1, SETTLED).seconds < TICK_S


def test_one_late_flush_changes_little() -> None:
    linger = Linger(LEAST_S, MOST_S)
    linger.ended(0.015)
    assert observed(linger, 0.1, 1).seconds <= 0.002


def test_it_looks_twenty_times_a_second_at_most() -> None:
    linger = observed(Linger(LEAST_S, MOST_S), 0.5, 1)
    assert not linger.is_due(1_000.1 + 0.04)
    assert linger.is_due(1_000.1 + 0.06)


@pytest.mark.parametrize(("least_s", "most_s"), [(0.0, 0.0), (0.02, 0.02), (0.05, 0.02)])
def test_least_and_most_the_same_is_a_fixed_wait(least_s: float, most_s: float) -> None:
    linger = Linger(least_s, most_s)
    assert linger.seconds == most_s
    assert observed(linger, 1.0, SETTLED).seconds == most_s


def test_from_nothing_it_can_grow() -> None:
    linger = observed(Linger(0.0, MOST_S), 1.0, SETTLED)
    assert MOST_S - TICK_S <= linger.seconds <= MOST_S
