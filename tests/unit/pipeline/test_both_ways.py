"""What a flush looks at row by row is the same with the compiled library and with numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.adapter import TradeNumbers
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import TRADE, UPDATE, Flag, Kind, Rows
from ingestor.native import native
from ingestor.native.library import Native
from ingestor.pipeline import resent_rows, trade_gaps
from ingestor.pipeline.resent_rows import ResentRows
from ingestor.pipeline.trade_gaps import TradeGaps
from ingestor.telemetry.feeds import Feeds
from ingestor.telemetry.histogram import EDGES_NS
from ingestor.telemetry.last_seen import LastSeen
from ingestor.telemetry.row_lags import RowLags, Stage

WAYS = list(TradeNumbers)
NOW = 1_700_000_000_000_000_000

pytestmark = pytest.mark.skipif(native().library is None, reason="no compiled library")


def some_table() -> InstrumentTable:
    return InstrumentTable(
        instrument(f"v{way.value}", "spot", name, f"{name}-USD", name, "USD", "1", "1")
        for way in WAYS
        for name in ("A", "B")
    )


def way_of(number: int) -> TradeNumbers:
    return WAYS[number // 2]


# Of each trade: instrument, step of its number, numbers below it, flags, whether it is a GAP.
STEPS = st.tuples(
    st.integers(0, 2 * len(WAYS) - 1),
    st.sampled_from([1, 1, 1, 1, 1, 0, -1, 2, 5, 20_000_000]),
    st.sampled_from([0, 0, 0, 1, 3]),
    st.sampled_from([1, 1, 1, 1, 1, 1, int(Flag.SNAPSHOT), int(Flag.BACKFILL)]),
    st.sampled_from([False] * 19 + [True]),
)


def trades_of(steps: list[tuple[int, int, int, int, bool]], last: list[int]) -> Rows:
    """last: the highest number of each instrument; is raised."""
    rows = np.zeros(len(steps), TRADE)
    for row, (number, step, below, flags, is_gap) in zip(rows, steps, strict=True):
        spans = way_of(number) is TradeNumbers.SPANS
        sequence = max(last[number] + step + (below if spans else 0), 1)
        last[number] = max(last[number], sequence)
        row["instrument"], row["sequence"], row["flags"] = number, sequence, flags
        row["trade_id_high"] = below if spans and not is_gap else 0
        row["kind"] = Kind.GAP if is_gap else Kind.TRADE
        row["ts_event"], row["ts_recv"] = NOW + sequence, NOW + 2 * sequence
    return rows


def off() -> Native:
    return Native(None, "numpy is asked for")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=25), max_size=8))
def test_trade_numbers(flushes: list[list[tuple[int, int, int, int, bool]]]) -> None:
    table = some_table()
    compiled = TradeGaps(table, way_of), ResentRows(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trade_gaps, "native", off)
        patch.setattr(resent_rows, "native", off)
        plain = TradeGaps(table, way_of), ResentRows(table)
    last = [0] * len(table)
    for steps in flushes:
        rows = trades_of(steps, last)
        results = []
        for gaps, resent in (compiled, plain):
            kept, repeated = resent.drop(rows.copy())
            taken, unwanted = gaps.take(kept)
            results.append((taken.tolist(), repeated.tolist(), unwanted.tolist(), gaps.found()))
        assert results[0] == results[1]
    assert [gaps.lost for gaps, _ in (compiled, plain)] == [plain[0].lost] * 2
    assert compiled[0].filled == plain[0].filled


def random_rows(row_class: RowClass, dtype: np.dtype[np.void], seed: int) -> Rows:
    random = np.random.default_rng(seed)
    rows = np.zeros(int(random.integers(1, 60)), dtype)
    count = len(rows)
    rows["instrument"] = random.integers(0, 2 * len(WAYS), count)
    rows["ts_recv"] = NOW + random.integers(-(10**10), 10**10, count)
    lag = random.choice(EDGES_NS, count) + random.integers(-1, 2, count)
    rows["ts_event"] = rows["ts_recv"] - lag
    rows["flags"] = random.choice([1, 0, 1, int(Flag.SNAPSHOT) | 1, int(Flag.NO_VENUE_TIME)], count)
    if dtype == UPDATE:
        rows["bids"], rows["asks"] = random.integers(0, 2, count), random.integers(0, 2, count)
    else:
        rows["kind"] = random.choice([row_class.id, row_class.id, int(Kind.GAP)], count)
    return rows


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
