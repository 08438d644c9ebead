"""Frames of trades, books and quotes, one by one and many at once.

What a quote means depends on the one before on its connection: it may repeat or change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import compress
from operator import itemgetter
from typing import Any, Final, Literal, Protocol, cast

import msgspec
import numpy as np
import orjson

from ingestor.adapter import (
    MILLISECOND,
    ColumnBuffer,
    Control,
    DecodeMany,
    Filtered,
    Flag,
    Rows,
    Side,
    by_kind,
    flat,
    milliseconds_ns,
    set_column,
)

DEPTH: Final = 200

_SIDES: Final = {"Buy": int(Side.BID), "Sell": int(Side.ASK)}
_SNAPSHOT: Final = int(Flag.SNAPSHOT)
_UNCHANGED: Final = Filtered("unchanged quote", duplicate=True)
_UUID_DIGITS: Final = 32
CHECK_BITS: Final = 0xFFFFFFFF


class Kind(IntEnum):
    """Kinds of frames, in the order in which those that came together are decoded."""

    TRADES = 1
    BOOK = 2
    QUOTE = 3


# How frames begin as Bybit sends them, which tells them apart; others are read too.
KINDS: Final = {
    b'{"topic":"publicTrade.': Kind.TRADES,
    b'{"topic":"orderbook.20': Kind.BOOK,
    b'{"topic":"orderbook.1.': Kind.QUOTE,
}
_BEGINS: Final = 22
beginning: Final = itemgetter(slice(_BEGINS))


class _Trade(msgspec.Struct, gc=False):
    T: int  # ms
    s: str  # symbol
    S: Literal["Buy", "Sell"]
    v: str
    p: str
    i: str
    seq: int = 0


class _Trades(msgspec.Struct, gc=False):
    data: list[_Trade]


class _Levels(msgspec.Struct, gc=False):
    s: str  # symbol
    u: int  # number of the update
    b: msgspec.Raw
    a: msgspec.Raw
    seq: int = 0


class _Book(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    cts: int  # ms
    data: _Levels


class _Level(msgspec.Struct, array_like=True, gc=False):
    price: str
    size: str


class Best(msgspec.Struct, gc=False):
    """What a frame says of the best levels."""

    s: str  # symbol
    u: int
    b: list[_Level]
    a: list[_Level]


class _Quote(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    cts: int  # ms
    data: Best


_parse_trades: Final = msgspec.json.Decoder(_Trades).decode
_parse_book: Final = msgspec.json.Decoder(_Book).decode
_parse_quote: Final = msgspec.json.Decoder(_Quote).decode
_NONE: Final = [_Level("0", "0")]


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[str]]:
    rows["ts_event"] = milliseconds_ns([one.T for one in trades])
    set_column(rows, "sequence", [one.seq for one in trades])
    set_column(rows, "side", [_SIDES[one.S] for one in trades])
    rows["trade_id_high"], rows["trade_id_low"] = _identifiers([one.i for one in trades])
    return [one.p for one in trades], [one.v for one in trades]


def _identifiers(texts: list[str]) -> tuple[Any, Any]:
    """Return the high and low 64 bits of trade ids: numbers (spot) or UUIDs (derivatives), or
    both in one flush."""
    if all(map(str.isdecimal, texts)):
        return 0, np.array([int(text) for text in texts], np.uint64)
    digits = [
        "0" * 16 + f"{int(text):016x}" if text.isdecimal() else text.replace("-", "")
        for text in texts
    ]
    if {*map(len, digits)} != {_UUID_DIGITS}:
        raise ValueError("a trade id of neither form")
    halves = np.frombuffer(bytes.fromhex("".join(digits)), ">u8").reshape(len(texts), 2)
    return halves[:, 0], halves[:, 1]


def _read_quotes(quotes: list[_Quote], rows: Rows) -> Sequence[list[str]]:
    rows["ts_event"] = milliseconds_ns([one.cts for one in quotes])
    set_column(rows, "sequence", [one.data.u for one in quotes])
    bids = [(one.data.b or _NONE)[0] for one in quotes]
    asks = [(one.data.a or _NONE)[0] for one in quotes]
    return (
        [one.price for one in bids],
        [one.size for one in bids],
        [one.price for one in asks],
        [one.size for one in asks],
    )


def append_trades(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    for trade in _parse_trades(payload).data:
        out.add_trade(_read_trades, trade, symbols[trade.s], ts_recv)


def append_book(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    book = _parse_book(payload)
    data, flags = book.data, _flags(book)
    event = (symbols[data.s], book.cts * MILLISECOND, ts_recv, data.u, data.u)
    bids, asks, check_value = bytes(data.b), bytes(data.a), data.seq & CHECK_BITS
    if not out.json_levels(*event, bids, asks, 0, flags, check_value):
        out.levels(
            *event, orjson.loads(bids), orjson.loads(asks), 0, flags, check_value=check_value
        )


def append_quote(
    payload: bytes,
    best: dict[str, Best],
    symbols: Mapping[str, int],
    ts_recv: int,
    out: ColumnBuffer,
) -> Control | None:
    """best: what the connection knows, by symbol."""
    quote = _parse_quote(payload)
    number = symbols[quote.data.s]
    _check_known(quote, best)
    if not _is_news(quote, best):
        return _UNCHANGED
    out.add_quote(_read_quotes, quote, number, ts_recv)
    return None


def _flags(book: _Book) -> int:
    if book.type == "delta" and book.data.u != 1:
        return 0
    levels = max(bytes(side).count(b"]") - 1 for side in (book.data.b, book.data.a))
    return _SNAPSHOT | Flag.PARTIAL if levels >= DEPTH else _SNAPSHOT


def _check_known(quote: _Quote, best: dict[str, Best]) -> None:
    if quote.type == "delta" and quote.data.s not in best:
        raise LookupError("a change of a quote that is not known")


def _is_news(quote: _Quote, best: dict[str, Best]) -> bool:
    """Return whether a quote differs from what is known, and have it known. A change becomes what
    it leads to."""
    data = quote.data
    before = best.get(data.s)
    if quote.type == "delta" and before is not None:
        bids, asks = _changed(before.b, data.b), _changed(before.a, data.a)
        data = quote.data = Best(data.s, data.u, bids, asks)
    if data == before:
        return False
    best[data.s] = data
    return True


def _changed(best: list[_Level], changes: list[_Level]) -> list[_Level]:
    """Apply the changes of one side of a book of one level; size 0 removes it."""
    for level in changes:
        if level.size.strip("0."):
            best = [level]
        elif best and best[0].price == level.price:
            best = []
    return best


class _Connection(Protocol):
    """What a frame's source has. best: as `append_quote` takes it."""

    @property
    def adapter(self) -> _Knowing: ...


