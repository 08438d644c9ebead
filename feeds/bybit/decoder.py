"""Frames of trades and books."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    ColumnBuffer,
    Counted,
    Flag,
    Milliseconds,
    Sequential,
    Side,
    time_ns,
    uuid_halves,
    whole_number,
)

DEPTH: Final = 200

SIDES: Final = {"Buy": int(Side.BID), "Sell": int(Side.ASK)}
_NONE: Final = int(Side.NONE)
_LAST: Final = int(Flag.LAST)
_BLOCK: Final = {False: 0, True: int(Flag.BLOCK)}
_RPI: Final = {False: 0, True: int(Flag.RPI)}
_SNAPSHOT: Final = int(Flag.SNAPSHOT)
_UINT64: Final = 2**64
CHECK_BITS: Final = 0xFFFFFFFF


class Kind(IntEnum):
    """Kinds of frames."""

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
    T: Milliseconds
    s: str  # symbol
    S: str  # Buy or Sell: the taker's
    v: Any  # as text or bare: `float_hook` keeps the digits
    p: Any
    i: str
    seq: Sequential = 0
    BT: bool = False  # a block trade
    RPI: bool = False


class _Trades(msgspec.Struct, gc=False):
    data: list[_Trade]


class _PastTrade(msgspec.Struct, gc=False):
    """A trade as REST gives it."""

    execId: str  # noqa: N815  # the venue's name
    price: Any
    size: Any
    side: str
    time: str  # ms
    seq: str = "0"
    isBlockTrade: bool = False  # noqa: N815  # the venue's name
    isRPITrade: bool = False  # noqa: N815  # the venue's name


class _PastTrades(msgspec.Struct):
    entries: list[_PastTrade] = msgspec.field(name="list")


class _History(msgspec.Struct):
    """The answer to a request for past trades, newest first."""

    result: _PastTrades


class _Levels(msgspec.Struct, gc=False):
    s: str  # symbol
    u: Counted  # number of the update
    b: list[list[Any]]
    a: list[list[Any]]
    seq: Sequential = 0


class _Book(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    cts: Milliseconds
    data: _Levels


_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_history: Final = msgspec.json.Decoder(_History, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode


def _identifier(text: str) -> tuple[int, int]:
    """Return the high and low 64 bits of a trade id: a number (spot) or a UUID (derivatives)."""
    if text.isascii() and text.isdigit() and int(text) < _UINT64:
        return 0, int(text)
    return uuid_halves(text)


def append_trades(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    """Append the trades of a frame.

    Args:
        payload: The frame's bytes.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    for trade in _parse_trades(payload).data:
        _append_trade(trade, symbols[trade.s], ts_recv, out)


def append_history(body: bytes, instrument: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append past trades, as if they had come on the socket.

    Args:
        body: Body of the answer.
        instrument: Number of the instrument.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    for entry in reversed(_parse_history(body).result.entries):
        time = time_ns(entry.time) // MILLISECOND
        trade = _Trade(
            *(time, "", entry.side, entry.size, entry.price, entry.execId, whole_number(entry.seq)),
            *(entry.isBlockTrade, entry.isRPITrade),
        )
        _append_trade(trade, instrument, ts_recv, out)


def _append_trade(trade: _Trade, instrument: int, ts_recv: int, out: ColumnBuffer) -> None:
    high, low = _identifier(trade.i)
    time, side = trade.T * MILLISECOND, SIDES.get(trade.S, _NONE)
    flags = _LAST | _BLOCK[trade.BT] | _RPI[trade.RPI]
    numbers = trade.seq, trade.p, trade.v
    out.add_trade(instrument, time, ts_recv, *numbers, side, low, trade_id_high=high, flags=flags)


def append_book(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer, depth: int
) -> None:
    """Append the book event of a frame.

    Args:
        payload: The frame's bytes.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
        depth: Levels a side that were subscribed to.
    """
    book = _parse_book(payload)
    data, flags = book.data, _flags(book, depth)
    out.add_book_update(
        symbols[data.s],
        book.cts * MILLISECOND,
        ts_recv,
        data.b,
        data.a,
        first=data.u,
        last=data.u,
        flags=flags,
        check_value=data.seq & CHECK_BITS,
    )


def _flags(book: _Book, depth: int) -> int:
    if book.type == "delta" and book.data.u != 1:
        return 0
    levels = max(len(book.data.b), len(book.data.a))
    return _SNAPSHOT | Flag.PARTIAL if levels >= depth else _SNAPSHOT
