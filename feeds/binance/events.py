"""Events of a symbol: spot's as they come alone, futures' wrapped by combined streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final, Literal

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    ColumnBuffer,
    Counted,
    Flag,
    MilliOrMicroseconds,
    Milliseconds,
    Sequential,
    Side,
    either_ns,
)

_LAST: Final = int(Flag.LAST)
_LAST_RPI: Final = int(Flag.LAST | Flag.RPI)
_CONDITIONS: Final = {"INSURANCE_FUND": int(Flag.INSURANCE), "ADL": int(Flag.ADL)}  # by `X`
NO_TRADE: Final = "NA"  # the `X` of what has neither price nor size
_LAST_UNTIMED: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_AGGRESSORS: Final = (int(Side.BID), int(Side.ASK))  # by `m`, buyer is maker
# What an event that comes alone is, told by a byte of its first key and value as Binance sends
# them: {"e":"trade", {"e":"depthUpdate", {"u":400900217. Should that change, the general way still
# reads it.
_KEY_AT, _VALUE_AT = 2, 6
_EVENT, _TRADE, _DEPTH, _UPDATE_ID = b"etdu"


class Trade(msgspec.Struct, gc=False):
    """A trade alone."""

    e: Literal["trade"]
    s: str
    t: Sequential
    p: Any  # as text or bare: `float_hook` keeps the digits
    q: Any
    T: MilliOrMicroseconds  # microseconds where the address has `timeUnit=MICROSECOND`
    m: bool


class FuturesTrade(msgspec.Struct, gc=False):
    """A trade of the futures' raw stream, which is not documented; recordings hold it."""

    e: Literal["trade"]
    s: str
    t: Sequential
    p: Any
    q: Any
    T: Milliseconds
    m: bool
    X: str = ""  # what it was


class Quote(msgspec.Struct, gc=False):
    """Spot's best bid and ask, alone."""

    u: Sequential
    s: str
    b: Any
    B: Any
    a: Any
    A: Any
    e: None = None  # futures' have an event


class Depth(msgspec.Struct, gc=False):
    """Spot's book deltas, alone."""

    e: Literal["depthUpdate"]
    s: str
    T: MilliOrMicroseconds = msgspec.field(name="E")  # no time of the matching engine
    U: Counted
    u: Counted
    b: list[list[Any]]
    a: list[list[Any]]
    pu: ClassVar[int] = 0


class PastTrade(msgspec.Struct, gc=False):
    """A trade of spot, as REST gives it."""

    t: Sequential = msgspec.field(name="id")
    p: Any = msgspec.field(name="price")
    q: Any = msgspec.field(name="qty")
    T: Milliseconds = msgspec.field(name="time")
    m: bool = msgspec.field(name="isBuyerMaker")


class PastAggregate(msgspec.Struct, gc=False):
    """A trade of futures, as REST gives it."""

    t: Sequential = msgspec.field(name="a")
    p: Any
    q: Any
    T: Milliseconds
    m: bool
    nq: Any = None


class AggregateTrade(msgspec.Struct, gc=False, tag_field="e", tag="aggTrade"):
    """Futures' trades."""

    s: str
    t: Sequential = msgspec.field(name="a")
    p: Any
    q: Any
    T: Milliseconds
    m: bool
    nq: Any = None  # the size without what retail price improvement orders had


class BookTicker(msgspec.Struct, gc=False, tag_field="e", tag="bookTicker"):
    """Futures' best bid and ask."""

    s: str
    u: Sequential
    b: Any
    B: Any
    a: Any
    A: Any
    T: Milliseconds


class FuturesDepth(msgspec.Struct, gc=False, tag_field="e", tag="depthUpdate"):
    """Futures' book deltas, which name the one before."""

    s: str
    T: Milliseconds
    U: Counted
    u: Counted
    pu: Sequential
    b: list[list[Any]]
    a: list[list[Any]]


class _Wrapped(msgspec.Struct, gc=False):
    """A frame of a combined stream."""

    stream: str
    data: AggregateTrade | BookTicker | FuturesDepth


