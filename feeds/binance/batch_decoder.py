"""Many frames at once: spot's events as they come alone, futures' wrapped by combined streams.

Types of just what one event has are parsed in two thirds of the time that one type for all takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from ingestor.adapter import (
    MILLISECOND,
    ColumnBuffer,
    ColumnReader,
    Control,
    DecodeMany,
    Flag,
    Rows,
    Side,
    by_kind,
    milliseconds_ns,
    set_column,
)

_LAST_UNTIMED: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_AGGRESSORS: Final = np.array([Side.BID, Side.ASK], np.uint8)  # by `m`, buyer is maker
# What an event that comes alone is, told by a byte of its first key and value as Binance sends
# them: {"e":"trade", {"e":"depthUpdate", {"u":400900217. Should that change, the general way still
# reads it.
_KEY_AT, _VALUE_AT = 2, 6
_EVENT, _TRADE, _DEPTH, _UPDATE_ID = b"etdu"


class _Trade(msgspec.Struct, gc=False, tag_field="e", tag="trade"):
    """A trade alone."""

    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Quote(msgspec.Struct, gc=False):
    """Spot's best bid and ask, alone."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str
    e: None = None  # futures' have an event


class _Depth(msgspec.Struct, gc=False, tag_field="e", tag="depthUpdate"):
    """Spot's book deltas, alone."""

    s: str
    T: int = msgspec.field(name="E")  # no time of the matching engine
    U: int
    u: int
    b: msgspec.Raw
    a: msgspec.Raw
    pu: ClassVar[int] = 0


class _AggregateTrade(msgspec.Struct, gc=False, tag_field="e", tag="aggTrade"):
    """Futures' trades."""

    s: str
    t: int = msgspec.field(name="a")
    p: str
    q: str
    T: int
    m: bool


class _BookTicker(msgspec.Struct, gc=False, tag_field="e", tag="bookTicker"):
    """Futures' best bid and ask."""

    s: str
    u: int
    b: str
    B: str
    a: str
    A: str
    T: int


class _FuturesDepth(msgspec.Struct, gc=False, tag_field="e", tag="depthUpdate"):
    """Futures' book deltas, which name the one before."""

    s: str
    T: int
    U: int
    u: int
    pu: int
    b: msgspec.Raw
    a: msgspec.Raw


class _Wrapped(msgspec.Struct, gc=False):
    """A frame of a combined stream."""

    stream: str
    data: _AggregateTrade | _BookTicker | _FuturesDepth


_parse_trade: Final = msgspec.json.Decoder(_Trade).decode
_parse_quote: Final = msgspec.json.Decoder(_Quote).decode
_parse_depth: Final = msgspec.json.Decoder(_Depth).decode
_parse_wrapped: Final = msgspec.json.Decoder(_Wrapped).decode


def _read_trades(trades: list[_Trade | _AggregateTrade], rows: Rows) -> Sequence[list[str]]:
    rows["ts_event"] = milliseconds_ns([one.T for one in trades])
    set_column(rows, "sequence", [one.t for one in trades])
    rows["trade_id_low"] = rows["sequence"]
    rows["side"] = _AGGRESSORS[np.frombuffer(bytes([one.m for one in trades]), np.uint8)]
    return [one.p for one in trades], [one.q for one in trades]


def _read_quotes(quotes: list[_Quote], rows: Rows) -> Sequence[list[str]]:
    rows["ts_event"] = rows["ts_recv"]
    rows["flags"] = _LAST_UNTIMED
    set_column(rows, "sequence", [one.u for one in quotes])
    return (
        [one.b for one in quotes],
        [one.B for one in quotes],
        [one.a for one in quotes],
        [one.A for one in quotes],
    )


def _read_tickers(quotes: list[_BookTicker], rows: Rows) -> Sequence[list[str]]:
    rows["ts_event"] = milliseconds_ns([one.T for one in quotes])
    set_column(rows, "sequence", [one.u for one in quotes])
    return (
        [one.b for one in quotes],
        [one.B for one in quotes],
        [one.a for one in quotes],
        [one.A for one in quotes],
    )


_TRADES: Final = {_Trade, _AggregateTrade}
_QUOTE_READERS: Final[dict[type, ColumnReader]] = {_Quote: _read_quotes, _BookTicker: _read_tickers}


def _append(
    symbols: Mapping[str, int],
    events: Sequence[Any],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    """Append events of one kind."""
    kind = type(events[0])
    numbers = [symbols[one.s] for one in events]
    if kind in _TRADES:
        out.add_trades(_read_trades, events, numbers, ts_recv, frames)
    elif kind in _QUOTE_READERS:
        out.add_quotes(_QUOTE_READERS[kind], events, numbers, ts_recv, frames)
    else:
        out.json_updates(
            numbers,
            [one.T * MILLISECOND for one in events],
            ts_recv,
            [one.U for one in events],
            [one.u for one in events],
            [bytes(side) for one in events for side in (one.b, one.a)],
            frames,
            [one.pu for one in events],
        )


# By the byte that tells them: of the first value, or of the first key.
_PARSERS: Final[dict[int, Callable[[bytes], object]]] = {
    _TRADE: _parse_trade,
    _UPDATE_ID: _parse_quote,
    _DEPTH: _parse_depth,
}


def _parser(payload: bytes) -> Callable[[bytes], object]:
    """Return what parses frames like this one. Raises LookupError for those that need a look of
    their own."""
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
        parsed = list(map(_parse_wrapped, payloads))
        events = [one.data for one in parsed]
        kinds = list(map(type, events))
        for kind, part in by_kind(kinds, parsed, events, ts_recv, frames):
            wrapped, some, received, at = part
            if kind is _FuturesDepth and not all(is_whole_book(one.stream) for one in wrapped):
                raise ValueError("a partial book")
            _append(symbols, some, received, at, out)
        return ()

    return decode


def spot_decoder(symbols: Mapping[str, int]) -> DecodeMany:
    """Return what decodes spot's events, of one kind or of several. symbols: as adapters get."""

    def decode(
        payloads: list[bytes], ts_recv: list[int], frames: Sequence[int], out: ColumnBuffer
    ) -> Sequence[Control]:
        parse = _parser(payloads[0])
        try:
            _append(symbols, list(map(parse, payloads)), ts_recv, frames, out)
        except msgspec.ValidationError:  # not all of one kind
            kinds = list(map(_parser, payloads))
            for parse, (some, received, at) in by_kind(kinds, payloads, ts_recv, frames):
                _append(symbols, list(map(parse, some)), received, at, out)
        return ()

    return decode
