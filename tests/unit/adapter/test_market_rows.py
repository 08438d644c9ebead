"""Events of funding, liquidations and so on become rows, or cost their frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import (
    CandleState,
    ColumnBuffer,
    FundingState,
    InstrumentState,
    InterestUnit,
    OrderAction,
    OrderReason,
    Position,
    PriceKind,
    StatusScope,
    add_candle,
    add_funding,
    add_instrument_status,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    add_order,
    order_id_of,
    stated,
)
from ingestor.columns.sealed import Sealed
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import OWN_EXPONENT_MAX, RowClass
from ingestor.model.rows import ABSENT, Flag, Rows, Side
from ingestor.model.timestamps import MILLISECOND, SECOND

NOW = 1_790_000_000_000_000_000
LAST, UNTIMED = int(Flag.LAST), int(Flag.NO_VENUE_TIME)
TABLE = InstrumentTable([instrument("acme", "perp", "A", "A-USD", "A", "USD", "0.01", "0.001")])


class Connection:
    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return [0]

    def count_refused(self, reason: str) -> None:
        assert reason


def sealed(*adds: Callable[[ColumnBuffer], None]) -> Sealed:
    """Seal a frame for each of the given functions."""
    out = ColumnBuffer(TABLE)
    for add in adds:
        out.begin(Connection(), b"frame")
        add(out)
    return out.seal(TABLE)


def rows_of(row_class: RowClass, *adds: Callable[[ColumnBuffer], None]) -> Rows:
    found = sealed(*adds)
    assert not found.rejected
    return found.others[row_class].rows


def one_row(row_class: RowClass, add: Callable[[ColumnBuffer], None]) -> dict[str, int]:
    [row] = rows_of(row_class, add).tolist()
    fields = dict(zip(row_class.dtype.names or (), row, strict=True))
    assert (fields["kind"], fields["instrument"], fields["ts_recv"]) == (row_class.id, 0, NOW)
    return fields


def test_funding() -> None:
    def add(out: ColumnBuffer) -> None:
        add_funding(
            out,
            0,
            NOW,
            rate="-0.00012500",
            ts_event=NOW - 5,
            due_ns=NOW + SECOND,
            interval_ns=8 * 3_600 * SECOND,
            state=FundingState.SETTLED,
            sequence=7,
        )

    row = one_row(RowClass.FUNDING, add)
    assert (row["rate"], row["exponent"], row["state"]) == (-125, 6, FundingState.SETTLED)
    assert (row["ts_event"], row["sequence"], row["flags"]) == (NOW - 5, 7, LAST)
    assert (row["due_ns"], row["interval_ns"]) == (NOW + SECOND, 8 * 3_600 * SECOND)


def test_what_is_not_said_is_absent() -> None:
    row = one_row(RowClass.FUNDING, lambda out: add_funding(out, 0, NOW, rate="0"))
    assert (row["rate"], row["exponent"]) == (0, 0)
    assert (row["due_ns"], row["interval_ns"]) == (ABSENT, ABSENT)
    assert (row["ts_event"], row["flags"]) == (NOW, LAST | UNTIMED)


def test_mark_prices_share_the_fewest_decimals_that_hold_them_all() -> None:
    def add(out: ColumnBuffer) -> None:
        add_mark_price(out, 0, NOW, mark_price="94000.5", index_price="94001.12345600")

    row = one_row(RowClass.MARK_PRICE, add)
    assert (row["mark_price"], row["index_price"]) == (94_000_500_000, 94_001_123_456)
    assert (row["settle_price"], row["exponent"]) == (ABSENT, 6)
    with pytest.raises(ValueError, match="without any price"):
        add_mark_price(ColumnBuffer(TABLE), 0, NOW)


def test_open_interest() -> None:
    def add(out: ColumnBuffer) -> None:
        add_open_interest(out, 0, NOW, value="2216113.01000000309", unit=InterestUnit.CONTRACT)

    row = one_row(RowClass.OPEN_INTEREST, add)
    assert (row["value"], row["exponent"]) == (221_611_301_000_000_309, 11)
    assert row["unit"] == InterestUnit.CONTRACT


@pytest.mark.parametrize(
    ("position", "side"),
    [(Position.LONG, Side.ASK), (Position.SHORT, Side.BID), (Position.UNKNOWN, Side.NONE)],
)
def test_the_order_of_a_liquidation_closes_the_position(position: Position, side: Side) -> None:
    def add(out: ColumnBuffer) -> None:
        add_liquidation(
            out,
            0,
            NOW,
            position=position,
            size="1.5",
            price="93999.123",
            price_kind=PriceKind.BANKRUPTCY,
            flags=int(Flag.SAMPLE),
        )

    row = one_row(RowClass.LIQUIDATION, add)
    assert (row["side"], row["position"]) == (side, position)
    assert (row["price"], row["exponent"], row["size"]) == (93_999_123, 3, 1_500)
    assert (row["average_price"], row["price_kind"]) == (ABSENT, PriceKind.BANKRUPTCY)
    assert row["flags"] == LAST | UNTIMED | Flag.SAMPLE


def candle(out: ColumnBuffer, **more: Any) -> None:
    start = NOW - NOW % (60 * SECOND)
    options: dict[str, Any] = {
        "start_ns": start,
        "interval_ns": 60 * SECOND,
        "prices": ("1.5", "2", "1.25", "1.75"),
        "volume": "10.5",
        "ts_event": NOW,
    }
    add_candle(out, 0, NOW, **(options | more))


def test_a_candle() -> None:
    def add(out: ColumnBuffer) -> None:
        candle(out, trades=3, turnover="17.0625", buy_volume="4", state=CandleState.CLOSED)

    row = one_row(RowClass.CANDLE, add)
    assert [row[name] for name in ("open", "high", "low", "close")] == [150, 200, 125, 175]
    assert (row["volume"], row["buy_volume"]) == (10_500, 4_000)
    assert (row["turnover"], row["exponent"]) == (170_625, 4)
    assert (row["trades"], row["state"], row["origin"]) == (3, CandleState.CLOSED, 0)
    assert row["end_ns"] == row["start_ns"] + row["interval_ns"]


def test_a_status() -> None:
    def add(out: ColumnBuffer) -> None:
        add_instrument_status(
            out,
            0,
            NOW,
            state=InstrumentState.DELISTING,
            scope=StatusScope.MARKET,
            effective_ns=NOW + SECOND,
        )

    row = one_row(RowClass.INSTRUMENT_STATUS, add)
    assert (row["state"], row["scope"]) == (InstrumentState.DELISTING, StatusScope.MARKET)
    assert (row["effective_ns"], row["until_ns"]) == (NOW + SECOND, ABSENT)


def test_an_order_and_its_id() -> None:
    def add(out: ColumnBuffer) -> None:
        add_order(
            out,
            0,
            NOW,
            order_id=order_id_of("01234567-89ab-cdef-0123-456789abcdef"),
            side=Side.BID,
            action=OrderAction.REMOVE,
            reason=OrderReason.CANCELED,
            is_last=False,
        )

    row = one_row(RowClass.ORDER, add)
    ids = (row["order_id_high"], row["order_id_low"])
    assert ids == (0x0123456789ABCDEF, 0x0123456789ABCDEF)
    assert (row["price"], row["size"], row["flags"]) == (ABSENT, ABSENT, UNTIMED)
    assert (row["side"], row["action"]) == (Side.BID, OrderAction.REMOVE)
    assert row["reason"] == OrderReason.CANCELED


def test_texts_of_ids() -> None:
    assert order_id_of(str(2**128 - 1)) == 2**128 - 1
    for text in ("", str(2**128), "12a", "-1", "1-2-3-4-5", "01234567-89ab-cdef-0123-456789abcdeg"):
        with pytest.raises(ValueError, match=r"no id|invalid literal"):
            order_id_of(text)


def test_what_is_said() -> None:
    assert [stated(text) for text in ("1.50", 3, "-0.1", "1e-9")] == ["1.50", 3, "-0.1", "1e-9"]
    assert [stated(text) for text in (None, "", "0", "0.000", 0)] == [None] * 5
    hostile: tuple[object, ...] = ("x", "NaN", True, [], "9" * 20, "1e-31")
    for text in hostile:
        with pytest.raises(ValueError, match=r"no decimal number|int64|decimals"):
            stated(text)


HOSTILE: dict[str, Callable[[ColumnBuffer], None]] = {
    "no number": lambda out: add_funding(out, 0, NOW, rate="nothing"),
    "a number that must not be absent": lambda out: add_funding(out, 0, NOW, rate=None),
    "an array": lambda out: add_funding(out, 0, NOW, rate=["1"]),  # type: ignore[arg-type]
    "NaN": lambda out: add_funding(out, 0, NOW, rate="NaN"),
    "too many decimals": lambda out: add_funding(out, 0, NOW, rate=f"1e-{OWN_EXPONENT_MAX + 1}"),
    "more digits than int64": lambda out: add_mark_price(
        out, 0, NOW, mark_price="1939251795.54769270396321"
    ),
    "together more digits than int64": lambda out: add_mark_price(
        out, 0, NOW, mark_price="100000000000", index_price="0.000000000001"
    ),
    "a due time of another unit": lambda out: add_funding(
        out, 0, NOW, rate="1", due_ns=NOW // MILLISECOND
    ),
    "a venue's time of another unit": lambda out: add_funding(
        out, 0, NOW, rate="1", ts_event=NOW // MILLISECOND
    ),
    "a negative number": lambda out: add_funding(out, 0, NOW, rate="1", sequence=-1),
    "a size below 0": lambda out: add_liquidation(
        out, 0, NOW, position=Position.LONG, size="-1", price="1"
    ),
    "a size finer than the instrument": lambda out: add_liquidation(
        out, 0, NOW, position=Position.LONG, size="0.0001", price="1"
    ),
    "a price of 0": lambda out: candle(out, prices=("0", "1", "1", "1")),
    "a price that is absent": lambda out: candle(out, prices=(None, "1", "1", "1")),
    "trades that are text": lambda out: candle(out, trades="3"),
    "an id beyond 128 bits": lambda out: add_order(
        out, 0, NOW, order_id=2**128, side=Side.BID, action=OrderAction.ADD
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_event_costs_its_frame_alone(what: str) -> None:
    def good(out: ColumnBuffer) -> None:
        add_funding(out, 0, NOW, rate="0.0001")
        candle(out)

    found = sealed(good, HOSTILE[what], good)
    assert len(found.rejected) == 1
    assert not found.bugs
    assert len(found.others[RowClass.FUNDING].rows) == 2
    assert len(found.others[RowClass.CANDLE].rows) == 2
    assert {tuple(hole.instruments or ()) for hole in found.holes} == {(0,)}


decimals = st.decimals(-(10**6), 10**6, allow_nan=False, places=9).map(lambda one: f"{one:f}")


@given(st.lists(st.tuples(decimals, decimals | st.none()), min_size=1, max_size=60))
def test_numbers_equal_their_texts(prices: list[tuple[str, str | None]]) -> None:
    """A few rows are converted one by one, many as columns."""
    found = rows_of(
        RowClass.MARK_PRICE,
        *(
            lambda out, mark=mark, index=index: add_mark_price(
                out, 0, NOW, mark_price=mark, index_price=index
            )
            for mark, index in prices
        ),
    )
    assert np.array_equal(found["settle_price"], np.full(len(prices), ABSENT))
    for row, (mark, index) in zip(found, prices, strict=True):
        unit = Decimal(1).scaleb(-int(row["exponent"]))
        assert int(row["mark_price"]) * unit == Decimal(mark)
        if index is None:
            assert row["index_price"] == ABSENT
        else:
            assert int(row["index_price"]) * unit == Decimal(index)
