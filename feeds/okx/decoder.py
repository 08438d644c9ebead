"""Parse OKX's frames of trades, quotes and books, and append what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ingestor.adapter import (
    INT64_MAX,
    ColumnBuffer,
    Counted,
    Flag,
    Sequential,
    Side,
    time_ns,
    whole_number,
)

_CRC_BITS: Final = 0xFFFFFFFF  # a checksum is signed
_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)
_LAST: Final = int(Flag.LAST)
_RPI: Final = "1"  # the source of a trade: against a retail price improvement order
_LAST_RPI: Final = int(Flag.LAST | Flag.RPI)
_BOOK_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
DEPTH: Final = 400


class _Argument(msgspec.Struct, gc=False):
    instId: str  # noqa: N815  # the venue's name


class _Trade(msgspec.Struct, gc=False):
    tradeId: str  # noqa: N815  # the venue's name
    px: Any  # as text or bare: `float_hook` keeps the digits
    sz: Any
    side: str  # buy or sell
    ts: str  # ms
    source: str = "0"
    count: Any = "1"  # fills that were joined; the id is the last one's


class _Trades(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[_Trade]


class _History(msgspec.Struct, gc=False):
    """The answer to a request for past trades, newest first."""

    data: list[_Trade]


class _Level(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """It has four members: the third means nothing any more, the fourth counts the orders."""

    price: Any
    size: Any
    nothing: Any
    orders: Any


class _Quote(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: str  # ms
    seqId: Sequential = 0  # noqa: N815  # the venue's name


class _Quotes(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[_Quote]


class _Update(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: str  # ms
    seqId: Sequential = 0  # noqa: N815  # the venue's name
    prevSeqId: Annotated[int, Meta(ge=-1, le=INT64_MAX)] = 0  # noqa: N815  # the venue's name
    checksum: Annotated[int, Meta(ge=-(2**31), lt=2**32)] = 0


class _Book(msgspec.Struct, gc=False):
    arg: _Argument
    action: Literal["snapshot", "update"]
    data: list[_Update]


class _Image(_Quote, gc=False):
    seqId: Counted  # noqa: N815  # the venue's name


class _Images(msgspec.Struct, gc=False):
    """The answer to a request for a book."""

    code: Literal["0"]
    data: list[_Image]


parse_image: Final = msgspec.json.Decoder(_Images, float_hook=str).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_history: Final = msgspec.json.Decoder(_History, float_hook=str).decode
parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_NONE: Final = [_Level("0", "0", "0", "0")]


def append_trades(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    """Append one frame of the channel `trades`.

    Args:
        payload: The frame's bytes.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    message = _parse_trades(payload)
    for trade in message.data:
        _append_trade(trade, symbols[message.arg.instId], ts_recv, out)


def append_history(body: bytes, instrument: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append past trades, oldest first.

    Args:
        body: Body of the answer.
        instrument: Number of the instrument.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    for trade in reversed(_parse_history(body).data):
        _append_trade(trade, instrument, ts_recv, out)


def _append_trade(trade: _Trade, instrument: int, ts_recv: int, out: ColumnBuffer) -> None:
    number, fills = whole_number(trade.tradeId), whole_number(str(trade.count))
    out.add_trade(
        instrument,
        time_ns(trade.ts),
        ts_recv,
        number,
        trade.px,
        trade.sz,
        _SIDES.get(trade.side, _NO_SIDE),
        number,
        trade_id_high=max(0, fills - 1),
        flags=_LAST_RPI if trade.source == _RPI else _LAST,
    )


def append_quotes(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    """Append one frame of the channel `bbo-tbt`.

    Args:
        payload: The frame's bytes.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    message = parse_quotes(payload)
    number = symbols[message.arg.instId]
    for quote in message.data:
        bid, ask = (quote.bids or _NONE)[0], (quote.asks or _NONE)[0]
        levels = bid.price, bid.size, ask.price, ask.size
        out.add_quote(number, time_ns(quote.ts), ts_recv, quote.seqId, *levels)


def append_book(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    """Append one frame of the channel `books`.

    Args:
        payload: The frame's bytes.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    book = _parse_book(payload)
    instrument = symbols[book.arg.instId]
    flags = _BOOK_FLAGS[book.action]
    for update in book.data:
        bids, asks = update.bids, update.asks
        previous = update.prevSeqId
        out.add_book_update(
            instrument,
            time_ns(update.ts),
            ts_recv,
            [(level.price, level.size) for level in bids],
            [(level.price, level.size) for level in asks],
            first=update.seqId,
            last=update.seqId,
            previous=0 if previous == -1 else previous,
            flags=flags and image_flags(update),
            checksum=update.checksum & _CRC_BITS if update.checksum else None,
            are_pairs=True,
        )


def image_flags(image: _Update) -> int:
    is_cut = max(len(image.bids), len(image.asks)) >= DEPTH
    return Flag.SNAPSHOT | Flag.PARTIAL if is_cut else Flag.SNAPSHOT


def append_images(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    """Append books of a few levels, each of which is whole.

    Args:
        payload: The frame's bytes.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.
    """
    message = parse_quotes(payload)
    instrument = symbols[message.arg.instId]
    for image in message.data:
        out.add_book_update(
            instrument,
            time_ns(image.ts),
            ts_recv,
            [(level.price, level.size) for level in image.bids],
            [(level.price, level.size) for level in image.asks],
            first=image.seqId,
            last=image.seqId,
            flags=Flag.SNAPSHOT | Flag.PARTIAL,
            are_pairs=True,
        )
