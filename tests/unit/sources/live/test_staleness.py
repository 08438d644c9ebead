"""Streams simulated as Poisson processes: what trips, what must not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.timestamps import SECOND
from ingestor.sources.live.staleness import Action, Staleness, StalenessSettings, Suspect

START = 1_800_000_000 * SECOND
BUSY, QUIET, MIDDLE = 0, 1, 2


def take(
    staleness: Staleness, row_class: RowClass, instruments: Sequence[int], times: Sequence[int]
) -> None:
    """Let these streams speak, one by one, in the order of the times."""
    for time, instrument in sorted(zip(times, instruments, strict=True)):
        staleness.heard(row_class, np.array([instrument]), np.array([time]))


class Market:
    """Random arrivals, one flush and one check a second."""

    def __init__(self, rates: dict[tuple[RowClass, int], float], seed: int = 1) -> None:
        """rates: events per second of each (class, instrument); all on connection 0."""
        self.rates = dict(rates)
        self.staleness = Staleness(StalenessSettings(floor_s=5, ceiling_s=300))
        self.now = START
        self.random = np.random.default_rng(seed)
        self.suspects: list[tuple[int, Suspect]] = []
        for row_class, instrument in rates:
            self.staleness.watch(0, row_class, [instrument], self.now)

    def run(self, seconds: int, silent: Sequence[tuple[RowClass, int]] = ()) -> list[Suspect]:
        """Run on; the streams in `silent` say nothing. Return the suspects."""
        found: list[Suspect] = []
        for _ in range(seconds):
            for row_class in ROW_CLASSES:
                instruments, times = [], []
                for (one_class, instrument), rate in self.rates.items():
                    if one_class is row_class and (one_class, instrument) not in silent:
                        events = self.random.poisson(rate)
                        instruments += [instrument] * events
                        times += self.random.integers(0, SECOND, events).tolist()
                take(self.staleness, row_class, instruments, [self.now + one for one in times])
            self.now += SECOND
            news = self.staleness.check(self.now)
            self.suspects += [(self.now, one) for one in news]
            found += news
        return found


BOOK, TRADES, QUOTES = RowClass.LEVEL, RowClass.TRADE, RowClass.QUOTE
RATES = {(BOOK, BUSY): 10.0, (BOOK, MIDDLE): 0.5, (TRADES, QUIET): 1 / 120}


@pytest.mark.rows("I4")
def test_a_busy_book_trips_in_seconds_and_costs_its_neighbors_no_reconnect() -> None:
    """It is probed alone; since the others speak, their connection is sound: it is marked."""
    market = Market(RATES)
    assert market.run(300) == []
    found = market.run(14, silent=[(BOOK, BUSY)])
    assert [(suspect.instrument, suspect.action) for suspect in found] == [
        (BUSY, Action.PROBE),
        (BUSY, Action.SILENT),
    ]
    assert 5 <= found[0].silence_s <= 8
    assert market.staleness.silent() == [(BUSY, BOOK)]


@pytest.mark.rows("I4")
def test_a_halted_stream_is_looked_at_rarely_until_it_speaks() -> None:
    market = Market(RATES)
    market.run(300)
    market.run(14, silent=[(BOOK, BUSY)])
    looks = market.run(2 * 3_600, silent=[(BOOK, BUSY)])
    assert {suspect.action for suspect in looks} == {Action.LOOK}
    assert 4 <= len(looks) <= 5, "after 300 s, then after twice as long each time"
    assert market.run(60) == []
    assert market.staleness.silent() == []
    again = market.run(60, silent=[(BOOK, BUSY)])
    assert again[0].action is Action.PROBE, "the halt taught nothing"


@pytest.mark.rows("X3")
def test_a_connection_of_which_nothing_comes_is_opened_anew_once() -> None:
    market = Market(RATES)
    market.run(300)
    found = market.run(600, silent=list(RATES))
    actions = [suspect.action for suspect in found if suspect.instrument == BUSY]
    assert actions[0] is Action.PROBE
    assert actions.count(Action.RECONNECT) == 1
    assert actions.count(Action.SILENT) == 1
    assert set(actions[actions.index(Action.SILENT) + 1 :]) <= {Action.LOOK}


@pytest.mark.parametrize("is_heard_after", [False, True])
def test_a_new_revision_goes_on_with_what_was_learned(is_heard_after: bool) -> None:
    market = Market(RATES)
    market.run(300)
    new = 7
    market.staleness.replace_instruments({BUSY: new})
    assert market.staleness.limit_s(BOOK, new) < 300
    market.rates[BOOK, new] = market.rates.pop((BOOK, BUSY))
    found = market.run(60, silent=[] if is_heard_after else [(BOOK, new)])
    assert {suspect.instrument for suspect in found} == (set() if is_heard_after else {new})


def test_a_probe_that_helps_is_not_followed_by_a_reconnect() -> None:
    market = Market(RATES)
    market.run(300)
    assert [one.action for one in market.run(7, silent=[(BOOK, BUSY)])] == [Action.PROBE]
    assert market.run(120) == []


def busy_and_quiet() -> Market:
    rates = {(BOOK, n): rate for n, rate in enumerate([8.0, 2.0, 0.5, 0.1, 0.02, 0.002])}
    rates |= {(TRADES, n): rate / 5 for (_, n), rate in rates.items()}
    return Market(rates)


def test_no_false_alarm_in_an_hour_of_busy_and_quiet_streams() -> None:
    assert busy_and_quiet().run(3_600) == []


@pytest.mark.long(minutes=1)
def test_no_false_alarm_in_six_hours_of_busy_and_quiet_streams() -> None:
    assert busy_and_quiet().run(6 * 3_600) == []


def test_a_quiet_stream_is_suspected_when_its_symbol_is_lively() -> None:
    """Its quotes come as ever, but a book that changes with them has stopped."""
    market = Market({(BOOK, QUIET): 0.05, (QUOTES, QUIET): 0.05, (BOOK, BUSY): 5.0})
    assert market.run(2 * 3_600) == []
    assert market.staleness.limit_s(BOOK, QUIET) == float("inf")
    market.rates[QUOTES, QUIET] = 0.5
    found = market.run(600, silent=[(BOOK, QUIET)])
    assert found[0].instrument == QUIET
    assert found[0].action is Action.PROBE
    assert 300 <= found[0].silence_s < 302


def test_a_quiet_stream_whose_symbol_is_quiet_too_is_left_alone() -> None:
    market = Market({(BOOK, QUIET): 0.05, (QUOTES, QUIET): 0.05, (BOOK, BUSY): 5.0})
    market.run(3_600)
    assert market.run(900, silent=[(BOOK, QUIET), (QUOTES, QUIET)]) == []


def test_a_connection_that_is_silent_altogether_is_reconnected_without_a_probe() -> None:
    rates = {(BOOK, n): 4.0 for n in range(5)} | {(TRADES, 5): 0.5}
    market = Market(rates)
    market.run(300)
    found = market.run(7, silent=list(rates))
    assert {one.action for one in found} == {Action.RECONNECT}
    assert {one.instrument for one in found} == set(range(6))


def test_a_halted_symbol_takes_all_its_channels_along_and_no_connection() -> None:
    """Its neighbors are slow: that they say nothing for a while either means nothing."""
    halted = {(BOOK, 0): 2.0, (QUOTES, 0): 2.0, (TRADES, 0): 2.0}
    market = Market(halted | {(BOOK, 1): 0.05, (BOOK, 2): 0.05})
    assert market.run(600) == []
    found = market.run(20, silent=list(market.rates))
    first = {(suspect.row_class, suspect.instrument): suspect.action for suspect in found[::-1]}
    assert first == dict.fromkeys(halted, Action.PROBE)


def test_streams_that_speak_together_are_silent_together() -> None:
    """Sixty candles a minute, all at once: the pause between two is no dead connection."""
    staleness, streams = Staleness(), range(60)
    staleness.watch(0, BOOK, streams, START)
    found, now = list[Suspect](), START
    for second in range(1, 2 * 3_600 + 240):
        now += SECOND
        if not second % 60 and second < 2 * 3_600:
            staleness.heard(BOOK, np.array(streams), np.full(60, now))
        found += staleness.check(now)
    assert {suspect.action for suspect in found} == {Action.RECONNECT}
    assert sorted(suspect.instrument for suspect in found) == list(streams)
    assert {suspect.silence_s for suspect in found} == {181.0}  # three usual pauses


def test_time_paused_by_ourselves_does_not_count() -> None:
    market = Market(RATES)
    market.run(300)
    market.now += 60 * SECOND
    market.staleness.paused(60 * SECOND)
    assert market.staleness.check(market.now) == []
    assert market.run(60) == []


def test_without_the_pause_the_same_silence_is_suspicious() -> None:
    market = Market(RATES)
    market.run(300)
    market.now += 60 * SECOND
    assert market.staleness.check(market.now) != []


def test_a_number_without_streams_is_no_connection() -> None:
    staleness = Staleness(StalenessSettings(floor_s=5, ceiling_s=300))
    staleness.watch(3, BOOK, [BUSY], START)  # 0 to 2 are down, or carry nothing
    assert staleness.check(START + 60 * SECOND) == []


def test_nothing_is_expected_of_streams_that_never_spoke_or_are_not_watched() -> None:
    staleness = Staleness()
    assert staleness.check(START) == []
    staleness.watch(0, BOOK, [3], START)
    staleness.watch(0, BOOK, [], START)
    assert staleness.check(START + 3_600 * SECOND) == []
    assert staleness.limit_s(BOOK, 3) == float("inf")
    assert staleness.limit_s(BOOK, 3_000) == float("inf")
    market = Market(RATES)
    market.run(300)
    market.staleness.unwatch(0)
    assert market.run(60, silent=list(RATES)) == []
    take(market.staleness, BOOK, [BUSY], [market.now])
    assert market.staleness.check(market.now + 3_600 * SECOND) == []


@pytest.mark.parametrize("cluster", [1, 20])
def test_clusters_lengthen_the_limit(cluster: int) -> None:
    """The mean gap of clustered arrivals says nothing about the lulls between them."""
    staleness = Staleness()
    staleness.watch(0, TRADES, [0], START)
    for burst in range(100):
        at = START + burst * cluster * SECOND
        take(staleness, TRADES, [0] * cluster, [at + one * 1_000_000 for one in range(cluster)])
    assert staleness.limit_s(TRADES, 0) == pytest.approx(12.5 * cluster, rel=0.1)
