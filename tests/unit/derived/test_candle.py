"""The parts of a candle: sums of trades, turnover, and holes."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.derived.candle import CandleStream, Trades, Turnover, gap_row, turnover_of
from ingestor.model.instruments import Instrument, SizeUnit
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import CANDLE, Cause, Kind, Side


def made(settlement: str, unit: SizeUnit, multiplier: str = "1") -> Instrument:
    names = ("a", "m", "S", "S", "B", "USDT")
    return Instrument(
        *names, "0.1", "1", 1, 0, settlement=settlement, size_unit=unit, multiplier=multiplier
    )


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (made("", SizeUnit.BASE), Turnover(1, 1)),
        (made("USDT", SizeUnit.BASE), Turnover(1, 1)),
        (made("USDT", SizeUnit.CONTRACT, "0.025"), Turnover(25, 4)),
        (made("USDT", SizeUnit.CONTRACT, "100"), Turnover(100, 1)),
        (made("B", SizeUnit.CONTRACT, "100"), None),  # inverse: a division
        (made("", SizeUnit.QUOTE), None),
    ],
)
def test_turnover(one: Instrument, expected: Turnover | None) -> None:
    assert turnover_of(one) == expected


def test_trades_are_ordered_by_the_venues_time_and_then_as_they_came() -> None:
    total = Trades.of_one(5, 10, 1, Side.BID)
    for ts_event, price, side in ((5, 11, Side.ASK), (4, 12, Side.NONE), (5, 13, Side.ASK)):
        total.add(Trades.of_one(ts_event, price, 2, side))
    assert (total.open, total.high, total.low, total.close) == (12, 13, 10, 13)
    assert (total.volume, total.buy_volume, total.unknown, total.count) == (7, 1, 1, 4)
    assert total.value == 10 + 22 + 24 + 26


def test_holes_end_with_the_next_trade() -> None:
    stream = CandleStream(0, (10,), 0, None)
    assert stream.is_in_hole(0, 10)  # nobody saw what was before the first trade
    stream.close_hole(25)
    assert stream.is_in_hole(20, 30)
    assert not stream.is_in_hole(30, 40)
    stream.newest_ns = 35
    stream.open_hole()
    stream.open_hole()  # it is open
    assert len(stream.holes) == 2
    assert stream.is_in_hole(30, 40)
    assert stream.is_in_hole(10**6, 10**7)
    assert not stream.is_in_hole(26, 35)
    stream.close_hole(52)
    assert not stream.has_open_hole
    assert [stream.is_in_hole(at, at + 10) for at in (30, 40, 50, 60)] == [True, True, True, False]


def test_a_gap_among_candles() -> None:
    row = np.frombuffer(gap_row(3, 99, Cause.LATE, 5, 8), CANDLE).view(RowClass.CANDLE.control)[0]
    names = ("instrument", "ts_recv", "kind", "cause", "first", "last")
    assert [int(row[name]) for name in names] == [3, 99, Kind.GAP, Cause.LATE, 5, 8]
