"""Append the rows of funding, mark prices, open interest, liquidations, candles, status and orders.

Each function keeps one event for the shared reader of its class, which checks times and integers
when the buffer is sealed. Numbers are decimal text, as the venue wrote them. None stands for what
the venue doesn't say, where the class lets a field be absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealing import ColumnReader, set_column
from ingestor.model.decimals import decimals_in, parse_decimal
from ingestor.model.row_classes import OWN_EXPONENT_MAX, RowClass
from ingestor.model.row_values import (
    CandleState,
    FundingState,
    InstrumentState,
    InterestUnit,
    OrderAction,
    OrderReason,
    Origin,
    Position,
    PriceKind,
    StatusScope,
)
from ingestor.model.rows import ABSENT, Flag, Rows, Side
from ingestor.model.timestamps import TIME_MAX, TIME_MIN

Number = str | int | float | None
"""Decimal text, or a bare number that the parser left as it is; None where it is absent."""

_LAST: Final = int(Flag.LAST)
_UNTIMED: Final = int(Flag.NO_VENUE_TIME)
_TIMES: Final = frozenset({"due_ns", "start_ns", "end_ns", "effective_ns", "until_ns"})
_HALF: Final = 64
_LOW: Final = 2**64 - 1
_DIGITS_MAX: Final = 39  # of 128 bits
_DASHES: Final = "-"


def add_funding(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    rate: Number,
    ts_event: int | None = None,
    due_ns: int | None = None,
    interval_ns: int | None = None,
    state: FundingState = FundingState.PREDICTED,
    sequence: int = 0,
    flags: int = 0,
) -> None:
    """Append one funding rate.

    Args:
        out: takes it.
        instrument: its number.
        ts_recv: ns.
        rate: of a position's value, for one interval.
        ts_event: ns; None where the venue gives none.
        due_ns: when the rate is or was exchanged.
        interval_ns: between two exchanges.
        state: whether the rate may still change.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME.
    """
    fields = (due_ns, interval_ns, state)
    _add(
        out, RowClass.FUNDING, instrument, ts_recv, (ts_event, sequence, 0, flags), fields, (rate,)
    )


def add_mark_price(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    mark_price: Number = None,
    index_price: Number = None,
    settle_price: Number = None,
    ts_event: int | None = None,
    sequence: int = 0,
    flags: int = 0,
) -> None:
    """Append mark, index and estimated settlement price, of which one is not None.

    Args:
        out: takes them.
        instrument: its number.
        ts_recv: ns.
        mark_price: decimal text.
        index_price: decimal text.
        settle_price: decimal text.
        ts_event: ns; None where the venue gives none.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME.

    Raises:
        ValueError: all prices are None.
    """
    prices = (mark_price, index_price, settle_price)
    if prices == (None, None, None):
        raise ValueError("a mark price without any price")
    _add(out, RowClass.MARK_PRICE, instrument, ts_recv, (ts_event, sequence, 0, flags), (), prices)


def add_open_interest(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    value: Number,
    unit: InterestUnit,
    ts_event: int | None = None,
    sequence: int = 0,
    flags: int = 0,
) -> None:
    """Append the open interest in one unit.

    Args:
        out: takes it.
        instrument: its number.
        ts_recv: ns.
        value: decimal text.
        unit: what it is counted in.
        ts_event: ns; None where the venue gives none.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME.
    """
    header = (ts_event, sequence, 0, flags)
    _add(out, RowClass.OPEN_INTEREST, instrument, ts_recv, header, (unit,), (value,))


def add_liquidation(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    position: Position,
    size: Number,
    price: Number = None,
    price_kind: PriceKind = PriceKind.UNKNOWN,
    average_price: Number = None,
    side: Side | None = None,
    ts_event: int | None = None,
    sequence: int = 0,
    flags: int = 0,
) -> None:
    """Append one liquidation.

    Args:
        out: takes it.
        instrument: its number.
        ts_recv: ns.
        position: which one was liquidated.
        size: decimal text, in the instrument's size unit.
        price: decimal text.
        price_kind: what the price is.
        average_price: at which the order was filled.
        side: of the order; by default the one that closes the position.
        ts_event: ns; None where the venue gives none.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME: SAMPLE where the venue leaves some out.
    """
    if side is None:
        side = _CLOSES[position]
    header = (ts_event, sequence, side, flags)
    numbers = (price, average_price, size)
    fields = (position, price_kind)
    _add(out, RowClass.LIQUIDATION, instrument, ts_recv, header, fields, numbers)


_CLOSES: Final = {
    Position.LONG: Side.ASK,
    Position.SHORT: Side.BID,
    Position.UNKNOWN: Side.NONE,
}


def add_candle(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    start_ns: int,
    interval_ns: int,
    prices: tuple[Number, Number, Number, Number],
    volume: Number,
    end_ns: int | None = None,
    buy_volume: Number = None,
    turnover: Number = None,
    trades: int | None = None,
    state: CandleState = CandleState.UNKNOWN,
    ts_event: int | None = None,
    sequence: int = 0,
    flags: int = 0,
) -> None:
    """Append one state of a candle of the venue.

    Args:
        out: takes it.
        instrument: its number.
        ts_recv: ns.
        start_ns: when its interval begins.
        interval_ns: the length of its interval; 30 days for a month.
        prices: open, high, low and close.
        volume: in the instrument's size unit.
        end_ns: exclusive; by default the start and the interval.
        buy_volume: of buyers that took liquidity.
        turnover: price times size, in what the instrument is settled in.
        trades: their number.
        state: whether it may still change.
        ts_event: ns; None where the venue gives none.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME.
    """
    end_ns = start_ns + interval_ns if end_ns is None else end_ns
    fields = (start_ns, end_ns, interval_ns, trades, state, Origin.VENUE)
    numbers = (*prices, volume, buy_volume, turnover)
    header = (ts_event, sequence, 0, flags)
    _add(out, RowClass.CANDLE, instrument, ts_recv, header, fields, numbers)


def add_instrument_status(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    state: InstrumentState,
    scope: StatusScope = StatusScope.INSTRUMENT,
    effective_ns: int | None = None,
    until_ns: int | None = None,
    ts_event: int | None = None,
    sequence: int = 0,
    flags: int = 0,
) -> None:
    """Append what may be done with an instrument.

    Args:
        out: takes it.
        instrument: its number.
        ts_recv: ns.
        state: what may be done.
        scope: what the venue's message was about.
        effective_ns: from when on, where the venue names a time.
        until_ns: until when.
        ts_event: ns; None where the venue gives none.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME.
    """
    fields = (effective_ns, until_ns, state, scope)
    header = (ts_event, sequence, 0, flags)
    _add(out, RowClass.INSTRUMENT_STATUS, instrument, ts_recv, header, fields, ())


def add_order(
    out: ColumnBuffer,
    instrument: int,
    ts_recv: int,
    *,
    order_id: int,
    side: Side,
    action: OrderAction,
    price: Number = None,
    size: Number = None,
    reason: OrderReason = OrderReason.UNKNOWN,
    ts_event: int | None = None,
    sequence: int = 0,
    flags: int = 0,
    is_last: bool = True,
) -> None:
    """Append one change of one order in a book.

    Args:
        out: takes it.
        instrument: its number.
        ts_recv: ns.
        order_id: 128 bits; `order_id_of` reads the usual texts.
        side: of the book.
        action: what happened to it.
        price: decimal text; None where the venue doesn't repeat it.
        size: what is left of it.
        reason: why, where the venue says it.
        ts_event: ns; None where the venue gives none.
        sequence: the venue's number, 0 = none.
        flags: beside LAST and NO_VENUE_TIME: SNAPSHOT for an order of an image.
        is_last: whether it ends the venue's event.
    """
    fields = (order_id >> _HALF, order_id & _LOW, action, reason)
    header = (ts_event, sequence, side, flags)
    _add(out, RowClass.ORDER, instrument, ts_recv, header, fields, (price, size), is_last=is_last)


def order_id_of(text: str) -> int:
    """Return an id of decimal digits, or a UUID, as an integer of 128 bits.

    Raises ValueError for any other text.
    """
    is_plain = text.isascii() and len(text) <= _DIGITS_MAX
    if is_plain and text.isdigit():
        number = int(text)
        if number >> 2 * _HALF == 0:
            return number
    elif is_plain and text.count(_DASHES) == 4:
        groups = text.split(_DASHES)
        if [len(group) for group in groups] == [8, 4, 4, 4, 12]:
            return int("".join(groups), 16)
    raise ValueError(f"{text[:40]!r} is no id of 128 bits")


def stated(text: object) -> Number:
    """Return a number that a venue may leave out: None for a null, an empty text and a zero.

    Raises ValueError for what is no decimal number, or has more digits than a row can hold, so that
    it can be kept for later messages.
    """
    if text is None or text == "":
        return None
    exponent = decimals_in(text)
    if exponent > OWN_EXPONENT_MAX:
        raise ValueError(f"{text!r:.40} has more than {OWN_EXPONENT_MAX} decimals")
    is_zero = parse_decimal(text, exponent) == 0
    return None if is_zero or not isinstance(text, (str, int, float)) else text


def check_together(*numbers: Number) -> None:
    """Raise ValueError where numbers don't fit one row, whose OWN numbers have the same decimals.

    For an adapter that keeps numbers for later rows: a row that is refused when the buffer is
    sealed must leave nothing behind. numbers: as `stated` returns them.
    """
    texts = [number for number in numbers if number is not None]
    exponent = max(map(decimals_in, texts), default=0)
    for text in texts:
        parse_decimal(text, exponent)


def _add(
    out: ColumnBuffer,
    row_class: RowClass,
    instrument: int,
    ts_recv: int,
    header: tuple[int | None, int, int, int],
    fields: tuple[int | None, ...],
    numbers: tuple[Number, ...],
    *,
    is_last: bool = True,
) -> None:
    """header: ts_event, sequence, side, flags. fields: the others that are no numbers, in order."""
    ts_event, sequence, side, flags = header
    if is_last:
        flags |= _LAST
    if ts_event is None:
        ts_event, flags = ts_recv, flags | _UNTIMED
    event = (ts_event, sequence, side, flags, *fields, *numbers)
    out.add_row(row_class, reader_of(row_class), event, instrument, ts_recv)


@cache
def reader_of(row_class: RowClass) -> ColumnReader:
    """Return what reads the events of this module, by columns."""
    plain = [field for field in row_class.fields if field not in {*row_class.numbers, "exponent"}]
    width = len(plain)

    def read(events: list[Any], rows: Rows) -> Sequence[Sequence[object]]:
        ts_event, sequence, side, flags, *columns = zip(*events, strict=True)
        set_column(rows, "ts_event", ts_event)
        set_column(rows, "sequence", sequence)
        set_column(rows, "side", side)
        set_column(rows, "flags", flags)
        _check_times(rows, "ts_event", rows["flags"] & _UNTIMED == 0)
        for name, column in zip(plain, columns[:width], strict=True):
            if name in row_class.optional:
                set_column(rows, name, [ABSENT if value is None else value for value in column])
            else:
                set_column(rows, name, column)
            if name in _TIMES:
                _check_times(rows, name, rows[name] != ABSENT)
        return columns[width:]

    return read


def _check_times(rows: Rows, name: str, is_said: Any) -> None:
    times = rows[name][is_said]
    if len(times) and not (times.min() >= TIME_MIN and times.max() <= TIME_MAX):
        raise ValueError(f"{name}: a time that is not between 2010 and 2100")
