"""Numbers that go on are found alike by the compiled library and by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.adapter import TradeNumbers
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.rows import TRADE, Flag, Kind, Rows
from ingestor.native import native
from ingestor.native.library import Native
from ingestor.pipeline import resent_rows, trade_gaps
from ingestor.pipeline.resent_rows import ResentRows
from ingestor.pipeline.trade_gaps import TradeGaps

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
