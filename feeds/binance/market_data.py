"""Candles, mark prices, funding, liquidations and contracts' status: what isn't trades and books.

The rate of a mark price's message is that of the coming settlement: it is predicted until then.
Delivery contracts have neither rate nor time. The side of a liquidation is the order's: SELL means
that a long position was liquidated; a symbol has at most one a second. Prices that are 0 mean none.
The volume of a COIN-M candle is in contracts, its turnover in base coins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ingestor.adapter import (
    MICROSECOND,
    MILLISECOND,
    SECOND,
    TIME_MAX,
    CandleState,
    ColumnBuffer,
    Control,
    Filtered,
    Flag,
    InstrumentState,
    Position,
    PriceKind,
    add_candle,
    add_funding,
    add_instrument_status,
    add_liquidation,
    add_mark_price,
    stated,
    time_ns,
    whole_number,
)

_parse: Final = msgspec.json.Decoder(float_hook=str).decode
_MINUTE: Final = 60 * SECOND
_DAY: Final = 1_440 * _MINUTE
_INTERVALS: Final = {
    **{f"{count}m": count * _MINUTE for count in (1, 3, 5, 15, 30)},
    **{f"{count}h": count * 60 * _MINUTE for count in (1, 2, 4, 6, 8, 12)},
    "1s": SECOND,
    "1d": _DAY,
    "3d": 3 * _DAY,
    "1w": 7 * _DAY,
    "1M": 30 * _DAY,
}
_ORDERS: Final = {"SELL": Position.LONG, "BUY": Position.SHORT}
_STATES: Final = {
    "PENDING_TRADING": InstrumentState.PRE_OPEN,
    "TRADING": InstrumentState.TRADING,
    "PRE_DELIVERING": InstrumentState.DELISTING,
    "PRE_SETTLE": InstrumentState.DELISTING,
    "DELIVERING": InstrumentState.SETTLING,
    "SETTLING": InstrumentState.SETTLING,
    "DELIVERED": InstrumentState.CLOSED,
    "CLOSE": InstrumentState.CLOSED,
    "BREAK": InstrumentState.HALTED,
    "HALT": InstrumentState.HALTED,
}
_OTHER_SYMBOL: Final = Filtered("other_symbol")  # of a stream of all symbols
_SAMPLE: Final = int(Flag.SAMPLE)
_MICROSECONDS_MIN: Final = TIME_MAX // MILLISECOND  # more is no time in ms

Append = Callable[[Mapping[str, int], Any, int, ColumnBuffer], Control | None]


def append(
    event: object, symbols: Mapping[str, int], body: bytes, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append the rows of an event that `EVENTS` has.

    Args:
        event: its name.
        symbols: venue symbol -> instrument number.
        body: the event, unwrapped.
        ts_recv: ns.
        out: takes the rows.
    """
    return EVENTS[event](symbols, _parse(body), ts_recv, out)


def _time(value: object) -> int:
    """Return a time in ms, or in us where the address asked for that, in ns."""
    number = whole_number(value)
    return time_ns(number, MICROSECOND if number > _MICROSECONDS_MIN else MILLISECOND)


def _candle(
    symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    one = message["k"]
    start, last = whole_number(one["t"]), whole_number(one["T"])
    add_candle(
        out,
        symbols[message["s"]],
        ts_recv,
        start_ns=_time(start),
        end_ns=_time(last + 1),
        interval_ns=_INTERVALS[one["i"]],
        prices=(one["o"], one["h"], one["l"], one["c"]),
        volume=one["v"],
        buy_volume=one["V"],
        turnover=one["q"],
        trades=one["n"],
        state=_STATE_OF[one["x"]],
        ts_event=_time(message["E"]),
    )
    return None


_STATE_OF: Final = {True: CandleState.CLOSED, False: CandleState.OPEN}


def _mark_price(
    symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    number, ts_event = symbols[message["s"]], _time(message["E"])
    add_mark_price(
        out,
        number,
        ts_recv,
        mark_price=stated(message["p"]),
        index_price=stated(message.get("i")),
        settle_price=stated(message.get("P")),
        ts_event=ts_event,
    )
    rate, due = message["r"], message["T"]
    if rate != "" and due != 0:
        due_ns = _time(due)
        add_funding(out, number, ts_recv, rate=rate, due_ns=due_ns, ts_event=ts_event)
    return None


def _liquidation(
    symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    order = message["o"]
    add_liquidation(
        out,
        symbols[order["s"]],
        ts_recv,
        position=_ORDERS[order["S"]],
        size=order["q"],
        price=stated(order["p"]),
        price_kind=PriceKind.ORDER,
        average_price=stated(order["ap"]),
        ts_event=_time(order["T"]),
        flags=_SAMPLE,
    )
    return None


def _contract(
    symbols: Mapping[str, int], message: Any, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    number = symbols.get(message["s"])
    if number is None:
        return _OTHER_SYMBOL
    delivery = whole_number(message["dt"]) * MILLISECOND
    add_instrument_status(
        out,
        number,
        ts_recv,
        state=_STATES.get(message["cs"], InstrumentState.UNKNOWN),
        until_ns=delivery if 0 < delivery <= TIME_MAX else None,  # perpetuals: the year 2100
        ts_event=_time(message["E"]),
    )
    return None


EVENTS: Final[Mapping[object, Append]] = {
    "kline": _candle,
    "markPriceUpdate": _mark_price,
    "forceOrder": _liquidation,
    "contractInfo": _contract,
}
