"""Candles against a direct computation with Decimal, whatever the flushes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from ingestor.derived.candles import Candles
from ingestor.derived.settings import DerivedSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, SizeUnit, instrument
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.row_values import CandleState, Origin
from ingestor.model.rows import ABSENT, TRADE, Cause, Flag, Kind, Rows, Side
from tests.fakes.rows import START_NS, table_of
from tests.reference.derived import DirectCandle, RowsOf, candle_of, direct_candles

SECOND = 10**9
WAIT_NS = 2 * SECOND
INTERVALS_NS = (SECOND, 7 * SECOND, 60 * SECOND)
BASE_NS = START_NS - START_NS % (420 * SECOND)


def settings_of(number: int) -> DerivedSettings:
    return DerivedSettings(INTERVALS_NS if number % 3 else INTERVALS_NS[:2], WAIT_NS)


def trade(ts_event: int, ts_recv: int | None = None, **fields: int) -> Rows:
    row = np.zeros(1, TRADE)
    row["ts_event"], row["ts_recv"] = ts_event, ts_event if ts_recv is None else ts_recv
    row["kind"], row["price"], row["size"], row["flags"] = Kind.TRADE, 100, 5, Flag.LAST
    for name, value in fields.items():
        row[name] = value
    return row


def gap(ts_recv: int, cause: Cause = Cause.DISCONNECT, number: int = 0) -> Rows:
    return control_row(RowClass.TRADE, Kind.GAP, number, ts_recv, cause=cause, first=3, last=9)


def stream(seed: int, count: int, instruments: int) -> Rows:
    """Trades in order of receipt, with all that may be odd about them."""
    random_of = random.Random(seed)
    ts_recv, parts = BASE_NS, []
    for number in range(1, count + 1):
        ts_recv += random_of.choice((0, 1, 10**6, 10**8, 3 * 10**8))
        which = random_of.randrange(instruments)
        if random_of.random() < 0.01:
            cause = random_of.choice((Cause.DISCONNECT, Cause.SEQUENCE, Cause.UNFILLED))
            parts.append(gap(ts_recv, cause, which))
            continue
        behind = random_of.choice((0, 0, 0, 10**6, 10**9, 4 * 10**9, 100 * 10**9))
        flags = int(Flag.LAST)
        if random_of.random() < 0.05:
            flags |= random_of.choice((Flag.BLOCK, Flag.BACKFILL, Flag.LIQUIDATION))
        sides = (Side.BID, Side.ASK) if which else (*Side,)
        parts.append(
            trade(
                ts_recv - behind,
                ts_recv,
                instrument=which,
                price=random_of.randrange(1, 10**7),
                size=random_of.randrange(1, 10 ** random_of.choice((2, 2, 2, 2, 9, 17))),
                side=random_of.choice(sides),
                flags=flags,
                sequence=number,
            )
        )
    return np.concatenate(parts)


def flushed(candles: Candles, rows: Rows, sizes: Iterable[int], end_ns: int) -> Rows:
    """Return what comes of rows in flushes of these sizes, again and again."""
    out, at = [], 0
    while at < len(rows):
        for size in sizes:
            some = rows[at : at + size]
            at += size
            if len(some):
                out.append(candles.take(some, int(some["ts_recv"][-1])))
    out.append(candles.take(rows[:0], end_ns))
    return np.concatenate(out)


def not_int64(candle: DirectCandle) -> bool:
    return candle.volume.scaleb(8) > 2**63  # no instrument has more decimals


def by_instrument(rows: Rows) -> dict[int, list[bytes]]:
    return {
        number: [row.tobytes() for row in rows[rows["instrument"] == number]]
        for number in np.unique(rows["instrument"]).tolist()
    }


@pytest.mark.parametrize("seed", range(3))
def test_candles_are_those_of_a_direct_computation(seed: int) -> None:
    table, rows = table_of(5), stream(seed, 900, 5)
    end_ns = int(rows["ts_recv"][-1]) + 30 * SECOND
    found = flushed(Candles(table, settings_of), rows, (1, 40, 7), end_ns)
    batch = RowsOf(RowClass.TRADE, [TickBatch(RowClass.TRADE, rows, table)])
    by_key = batch.by_key()
    compared = 0
    for number in range(5):
        trades, exponents = by_key[table[number].key]
        own = found[(found["instrument"] == number) & (found["kind"] == RowClass.CANDLE.id)]
        for interval_ns in settings_of(number).candle_intervals_ns:
            expected = direct_candles(trades, exponents, interval_ns, WAIT_NS, end_ns)
            of_interval = own[own["interval_ns"] == interval_ns]
            last = {int(row["start_ns"]): row for row in of_interval}
            lost = {start for start in expected.keys() - last.keys() if not_int64(expected[start])}
            assert last.keys() == expected.keys() - lost
            for start_ns, row in last.items():
                if row["turnover"] == ABSENT:
                    turnover = expected[start_ns].turnover
                    assert turnover is not None
                    assert turnover.scaleb(16) > 2**63
                    continue
                assert candle_of(row, exponents) == expected[start_ns]
                compared += 1
            in_time = direct_candles(
                trades, exponents, interval_ns, WAIT_NS, end_ns, in_time_alone=True
            )
            first = {int(row["start_ns"]): row for row in of_interval[::-1]}
            for start_ns, candle in in_time.items():
                if not_int64(candle):
                    continue
                row = first[start_ns]
                assert row["ts_recv"] == start_ns + interval_ns + WAIT_NS
                assert row["trades"] == candle.trades
    assert compared > 100


def test_flushes_do_not_matter() -> None:
    table, rows = table_of(5), stream(11, 600, 5)
    end_ns = int(rows["ts_recv"][-1]) + 30 * SECOND
    found = [
        by_instrument(flushed(Candles(table, settings_of), rows, sizes, end_ns))
        for sizes in ((1,), (3, 100), (10_000,))
    ]
    assert found[0] == found[1] == found[2]


def test_a_plain_candle() -> None:
    table = table_of(1)
    candles = Candles(table, lambda _: DerivedSettings((SECOND,), WAIT_NS))
    candles.take(trade(BASE_NS - 5 * SECOND), BASE_NS)  # ends the hole before the first trade
    rows = np.concatenate(
        [
            trade(BASE_NS + 2, price=7, size=1, side=Side.BID),
            trade(BASE_NS + 1, BASE_NS + 3, price=5, size=2, side=Side.ASK),
            trade(BASE_NS + SECOND - 1, price=6, size=4, side=Side.BID),
            trade(BASE_NS + SECOND, price=9),  # of the next one
        ]
    )
    assert not (candles.take(rows, BASE_NS + 2 * SECOND)["start_ns"] == BASE_NS).any()
    [row] = candles.take(rows[:0], BASE_NS + 3 * SECOND + 1)
    names = ("open", "high", "low", "close", "volume", "buy_volume", "trades", "turnover")
    assert [int(row[name]) for name in names] == [5, 7, 5, 6, 7, 5, 3, 41]
    assert (row["start_ns"], row["end_ns"]) == (BASE_NS, BASE_NS + SECOND)
    assert row["ts_recv"] == row["ts_event"] == BASE_NS + SECOND + WAIT_NS
    assert row["flags"] == Flag.LAST | Flag.NO_VENUE_TIME
    assert (row["state"], row["origin"]) == (CandleState.CLOSED, Origin.TRADES)


def test_a_late_trade_has_its_candle_published_again() -> None:
    candles = Candles(table_of(1), lambda _: DerivedSettings((SECOND,), WAIT_NS))
    candles.take(trade(BASE_NS - SECOND), BASE_NS)
    rows = trade(BASE_NS, price=7)
    before = candles.take(rows, BASE_NS + 4 * SECOND)[-1:]
    late_ns = BASE_NS + 5 * SECOND
    after = candles.take(trade(BASE_NS + 9, late_ns, price=8), late_ns + 1)
    assert before[["close", "trades"]].tolist() == [(7, 1)]
    assert after[["close", "trades", "ts_recv"]].tolist() == [(8, 2, late_ns)]
    assert not after["flags"] & Flag.PARTIAL


def test_a_trade_that_is_too_late_is_declared() -> None:
    candles = Candles(table_of(1), lambda _: DerivedSettings((SECOND,), WAIT_NS))
    candles.take(trade(BASE_NS - SECOND), BASE_NS)
    late_ns = BASE_NS + 90 * SECOND
    rows = np.concatenate(
        [trade(BASE_NS + at, late_ns, sequence=at, flags=Flag.BACKFILL) for at in (4, 5)]
    )
    mark = candles.take(rows, late_ns + 1)[-1:].view(RowClass.CANDLE.control)
    assert mark[["kind", "cause", "first", "last"]].tolist() == [(Kind.GAP, Cause.LATE, 4, 5)]


def test_a_hole_marks_the_candles_that_it_may_have_cost() -> None:
    """The connection ends in the second candle, and nothing comes until the fourth."""
    candles = Candles(table_of(1), lambda _: DerivedSettings((SECOND,), WAIT_NS))
    rows = np.concatenate(
        [
            trade(BASE_NS - SECOND),
            trade(BASE_NS),
            trade(BASE_NS + SECOND),
            gap(BASE_NS + SECOND + 5),
            trade(BASE_NS + 3 * SECOND + 7),
            trade(BASE_NS + 4 * SECOND),
        ]
    )
    found = candles.take(rows, BASE_NS + 10 * SECOND)
    marks = found[found["kind"] == Kind.GAP].view(RowClass.CANDLE.control)
    assert marks[["cause", "first", "last"]].tolist() == [(Cause.DISCONNECT, 3, 9)]
    own = found[found["kind"] != Kind.GAP]
    partial = {int(row["start_ns"] - BASE_NS) // SECOND: bool(row["flags"] & 8) for row in own}
    assert partial == {-1: True, 0: False, 1: True, 3: True, 4: False}


def test_a_hole_that_is_found_late_marks_a_closed_candle() -> None:
    candles = Candles(table_of(1), lambda _: DerivedSettings((SECOND,), WAIT_NS))
    candles.take(np.concatenate([trade(BASE_NS - SECOND), trade(BASE_NS)]), BASE_NS)
    [first, second] = candles.take(trade(BASE_NS)[:0], BASE_NS + 9 * SECOND)
    assert (first["flags"] & Flag.PARTIAL, second["flags"] & Flag.PARTIAL) == (Flag.PARTIAL, 0)
    found = candles.take(gap(BASE_NS + 20 * SECOND), BASE_NS + 21 * SECOND)
    [again] = found[found["kind"] != Kind.GAP]
    assert (again["start_ns"], again["flags"] & Flag.PARTIAL) == (BASE_NS, Flag.PARTIAL)


def test_sums_are_exact_beyond_int64() -> None:
    one = instrument("acme", "spot", "A", "A-USD", "A", "USD", "1e-6", "1e-18")
    candles = Candles(InstrumentTable([one]), lambda _: DerivedSettings((SECOND,), WAIT_NS))
    candles.take(trade(BASE_NS - SECOND, price=1, size=1), BASE_NS)
    big = trade(BASE_NS, price=10**6, size=9 * 10**18, side=Side.BID)
    big = np.concatenate([big, big])
    mark = candles.take(big, BASE_NS + 9 * SECOND)[-1:].view(RowClass.CANDLE.control)
    assert mark[["kind", "cause"]].tolist() == [(Kind.GAP, Cause.REJECTED)]  # int64 has no 18e18
    half = trade(BASE_NS + 20 * SECOND, price=10**18, size=4 * 10**18, side=Side.BID)
    found = candles.take(np.concatenate([half, half]), BASE_NS + 30 * SECOND)[-1]
    assert found["volume"] == found["buy_volume"] == 8 * 10**18
    assert (found["turnover"], found["exponent"]) == (8 * 10**12, 0)


def test_turnover_counts_the_contract() -> None:
    linear = replace(
        instrument("a", "m", "L", "L", "L", "USDT", "0.1", "1"),
        settlement="USDT",
        size_unit=SizeUnit.CONTRACT,
        multiplier="0.001",
    )
    table = InstrumentTable([linear, replace(linear, symbol="I", settlement="L")])
    candles = Candles(table, lambda _: DerivedSettings((SECOND,), WAIT_NS))
    rows = np.concatenate([trade(BASE_NS, price=123, size=3, instrument=at) for at in (0, 1)])
    first, inverse = candles.take(rows, BASE_NS + 9 * SECOND)
    turnover = Decimal(int(first["turnover"])).scaleb(-int(first["exponent"]))
    assert turnover == Decimal("12.3") * 3 * Decimal("0.001")
    assert inverse["turnover"] == ABSENT


def test_a_finer_revision_goes_on() -> None:
    table = InstrumentTable([instrument("a", "m", "A", "A", "A", "USD", "0.1", "1")])
    candles = Candles(table, lambda _: DerivedSettings((SECOND,), WAIT_NS))
    candles.take(trade(BASE_NS, price=11, size=2, side=Side.BID), BASE_NS)
    new = table.add(instrument("a", "m", "A", "A", "A", "USD", "0.01", "0.1"))
    candles.replace_instruments({0: new})
    row = trade(BASE_NS + 1, price=125, size=5, instrument=new, side=Side.ASK)
    [found] = candles.take(row, BASE_NS + 9 * SECOND)
    names = ("instrument", "open", "close", "volume", "buy_volume")
    assert [int(found[name]) for name in names] == [new, 110, 125, 25, 20]
    turnover = Decimal(int(found["turnover"])).scaleb(-int(found["exponent"]))
    assert turnover == Decimal("1.1") * 2 + Decimal("1.25") * Decimal("0.5")


def test_a_coarser_revision_begins_anew() -> None:
    table = InstrumentTable([instrument("a", "m", "A", "A", "A", "USD", "0.01", "1")])
    candles = Candles(table, lambda _: DerivedSettings((SECOND,), WAIT_NS))
    rows = np.concatenate([trade(BASE_NS - SECOND), trade(BASE_NS, price=11)])
    candles.take(rows, BASE_NS)
    new = table.add(instrument("a", "m", "A", "A", "A", "USD", "0.1", "1"))
    candles.replace_instruments({0: new})
    row = trade(BASE_NS + 1, price=2, instrument=new)
    [found] = candles.take(row, BASE_NS + 9 * SECOND)
    assert (found["open"], found["trades"]) == (2, 1)
    assert found["flags"] & Flag.PARTIAL


def test_other_settings_end_what_was_begun() -> None:
    table = table_of(2)
    candles = Candles(table, lambda _: DerivedSettings((SECOND,), WAIT_NS))
    rows = np.concatenate([trade(BASE_NS, instrument=at) for at in (0, 1)])
    candles.take(rows, BASE_NS)
    longer = {0: (SECOND,), 1: (2 * SECOND,)}
    candles.configure(lambda number: DerivedSettings(longer[number], WAIT_NS))
    [found] = candles.take(rows[:0], BASE_NS + 9 * SECOND)
    assert (found["instrument"], found["interval_ns"]) == (0, SECOND)
    candles.configure(lambda _: DerivedSettings())
    assert not len(candles.take(rows, BASE_NS + 99 * SECOND))