class _Knowing(Protocol):
    best: dict[str, Best]


def decoder(symbols: Mapping[str, int]) -> DecodeMany:
    """Return what decodes frames of all kinds together. symbols: as adapters get."""

    def decode(
        payloads: list[bytes], ts_recv: list[int], frames: Sequence[int], out: ColumnBuffer
    ) -> Sequence[Control]:
        kinds = [KINDS[beginning(one)] for one in payloads]
        unchanged = 0
        for kind, (some, received, at) in sorted(by_kind(kinds, payloads, ts_recv, frames)):
            if kind is Kind.TRADES:
                _append_many_trades(some, symbols, received, at, out)
            elif kind is Kind.BOOK:
                _append_many_books(some, symbols, received, at, out)
            else:
                unchanged = _append_many_quotes(some, symbols, received, at, out)
        return [_UNCHANGED] * unchanged

    return decode


def _append_many_trades(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    groups = [_parse_trades(one).data for one in payloads]
    trades, *columns = flat(groups, ts_recv, frames)
    out.add_trades(_read_trades, trades, [symbols[one.s] for one in trades], *columns)


def _append_many_books(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    books = list(map(_parse_book, payloads))
    updates = [one.data for one in books]
    numbers = [one.u for one in updates]
    out.json_updates(
        [symbols[one.s] for one in updates],
        [one.cts * MILLISECOND for one in books],
        ts_recv,
        numbers,
        numbers,
        [bytes(side) for one in updates for side in (one.b, one.a)],
        frames,
        flags=list(map(_flags, books)),
        marks=[one.seq & CHECK_BITS for one in updates],
    )


def _append_many_quotes(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> int:
    """Return how many frames are no news. It comes last: connections then know what they said."""
    quotes = list(map(_parse_quote, payloads))
    numbers = [symbols[one.data.s] for one in quotes]
    sources = cast("list[_Connection]", out.sources)
    known = [sources[frame].adapter.best for frame in frames]
    for quote, best in zip(quotes, known, strict=True):
        _check_known(quote, best)
    is_news = list(map(_is_news, quotes, known))
    columns = [list(compress(column, is_news)) for column in (numbers, ts_recv, frames)]
    out.add_quotes(_read_quotes, list(compress(quotes, is_news)), *columns)
    return is_news.count(False)
