"""Many frames at once: spot's events as they come alone, futures' wrapped by combined streams.

Types of just what one event has are parsed in two thirds of the time that one type for all takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final, Literal

import msgspec
import numpy as np

from ingestor.adapter import (
    ColumnBuffer,
    ColumnReader,
    Control,
    Counted,
    DecodeMany,
    Flag,
    MilliOrMicroseconds,
    Milliseconds,
    Rows,
    Sequential,
    Side,
    by_kind,
    either_ns,
    milliseconds_ns,
    parse_levels,
    set_column,
)

_LAST: Final = int(Flag.LAST)
_LAST_RPI: Final = int(Flag.LAST | Flag.RPI)
_CONDITIONS: Final = {"INSURANCE_FUND": int(Flag.INSURANCE), "ADL": int(Flag.ADL)}  # by `X`
NO_TRADE: Final = "NA"  # the `X` of what has neither price nor size
_LAST_UNTIMED: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_AGGRESSORS: Final = np.array([Side.BID, Side.ASK], np.uint8)  # by `m`, buyer is maker
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
    b: msgspec.Raw
    a: msgspec.Raw
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
    b: msgspec.Raw
    a: msgspec.Raw


class _Wrapped(msgspec.Struct, gc=False):
    """A frame of a combined stream."""

    stream: str
    data: AggregateTrade | BookTicker | FuturesDepth


_parse_trade: Final = msgspec.json.Decoder(Trade, float_hook=str).decode
_parse_quote: Final = msgspec.json.Decoder(Quote, float_hook=str).decode
_parse_depth: Final = msgspec.json.Decoder(Depth).decode
parse_wrapped: Final = msgspec.json.Decoder(_Wrapped, float_hook=str).decode


def _read_trades(
    trades: list[Trade]
    | list[AggregateTrade]
    | list[FuturesTrade]
    | list[PastTrade]
    | list[PastAggregate],
    rows: Rows,
) -> Sequence[list[Any]]:
    rows["ts_event"] = either_ns([trade.T for trade in trades])
    set_column(rows, "sequence", [trade.t for trade in trades])
    rows["trade_id_low"] = rows["sequence"]
    rows["side"] = _AGGRESSORS[np.frombuffer(bytes([trade.m for trade in trades]), np.uint8)]
    return [trade.p for trade in trades], [trade.q for trade in trades]


def _read_aggregates(
    trades: list[AggregateTrade] | list[PastAggregate], rows: Rows
) -> Sequence[list[Any]]:
    normal = [trade.nq for trade in trades]
    if normal.count(None) < len(normal):
        rows["flags"] = [_LAST_RPI if _has_rpi(trade) else _LAST for trade in trades]
    return _read_trades(trades, rows)


def _has_rpi(trade: AggregateTrade | PastAggregate) -> bool:
    normal, size = trade.nq, trade.q
    if normal is None or normal == size:
        return False
    try:
        return Decimal(normal) != Decimal(size)
    except InvalidOperation:
        raise ValueError(f"a size {normal!r:.40} beside {size!r:.40}") from None


def _read_futures_trades(trades: list[FuturesTrade], rows: Rows) -> Sequence[list[Any]]:
    rows["flags"] = [_LAST | _CONDITIONS.get(trade.X, 0) for trade in trades]
    columns = _read_trades(trades, rows)
    rows["trade_id_high"] = rows["sequence"] - 1  # numbered apart from aggregates: no gap to them
    return columns


def _read_quotes(quotes: list[Quote], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = rows["ts_recv"]
    rows["flags"] = _LAST_UNTIMED
    set_column(rows, "sequence", [quote.u for quote in quotes])
    return (
        [quote.b for quote in quotes],
        [quote.B for quote in quotes],
        [quote.a for quote in quotes],
        [quote.A for quote in quotes],
    )


def _read_tickers(quotes: list[BookTicker], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = milliseconds_ns([quote.T for quote in quotes])
    set_column(rows, "sequence", [quote.u for quote in quotes])
    return (
        [quote.b for quote in quotes],
        [quote.B for quote in quotes],
        [quote.a for quote in quotes],
        [quote.A for quote in quotes],
    )


_TRADE_READERS: Final[dict[type, ColumnReader]] = {
    Trade: _read_trades,
    AggregateTrade: _read_aggregates,
    FuturesTrade: _read_futures_trades,
}
_QUOTE_READERS: Final[dict[type, ColumnReader]] = {Quote: _read_quotes, BookTicker: _read_tickers}


def append_events(
    symbols: Mapping[str, int],
    events: Sequence[Any],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    """Append events of one kind.

    Args:
        symbols: Numbers of the instruments by symbol.
        events: Events of the venue.
        ts_recv: n times of receipt in ns.
        frames: n frame numbers.
        out: Takes the rows.
    """
    kind = type(events[0])
    numbers = [symbols[event.s] for event in events]
    if kind in _TRADE_READERS:
        out.add_trades(_TRADE_READERS[kind], events, numbers, ts_recv, frames)
    elif kind in _QUOTE_READERS:
        out.add_quotes(_QUOTE_READERS[kind], events, numbers, ts_recv, frames)
    else:
        out.json_updates(
            numbers,
            either_ns([event.T for event in events]).tolist(),
            ts_recv,
            [event.U for event in events],
            [event.u for event in events],
            [bytes(side) for event in events for side in (event.b, event.a)],
            frames,
            [event.pu for event in events],
        )


def append_event(symbols: Mapping[str, int], event: Any, ts_recv: int, out: ColumnBuffer) -> None:
    """Append one event, as `append_events` does many. Levels may have any form of a number.

    Args:
        symbols: Numbers of the instruments by symbol.
        event: The event.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    kind, number = type(event), symbols[event.s]
    if kind in _TRADE_READERS:
        out.add_trade(_TRADE_READERS[kind], event, number, ts_recv)
    elif kind in _QUOTE_READERS:
        out.add_quote(_QUOTE_READERS[kind], event, number, ts_recv)
    else:
        [time_ns] = either_ns([event.T]).tolist()
        update = (number, time_ns, ts_recv, event.U, event.u)
        bids, asks = bytes(event.b), bytes(event.a)
        if not out.json_levels(*update, bids, asks, event.pu):
            out.levels(*update, parse_levels(bids), parse_levels(asks), event.pu)


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
    reader = _read_trades if is_spot else _read_aggregates
    for trade in _parse_past[is_spot](body):
        out.add_trade(reader, trade, instrument, ts_recv)


