"""Parse OKX's frames of trades, quotes and books, and append what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ingestor.adapter import (
    INT64_MAX,
    MILLISECOND,
    TIME_MAX,
    TIME_MIN,
    ColumnBuffer,
    Counted,
    Flag,
    Rows,
    Sequential,
    Side,
    flat,
    milliseconds_ns,
    plain_integers,
    set_column,
)

_CHECKSUM: Final = int(Flag.CHECKSUM)
_CRC_BITS: Final = 0xFFFFFFFF  # a checksum is signed
_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)
_LAST: Final = int(Flag.LAST)
_RPI: Final = "1"  # the source of a trade: against a retail price improvement order
_RPI_FLAGS: Final = {_RPI: int(Flag.LAST | Flag.RPI)}
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


class _Level(msgspec.Struct, array_like=True, gc=False):
    """Its other members are not read."""

    price: Any
    size: Any


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

    data: list[_Image]


parse_image: Final = msgspec.json.Decoder(_Images, float_hook=str).decode
parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
parse_history: Final = msgspec.json.Decoder(_History, float_hook=str).decode
parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_NONE: Final = [_Level("0", "0")]


def read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[Any]]:
    """Fill the rows of trades; return their prices and sizes as text."""
    rows["ts_event"] = milliseconds_ns(plain_integers([trade.ts for trade in trades]))
    set_column(rows, "sequence", plain_integers([trade.tradeId for trade in trades]))
    set_column(rows, "side", [_SIDES.get(trade.side, _NO_SIDE) for trade in trades])
    rows["trade_id_low"] = rows["sequence"]
    fills = [trade.count for trade in trades]
    if fills.count("1") != len(fills):
        spans = plain_integers([str(fill) for fill in fills])
        set_column(rows, "trade_id_high", [max(0, span - 1) for span in spans])
    sources = [trade.source for trade in trades]
    if _RPI in sources:
        set_column(rows, "flags", [_RPI_FLAGS.get(source, _LAST) for source in sources])
    return [trade.px for trade in trades], [trade.sz for trade in trades]


def read_quotes(quotes: list[_Quote], rows: Rows) -> Sequence[list[Any]]:
    """Fill the rows of quotes; return price and size of bids and asks as text."""
    rows["ts_event"] = milliseconds_ns(plain_integers([quote.ts for quote in quotes]))
    set_column(rows, "sequence", [quote.seqId for quote in quotes])
    bids = [(quote.bids or _NONE)[0] for quote in quotes]
    asks = [(quote.asks or _NONE)[0] for quote in quotes]
    return (
        [level.price for level in bids],
        [level.size for level in bids],
        [level.price for level in asks],
        [level.size for level in asks],
    )


def spread(
    parsed: Sequence[_Trades] | Sequence[_Quotes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
) -> tuple[Sequence[Any], ...]:
    """Return the events of frames, with the columns that `ColumnBuffer.add_trades` takes.

    Args:
        parsed: Parsed frames.
        symbols: Numbers of the instruments by symbol.
        ts_recv: n times of receipt in ns.
        frames: n frame numbers.
    """
    numbers = [symbols[frame.arg.instId] for frame in parsed]
    return flat([frame.data for frame in parsed], numbers, ts_recv, frames)


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
    book = parse_book(payload)
    instrument = symbols[book.arg.instId]
    flags = _BOOK_FLAGS[book.action]
    for update in book.data:
        bids, asks = update.bids, update.asks
        previous = update.prevSeqId
        out.levels(
            instrument,
            time_ns(update.ts),
            ts_recv,
            update.seqId,
            update.seqId,
            [(level.price, level.size) for level in bids],
            [(level.price, level.size) for level in asks],
            0 if previous == -1 else previous,
            flags and image_flags(update),
            update.checksum & _CRC_BITS if update.checksum else None,
            are_pairs=True,
        )


def append_books(
    books: Sequence[_Book],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    """Append books of several frames, as `append_book` does each.

    Args:
        books: Parsed books.
        symbols: Numbers of the instruments by symbol.
        ts_recv: n times of receipt in ns.
        frames: n frame numbers.
        out: Takes the rows.
    """
    instruments = [symbols[book.arg.instId] for book in books]
    kinds: Sequence[int] = [_BOOK_FLAGS[book.action] for book in books]
    updates, numbers, received, at, kinds = flat(
        [book.data for book in books], instruments, ts_recv, frames, kinds
    )
    sides = [side for update in updates for side in (update.bids, update.asks)]
    counts = list(map(len, sides))
    levels = list(chain.from_iterable(sides))
    texts: list[object] = [None] * (2 * len(levels))
    texts[0::2] = [level.price for level in levels]
    texts[1::2] = [level.size for level in levels]
    out.updates(
        numbers,
        milliseconds_ns(plain_integers([update.ts for update in updates])).tolist(),
        received,
        counts[0::2],
        counts[1::2],
        texts,
        at,
        numbers=[update.seqId for update in updates],
        previous=[max(update.prevSeqId, 0) for update in updates],  # -1 of an image
        flags=[
            (kind and image_flags(one)) | (_CHECKSUM if one.checksum else 0)
            for kind, one in zip(kinds, updates, strict=True)
        ],
        checksums=[update.checksum & _CRC_BITS for update in updates],
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
        out.levels(
            instrument,
            time_ns(image.ts),
            ts_recv,
            image.seqId,
            image.seqId,
            [(level.price, level.size) for level in image.bids],
            [(level.price, level.size) for level in image.asks],
            0,
            Flag.SNAPSHOT | Flag.PARTIAL,
            are_pairs=True,
        )


def time_ns(text: str) -> int:
    """Return milliseconds as ns. Raises ValueError for a time outside 2010 to 2100."""
    [time] = plain_integers([text])
    if not TIME_MIN <= time * MILLISECOND <= TIME_MAX:
        raise ValueError(f"{text!r:.40} ms is no time between 2010 and 2100")
    return time * MILLISECOND
