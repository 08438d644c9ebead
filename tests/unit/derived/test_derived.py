"""Candles and tops together, by class."""

from __future__ import annotations

import numpy as np

from ingestor.derived.derived import DerivedRows
from ingestor.derived.settings import DerivedSettings
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import LEVEL, TRADE, Kind
from tests.fakes.rows import START_NS, table_of
from tests.unit.derived.test_book_tops import event, mark
from tests.unit.derived.test_candles import trade

SECOND = 10**9
SETTINGS = DerivedSettings((SECOND,), 0, 1, SECOND, (RowClass.BOOK_TOP,))
NO_TRADES, NO_LEVELS = np.empty(0, TRADE), np.empty(0, LEVEL)


def test_each_class_has_its_rows() -> None:
    made = DerivedRows(table_of(2), [SETTINGS, DerivedSettings()].__getitem__)
    trades = np.concatenate([trade(START_NS, instrument=at) for at in (0, 1)])
    levels = [
        np.concatenate([mark(Kind.RESET, START_NS, at), event(START_NS, [(1, 5, 1)], at)])
        for at in (0, 1)
    ]
    assert not made.take(trades, np.concatenate(levels), START_NS)
    found = made.take(NO_TRADES, NO_LEVELS, START_NS + 2 * SECOND)
    assert found.keys() == {RowClass.CANDLE, RowClass.BOOK_TOP}
    assert {*found[RowClass.CANDLE]["instrument"].tolist()} == {0}
    assert found[RowClass.BOOK_TOP]["ts_recv"].tolist() == [START_NS + at * SECOND for at in (1, 2)]
    made.skip_to(START_NS + 10 * SECOND)
    found = made.take(NO_TRADES, NO_LEVELS, START_NS + 11 * SECOND)
    assert found[RowClass.BOOK_TOP]["ts_recv"].tolist() == [START_NS + 11 * SECOND]
    made.configure(lambda _: DerivedSettings())
    assert not made.take(trades, np.concatenate(levels), START_NS + 20 * SECOND)
