"""Frames of trades, books and quotes, one by one and many at once."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Mapping, Sequence
from enum import IntEnum
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec
import numpy as np

from ingestor.adapter import (
    MILLISECOND,
    ColumnBuffer,
    Control,
    Counted,
    DecodeMany,
    Flag,
    Milliseconds,
    Rows,
    Sequential,
    Side,
    by_kind,
    flat,
    milliseconds_ns,
    parse_levels,
    plain_integers,
    set_column,
)

from .quotes import UNCHANGED, append_many_quotes

DEPTH: Final = 200

SIDES: Final = {"Buy": int(Side.BID), "Sell": int(Side.ASK)}
_NONE: Final = int(Side.NONE)
_LAST: Final = int(Flag.LAST)
_BLOCK: Final = {False: 0, True: int(Flag.BLOCK)}
_RPI: Final = {False: 0, True: int(Flag.RPI)}
_SNAPSHOT: Final = int(Flag.SNAPSHOT)
_UUID_LENGTH: Final = 36
_UUID_DIGITS: Final = 32
_UUID_LINE: Final = _UUID_LENGTH + 1
_UUID_MARKS: Final = ((8, b"-"), (13, b"-"), (18, b"-"), (23, b"-"), (_UUID_LENGTH, b"\n"))
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
    b: msgspec.Raw
    a: msgspec.Raw
    seq: Sequential = 0


class _Book(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    cts: Milliseconds
    data: _Levels


_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_history: Final = msgspec.json.Decoder(_History, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book).decode


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = milliseconds_ns([trade.T for trade in trades])
    set_column(rows, "sequence", [trade.seq for trade in trades])
    set_column(rows, "side", [SIDES.get(trade.S, _NONE) for trade in trades])
    if any([trade.BT or trade.RPI for trade in trades]):  # noqa: C419  # a list is faster
        set_column(rows, "flags", [_LAST | _BLOCK[trade.BT] | _RPI[trade.RPI] for trade in trades])
    rows["trade_id_high"], rows["trade_id_low"] = _identifiers([trade.i for trade in trades])
    return [trade.p for trade in trades], [trade.v for trade in trades]


def _identifiers(texts: list[str]) -> tuple[Any, Any]:
    """Return the high and low 64 bits of trade ids: numbers (spot) or UUIDs (derivatives), or
    both in one flush."""
    digits = _uuid_digits(texts)
    if digits is None:
        if "".join(texts).encode().isdigit():
            return 0, np.array(plain_integers(texts), np.uint64)
        digits = bytes.fromhex("".join(_identifier_digits(texts)))
    halves = np.frombuffer(digits, ">u8").reshape(len(texts), 2)
    return halves[:, 0], halves[:, 1]


def _uuid_digits(texts: list[str]) -> bytes | None:
    """Return the digits of trade ids that are all UUIDs; None where one has another form."""
    count = len(texts)
    lines = ("\n".join(texts) + "\n").encode()
    digits = lines.translate(None, b"-\n")
    if len(lines) != _UUID_LINE * count or len(digits) != _UUID_DIGITS * count:
        return None
    if not all(lines[place::_UUID_LINE] == mark * count for place, mark in _UUID_MARKS):
        return None
    try:
        return unhexlify(digits)
    except ValueError:
        return None


def _identifier_digits(texts: list[str]) -> list[str]:
    digits = [
        text.replace("-", "") if len(text) == _UUID_LENGTH else "0" * 16 + f"{int(text):016x}"
        for text in texts
        if text.isalnum() or len(text) == _UUID_LENGTH
    ]
    if len(digits) < len(texts) or {*map(len, digits)} != {_UUID_DIGITS}:
        raise ValueError("a trade id of neither form")
    return digits


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
        out.add_trade(_read_trades, trade, symbols[trade.s], ts_recv)


def append_history(body: bytes, instrument: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append past trades, as if they had come on the socket.

    Args:
        body: Body of the answer.
        instrument: Number of the instrument.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    for entry in reversed(_parse_history(body).result.entries):
        time, seq = plain_integers([entry.time, entry.seq])
        trade = _Trade(
            *(time, "", entry.side, entry.size, entry.price, entry.execId, seq),
            *(entry.isBlockTrade, entry.isRPITrade),
        )
        out.add_trade(_read_trades, trade, instrument, ts_recv)


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
    event = (symbols[data.s], book.cts * MILLISECOND, ts_recv, data.u, data.u)
    bids, asks, check_value = bytes(data.b), bytes(data.a), data.seq & CHECK_BITS
    if not out.json_levels(*event, bids, asks, 0, flags, check_value):
        out.levels(
            *event, parse_levels(bids), parse_levels(asks), 0, flags, check_value=check_value
        )


def _flags(book: _Book, depth: int = DEPTH) -> int:
    if book.type == "delta" and book.data.u != 1:
        return 0
    levels = max(bytes(side).count(b"]") - 1 for side in (book.data.b, book.data.a))
    return _SNAPSHOT | Flag.PARTIAL if levels >= depth else _SNAPSHOT


def decoder(symbols: Mapping[str, int]) -> DecodeMany:
    """Return what decodes frames of all kinds together. symbols: as adapters get."""

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
        kinds = [KINDS[beginning(payload)] for payload in payloads]
        unchanged = 0
        for kind, (some, received, at) in sorted(by_kind(kinds, payloads, ts_recv, frames)):
            if kind is Kind.TRADES:
                _append_many_trades(some, symbols, received, at, out)
            elif kind is Kind.BOOK:
                _append_many_books(some, symbols, received, at, out)
            else:
                unchanged = append_many_quotes(some, symbols, received, at, out)
        return [UNCHANGED] * unchanged

    return decode


def _append_many_trades(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    groups = [_parse_trades(payload).data for payload in payloads]
    trades, *columns = flat(groups, ts_recv, frames)
    out.add_trades(_read_trades, trades, [symbols[trade.s] for trade in trades], *columns)


def _append_many_books(
    payloads: Sequence[bytes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    books = list(map(_parse_book, payloads))
    updates = [book.data for book in books]
    numbers = [update.u for update in updates]
    out.json_updates(
        [symbols[update.s] for update in updates],
        [book.cts * MILLISECOND for book in books],
        ts_recv,
        numbers,
        numbers,
        [bytes(side) for update in updates for side in (update.b, update.a)],
        frames,
        flags=list(map(_flags, books)),
        marks=[update.seq & CHECK_BITS for update in updates],
    )