_parse_trade: Final = msgspec.json.Decoder(Trade, float_hook=str).decode
_parse_quote: Final = msgspec.json.Decoder(Quote, float_hook=str).decode
_parse_depth: Final = msgspec.json.Decoder(Depth, float_hook=str).decode
parse_wrapped: Final = msgspec.json.Decoder(_Wrapped, float_hook=str).decode


_Traded = Trade | AggregateTrade | FuturesTrade | PastTrade | PastAggregate


def _has_rpi(trade: AggregateTrade | PastAggregate) -> bool:
    normal, size = trade.nq, trade.q
    if normal is None or normal == size:
        return False
    try:
        return Decimal(normal) != Decimal(size)
    except InvalidOperation:
        raise ValueError(f"a size {normal!r:.40} beside {size!r:.40}") from None


def _append_trade(trade: _Traded, instrument: int, ts_recv: int, out: ColumnBuffer) -> None:
    flags, high = _LAST, 0
    match trade:
        case FuturesTrade():
            flags |= _CONDITIONS.get(trade.X, 0)
            high = (trade.t - 1) % 2**64  # numbered apart from aggregates: no gap to them
        case AggregateTrade() | PastAggregate() if _has_rpi(trade):
            flags = _LAST_RPI
    number, side = trade.t, _AGGRESSORS[trade.m]
    time, row = either_ns(trade.T), (number, trade.p, trade.q, side, number)
    out.add_trade(instrument, time, ts_recv, *row, trade_id_high=high, flags=flags)


def append_event(symbols: Mapping[str, int], event: Any, ts_recv: int, out: ColumnBuffer) -> None:
    """Append one event. Levels may have any form of a number.

    Args:
        symbols: Numbers of the instruments by symbol.
        event: The event.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    number = symbols[event.s]
    match event:
        case Quote(u=sequence):
            best = event.b, event.B, event.a, event.A
            out.add_quote(number, ts_recv, ts_recv, sequence, *best, flags=_LAST_UNTIMED)
        case BookTicker(u=sequence, T=time):
            best = event.b, event.B, event.a, event.A
            out.add_quote(number, time * MILLISECOND, ts_recv, sequence, *best)
        case Depth() | FuturesDepth():
            out.add_book_update(
                number,
                either_ns(event.T),
                ts_recv,
                event.b,
                event.a,
                first=event.U,
                last=event.u,
                previous=event.pu,
            )
        case _:
            _append_trade(event, number, ts_recv, out)


_parse_past: Final[dict[bool, Callable[[bytes], list[Any]]]] = {
    True: msgspec.json.Decoder(list[PastTrade], float_hook=str).decode,
    False: msgspec.json.Decoder(list[PastAggregate], float_hook=str).decode,
}


def append_history(
    body: bytes, instrument: int, ts_recv: int, out: ColumnBuffer, *, is_spot: bool
) -> None:
    """Append past trades, oldest first as the venue gives them.

    Args:
        body: Body of the answer.
        instrument: Number of the instrument.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
        is_spot: The market is a spot market.
    """
    for trade in _parse_past[is_spot](body):
        _append_trade(trade, instrument, ts_recv, out)


# By the byte that tells them: of the first value, or of the first key.
_PARSERS: Final[dict[int, Callable[[bytes], object]]] = {
    _TRADE: _parse_trade,
    _UPDATE_ID: _parse_quote,
    _DEPTH: _parse_depth,
}


def parser_of(payload: bytes) -> Callable[[bytes], object]:
    """Return what parses spot's frames like this one.

    Raises LookupError for those that need a look of their own.
    """
    key = payload[_KEY_AT]
    return _PARSERS[payload[_VALUE_AT] if key == _EVENT else key]


def is_whole_book(stream: str) -> bool:
    """Partial books (depth5, depth10, depth20) have the event type of the whole book's deltas."""
    return not stream or stream.split("@")[1] == "depth"
