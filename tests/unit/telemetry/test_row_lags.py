"""Lags by feed are the same with the compiled library and with numpy."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import TRADE, UPDATE, Flag, Kind, Rows
from ingestor.native import native
from ingestor.telemetry.feeds import Feeds
from ingestor.telemetry.histogram import EDGES_NS
from ingestor.telemetry.last_seen import LastSeen
from ingestor.telemetry.row_lags import RowLags, Skew, Stage

SECOND = 1_000_000_000
NOW = 1_700_000_000_000_000_000
INSTRUMENTS = 6

needs_library = pytest.mark.skipif(native().library is None, reason="no compiled library")


def some_table() -> InstrumentTable:
    return InstrumentTable(
        instrument(f"v{number // 2}", "spot", f"S{number}", f"S{number}-USD", "S", "USD", "1", "1")
        for number in range(INSTRUMENTS)
    )


@pytest.mark.rows("D3")
def test_skew_is_the_least_difference_of_a_minute() -> None:
    skew = Skew()
    feeds = np.array([0, 1, 0])
    skew.update(feeds, np.array([-5 * SECOND, 7, -4 * SECOND]), 2, 0)
    assert (skew.known(0), skew.known(1), skew.known(2)) == (-5 * SECOND, 7, None)
    for second in range(10, 80, 10):  # the old minimum leaves the window
        skew.update(np.array([0]), np.array([-3 * SECOND]), 3, second * SECOND)
    assert skew.known(0) == -3 * SECOND
    assert skew.known(1) is None


def random_rows(row_class: RowClass, dtype: np.dtype[np.void], seed: int) -> Rows:
    random = np.random.default_rng(seed)
    rows = np.zeros(int(random.integers(1, 60)), dtype)
    count = len(rows)
    rows["instrument"] = random.integers(0, INSTRUMENTS, count)
    rows["ts_recv"] = NOW + random.integers(-(10**10), 10**10, count)
    lag = random.choice(EDGES_NS, count) + random.integers(-1, 2, count)
    rows["ts_event"] = rows["ts_recv"] - lag
    rows["flags"] = random.choice([1, 0, 1, int(Flag.SNAPSHOT) | 1, int(Flag.NO_VENUE_TIME)], count)
    if dtype == UPDATE:
        rows["bids"], rows["asks"] = random.integers(0, 2, count), random.integers(0, 2, count)
    else:
        rows["kind"] = random.choice([row_class.id, row_class.id, int(Kind.GAP)], count)
    return rows


@needs_library
@pytest.mark.parametrize("row_class", list(ROW_CLASSES), ids=lambda one: one.name)
@pytest.mark.parametrize("seed", range(8))
def test_lags(row_class: RowClass, seed: int) -> None:
    table = some_table()
    both = []
    for library in (native().library, None):
        feeds, last_seen = Feeds(table), LastSeen()
        lags = RowLags(table, feeds, last_seen, library)
        lags.fit(len(feeds.all))
        counts = []
        for turn in range(3):
            is_update = row_class is RowClass.LEVEL and turn == 1
            dtype = UPDATE if is_update else row_class.dtype
            parts = [random_rows(row_class, dtype, 10 * seed + part) for part in range(turn + 1)]
            lags.sealed(row_class, [(rows, NOW + turn) for rows in parts])
            if not is_update:
                answers = [(rows, NOW + 10**9, NOW + place) for place, rows in enumerate(parts)]
                counts.append(lags.acked(row_class, answers).tolist())
        both.append(
            (
                counts,
                {stage: lags.lag[stage].counts.tolist() for stage in Stage},
                {stage: lags.lag[stage].sums_ns.tolist() for stage in Stage},
                lags.last_recv_ns.tolist(),
                lags.skew.minimum_ns.tolist(),
                [last_seen.of(row_class, number) for number in range(len(table))],
            )
        )
    assert both[0] == both[1]


@needs_library
def test_a_row_of_nobody_is_refused_by_both() -> None:
    table = some_table()
    rows = np.zeros(1, TRADE)
    rows["instrument"], rows["kind"] = len(table), Kind.TRADE
    for library in (native().library, None):
        feeds = Feeds(table)
        lags = RowLags(table, feeds, LastSeen(), library)
        lags.fit(len(feeds.all))
        with pytest.raises(IndexError):
            lags.sealed(RowClass.TRADE, [(rows, NOW)])
        with pytest.raises(IndexError):
            lags.acked(RowClass.TRADE, [(rows, NOW, NOW)])