# By the byte that tells them: of the first value, or of the first key.
_PARSERS: Final[dict[int, Callable[[bytes], object]]] = {
    _TRADE: _parse_trade,
    _UPDATE_ID: _parse_quote,
    _DEPTH: _parse_depth,
}


def parser_of(payload: bytes) -> Callable[[bytes], object]:
    """Return what parses spot's frames like this one. Raises LookupError for those that need a look
    of their own."""
    key = payload[_KEY_AT]
    return _PARSERS[payload[_VALUE_AT] if key == _EVENT else key]


def is_whole_book(stream: str) -> bool:
    """Partial books (depth5, depth10, depth20) have the event type of the whole book's deltas."""
    return not stream or stream.split("@")[1] == "depth"


def futures_decoder(symbols: Mapping[str, int]) -> DecodeMany:
    """Return what decodes the events of futures' combined streams. symbols: as adapters get."""

    def decode(
        payloads: list[bytes], ts_recv: list[int], frames: Sequence[int], out: ColumnBuffer
    ) -> Sequence[Control]:
        """Append the rows of a frame, or return what else it was.

        Args:
            payloads: n frames.
            ts_recv: n times of receipt in ns.
            frames: n frame numbers.
            out: Takes the rows.
        """
        parsed = list(map(parse_wrapped, payloads))
        events = [frame.data for frame in parsed]
        kinds = list(map(type, events))
        for kind, part in by_kind(kinds, parsed, events, ts_recv, frames):
            wrapped, some, received, at = part
            if kind is FuturesDepth and not all(is_whole_book(frame.stream) for frame in wrapped):
                raise ValueError("a partial book")
            append_events(symbols, some, received, at, out)
        return ()

    return decode


def spot_decoder(symbols: Mapping[str, int]) -> DecodeMany:
    """Return what decodes spot's events, of one kind or of several. symbols: as adapters get."""

    def decode(
        payloads: list[bytes], ts_recv: list[int], frames: Sequence[int], out: ColumnBuffer
    ) -> Sequence[Control]:
        """Append the rows of a frame, or return what else it was.

        Args:
            payloads: n frames.
            ts_recv: n times of receipt in ns.
            frames: n frame numbers.
            out: Takes the rows.
        """
        parse = parser_of(payloads[0])
        try:
            append_events(symbols, list(map(parse, payloads)), ts_recv, frames, out)
        except msgspec.ValidationError:  # not all of one kind
            kinds = list(map(parser_of, payloads))
            for parse, (some, received, at) in by_kind(kinds, payloads, ts_recv, frames):
                append_events(symbols, list(map(parse, some)), received, at, out)
        return ()

    return decode
