"""OKX v5, spot, swap and futures: trades, quotes (`bbo-tbt`) and the book of 400, 5 or 1 levels.

Reference: "OKX API v5": WebSocket, Order Book Trading / Market Data (with GET / Order book), Public
Data / Instruments.
Units: price, size are decimal text, times millisecond text. Sizes of swaps and futures count
contracts; the instrument's multiplier says what one is.
Traps:
- All markets share one address, and an instId is unique over them: an adapter of any market reads
  frames of all, given a mapping of their symbols joined.
- The client's `ping` and its `pong` are bare text, no JSON. 30 s without traffic end a connection.
- The image of `books` was announced to end ("Upcoming changes", 2026-02-12: clients begin with GET
  / Order book, whose image has `seqId`), came still on 2026-09-06, and stands in the page of
  2026-08-22: so either is taken. The first update to apply has `prevSeqId` <= `seqId` of the image.
- `prevSeqId` names the update before, -1 in a snapshot. It equals `seqId` in a keep-alive of a
  quiet book, and may exceed it once after maintenance: the chain holds in both cases.
- Frames from before 2023 have no `seqId` but a checksum of the 25 best levels a side, of texts
  as the frames have them; today's checksum is always 0, which says nothing.
- Levels have four members: price, size, one that is deprecated, number of orders.
- In pre-open and call auctions "the best ask may be lower than the best bid" (Order book channel).
- `trades` joins the fills of one taker order at one price; its side is the taker's. On subscribe
  it repeats the latest trade.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Final, Literal
from zlib import crc32

import msgspec
import orjson
from msgspec import Meta

from ingestor.adapter import (
    INT64_MAX,
    MILLISECOND,
    OTHER_BOOK,
    TIME_MAX,
    TIME_MIN,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    Counted,
    DecimalLevels,
    DecodeMany,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    LostTrades,
    Market,
    Notice,
    Reconnect,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    RowClass,
    Rows,
    Sequential,
    Side,
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
    by_kind,
    flat,
    milliseconds_ns,
    plain_integers,
    set_column,
    shape,
)

from . import instruments

_CHANNELS: Final = {"trades": "trades", "quotes": "bbo-tbt"}
_DEPTH: Final = 400
# By levels a side. Those of 10 ms, books50-l2-tbt and books-l2-tbt, want a login with a VIP level.
_BOOK_CHANNELS: Final = {_DEPTH: "books", 5: "books5", 1: "bbo-tbt"}
_IMAGES: Final = BookRule(Continuity.NONE, may_cross=True)
_BOOKS: Final = (
    BookOffer(_DEPTH, 100),
    BookOffer(5, 100, _IMAGES, is_plain=True),
    BookOffer(1, 10, replace(_IMAGES, quotes_from_book=True), is_plain=True),
)
_WHOLE_BOOKS: Final = frozenset({"books", "books5"})  # never quotes
_NAMED: Final = {*_CHANNELS.values(), *_BOOK_CHANNELS.values()}
_CHECKED: Final = 25  # levels a side that a checksum covers
_CHECKSUM: Final = int(Flag.CHECKSUM)
_CRC_BITS: Final = 0xFFFFFFFF  # a checksum is signed
_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)
_LAST: Final = int(Flag.LAST)
_RPI: Final = "1"  # the source of a trade: against a retail price improvement order
_RPI_FLAGS: Final = {_RPI: int(Flag.LAST | Flag.RPI)}
_LEVEL: Final = '["<price>","<size>","<text>","<text>"]'
_BEST: Final = '[["<price:{side}_price>","<size:{side}_size>","<text>","<text>"]]'
_BOOK_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("tickers", "trades-all", "mark-price", "index-tickers", "funding-rate", "open-interest"),
        *("price-limit", "instruments", "status", "liquidation-orders"),
        *("books50-l2-tbt", "books-l2-tbt", "books-elp", "books-elp-all", "books-rpi"),
        *("adl-warning", "estimated-price", "opt-summary", "economic-calendar"),
        *("event-contract-markets", "block-tickers", "public-struc-block-trades"),
        *("public-block-trades", "sprd-public-trades", "sprd-tickers", "sprd-bbo-tbt"),
        *("sprd-books5", "sprd-books-l2-tbt", "call-auction-details"),
    )
}
_CANDLES: Final = Filtered("candles")
_UPGRADE: Final = "64008"  # the connection will be closed for an upgrade of the service
_REFUSED: Final = re.compile(r"channel:([\w-]+),instId:([\w-]+)")


def book_checksum(bids: DecimalLevels, asks: DecimalLevels) -> int:
    """Return the CRC32 of a book's 25 best levels a side, bids and asks in turns."""
    levels = [level for pair in zip_longest(bids, asks) for level in pair if level is not None]
    return crc32(":".join(chain.from_iterable(levels)).encode())


_MARKET: Final = Market(
    endpoints=(Endpoint("wss://ws.okx.com:8443/ws/v5/public"),),
    rest_url="https://www.okx.com",
    limits=Limits(
        streams_per_connection=240,
        streams_of_channel={"book": 25},  # "less than 30 channels" of 50 or 400 levels
        streams_per_subscribe=30,  # a request is at most 64 KB
        connects_per_s=2.0,  # 3 are allowed
        connects_burst=1,
        requests_per_s=3.0,
        requests_per_hour=480,
        # 40 books in 2 s and 20 instrument lists in 2 s, each counted for itself.
        rest=RestLimit(weight_per_s=5.0, weight_burst=10),
        ping_interval_s=20.0,
    ),
    book=BookRule(
        Continuity.PREVIOUS,
        SnapshotSource.EITHER,
        may_cross=True,
        checksum_of_decimals=book_checksum,
        checksum_depth=_CHECKED,
    ),
    books=_BOOKS,
    trade_numbers=TradeNumbers.SPANS,
)
_HISTORY_PAGE: Final = 100  # trades in one answer

# How frames begin as OKX sends them, which tells them apart; others are read too.
_BEGINS: Final = 27
_CHANNEL_OF: Final = {
    b'{"arg":{"channel":"trades",': "trades",
    b'{"arg":{"channel":"bbo-tbt"': "bbo-tbt",
    b'{"arg":{"channel":"books","': "books",
}
_beginning: Final = itemgetter(slice(_BEGINS))


# The texts of frequent frames. A quote with an empty side goes to `decode`.
_TRADE: Final = (
    '{"arg":{"channel":"trades","instId":"<symbol>"},"data":<[>'
    '{"instId":"<text>","tradeId":"<int:sequence,trade_id_low>","px":"<price:price>",'
    '"sz":"<size:size>","side":"<side:buy=1|sell=2>","ts":"<ms:ts_event>","count":"1"'
)
_SHAPES: Final = (
    *(
        shape(
            RowClass.TRADE,
            _TRADE + more + "<row><]>}",
        )
        for more in (',"source":"0","seqId":<n>}', ',"source":"0"}', "}")
    ),
    shape(
        RowClass.QUOTE,
        '{"arg":{"channel":"bbo-tbt","instId":"<symbol>"},"data":<[>{"asks":'
        + _BEST.format(side="ask")
        + ',"bids":'
        + _BEST.format(side="bid")
        + ',"ts":"<ms:ts_event>","seqId":<int:sequence>}<row><]>}',
    ),
    shape(
        RowClass.LEVEL,
        '{"arg":{"channel":"books","instId":"<symbol>"},"action":"update","data":<[>{"asks":<[*>'
        + _LEVEL
        + '<level:asks><]>,"bids":<[*>'
        + _LEVEL
        + '<level:bids><]>,"ts":"<ms:ts_event>","checksum":0,"seqId":<int:first,last>,'
        '"prevSeqId":<int:previous>}<row><]>}',
    ),
)


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


_parse_image: Final = msgspec.json.Decoder(_Images, float_hook=str).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_history: Final = msgspec.json.Decoder(_History, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_NONE: Final = [_Level("0", "0")]


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = milliseconds_ns(plain_integers([one.ts for one in trades]))
    set_column(rows, "sequence", plain_integers([one.tradeId for one in trades]))
    set_column(rows, "side", [_SIDES.get(one.side, _NO_SIDE) for one in trades])
    rows["trade_id_low"] = rows["sequence"]
    fills = [one.count for one in trades]
    if fills.count("1") != len(fills):
        spans = plain_integers([str(one) for one in fills])
        set_column(rows, "trade_id_high", [max(0, one - 1) for one in spans])
    sources = [one.source for one in trades]
    if _RPI in sources:
        set_column(rows, "flags", [_RPI_FLAGS.get(source, _LAST) for source in sources])
    return [one.px for one in trades], [one.sz for one in trades]


def _read_quotes(quotes: list[_Quote], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = milliseconds_ns(plain_integers([one.ts for one in quotes]))
    set_column(rows, "sequence", [one.seqId for one in quotes])
    bids = [(one.bids or _NONE)[0] for one in quotes]
    asks = [(one.asks or _NONE)[0] for one in quotes]
    return (
        [one.price for one in bids],
        [one.size for one in bids],
        [one.price for one in asks],
        [one.size for one in asks],
    )


def _spread(
    parsed: Sequence[_Trades] | Sequence[_Quotes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
) -> tuple[Sequence[Any], ...]:
    """Return the events of frames, with the columns that `ColumnBuffer.add_trades` takes."""
    numbers = [symbols[one.arg.instId] for one in parsed]
    return flat([one.data for one in parsed], numbers, ts_recv, frames)


def _append_book(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    book = _parse_book(payload)
    instrument = symbols[book.arg.instId]
    flags = _BOOK_FLAGS[book.action]
    for update in book.data:
        bids, asks = update.bids, update.asks
        previous = update.prevSeqId
        out.levels(
            instrument,
            _time_ns(update.ts),
            ts_recv,
            update.seqId,
            update.seqId,
            [(one.price, one.size) for one in bids],
            [(one.price, one.size) for one in asks],
            0 if previous == -1 else previous,
            flags and _image_flags(update),
            update.checksum & _CRC_BITS if update.checksum else None,
            are_pairs=True,
        )


def _append_books(
    books: Sequence[_Book],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
    out: ColumnBuffer,
) -> None:
    """Append books of several frames, as `_append_book` does each."""
    instruments = [symbols[one.arg.instId] for one in books]
    kinds: Sequence[int] = [_BOOK_FLAGS[one.action] for one in books]
    updates, numbers, received, at, kinds = flat(
        [one.data for one in books], instruments, ts_recv, frames, kinds
    )
    sides = [side for one in updates for side in (one.bids, one.asks)]
    counts = list(map(len, sides))
    levels = list(chain.from_iterable(sides))
    texts: list[object] = [None] * (2 * len(levels))
    texts[0::2] = [level.price for level in levels]
    texts[1::2] = [level.size for level in levels]
    out.updates(
        numbers,
        milliseconds_ns(plain_integers([one.ts for one in updates])).tolist(),
        received,
        counts[0::2],
        counts[1::2],
        texts,
        at,
        numbers=[one.seqId for one in updates],
        previous=[max(one.prevSeqId, 0) for one in updates],  # -1 of an image
        flags=[
            (kind and _image_flags(one)) | (_CHECKSUM if one.checksum else 0)
            for kind, one in zip(kinds, updates, strict=True)
        ],
        checksums=[one.checksum & _CRC_BITS for one in updates],
    )


def _image_flags(image: _Update) -> int:
    is_cut = max(len(image.bids), len(image.asks)) >= _DEPTH
    return Flag.SNAPSHOT | Flag.PARTIAL if is_cut else Flag.SNAPSHOT


def _append_images(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    """Append books of a few levels, each of which is whole."""
    message = _parse_quotes(payload)
    instrument = symbols[message.arg.instId]
    for image in message.data:
        out.levels(
            instrument,
            _time_ns(image.ts),
            ts_recv,
            image.seqId,
            image.seqId,
            [(one.price, one.size) for one in image.bids],
            [(one.price, one.size) for one in image.asks],
            0,
            Flag.SNAPSHOT | Flag.PARTIAL,
            are_pairs=True,
        )


def _time_ns(text: str) -> int:
    [time] = plain_integers([text])
    if not TIME_MIN <= time * MILLISECOND <= TIME_MAX:
        raise ValueError(f"{text!r:.40} ms is no time between 2010 and 2100")
    return time * MILLISECOND


class Okx:
    venue: ClassVar[str] = "okx"
    reference: ClassVar[str] = "OKX API v5, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(instruments.TYPES, _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self.book_channel = "books"

    def choose_book(self, offer: BookOffer) -> None:
        self.book_channel = _BOOK_CHANNELS[offer.depth]

    def stream(self, channel: str, symbol: str) -> str:
        return f"{self.book_channel if channel == 'book' else _CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("unsubscribe", streams)

    def ping(self) -> bytes | None:
        return b"ping"

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        channel = _CHANNEL_OF.get(_beginning(payload))
        if channel is None:
            try:
                message = orjson.loads(payload)
            except ValueError:
                if payload == b"pong":
                    return Notice.HEARTBEAT
                raise
            if "data" not in message:
                return self._event(message)
            channel = message["arg"]["channel"]
        symbols = self._symbols
        if channel in _WHOLE_BOOKS or channel == self.book_channel:
            return self._book(channel, payload, ts_recv, out)
        match channel:
            case "trades":
                trades = _parse_trades(payload)
                number = symbols[trades.arg.instId]
                for trade in trades.data:
                    out.add_trade(_read_trades, trade, number, ts_recv)
            case "bbo-tbt":
                quotes = _parse_quotes(payload)
                number = symbols[quotes.arg.instId]
                for quote in quotes.data:
                    out.add_quote(_read_quotes, quote, number, ts_recv)
            case _:
                return self._left_out(channel)
        return None

    def _book(
        self, channel: str, payload: bytes, ts_recv: int, out: ColumnBuffer
    ) -> Control | None:
        if channel != self.book_channel:
            return OTHER_BOOK
        append = _append_book if channel == "books" else _append_images
        append(payload, self._symbols, ts_recv, out)
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        named = orjson.loads(payload)["arg"]
        channel, symbol = named["channel"], named["instId"]
        return (f"{channel}:{symbol}",) if channel in _NAMED else ()

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        query = {"instId": symbol, "type": "1", "after": str(lost.last + 1)}
        query["limit"] = str(_HISTORY_PAGE)
        return RestRequest("/api/v5/market/history-trades", query)

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        for trade in reversed(_parse_history(body).data):
            out.add_trade(_read_trades, trade, self._symbols[symbol], ts_recv)

    @classmethod
    def decoder_of_many(cls, market: str, symbols: Mapping[str, int]) -> DecodeMany:
        def decode(
            payloads: list[bytes], ts_recv: list[int], frames: Sequence[int], out: ColumnBuffer
        ) -> Sequence[Control]:
            channels = [_CHANNEL_OF[_beginning(one)] for one in payloads]
            for channel, (some, received, at) in by_kind(channels, payloads, ts_recv, frames):
                if channel == "trades":
                    trades = list(map(_parse_trades, some))
                    out.add_trades(_read_trades, *_spread(trades, symbols, received, at))
                elif channel == "bbo-tbt":
                    quotes = list(map(_parse_quotes, some))
                    out.add_quotes(_read_quotes, *_spread(quotes, symbols, received, at))
                else:
                    _append_books(list(map(_parse_book, some)), symbols, received, at, out)
            return ()

        return decode

    def _left_out(self, channel: str) -> Control:
        if channel.startswith("candle"):
            return _CANDLES
        if channel not in _LEFT_OUT:
            raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        return _LEFT_OUT[channel]

    def _event(self, message: Any) -> Control:
        match message:
            case {"event": "subscribe", "arg": {"channel": channel, "instId": symbol}}:
                return Ack((f"{channel}:{symbol}",))
            case {"event": "notice", "code": code, "msg": str(text)}:
                return Reconnect(text) if code == _UPGRADE else Notice.INFO
            case {"event": "error", "code": code, "msg": str(text)}:
                named = tuple(":".join(found) for found in _REFUSED.findall(text))
                return Refused(f"{code} {text}", named)
            case {"event": "unsubscribe" | "channel-conn-count" | "channel-conn-count-error"}:
                return Notice.INFO
        raise UnknownMessage(self.venue, f"{message!r:.60}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v5/public/instruments", {"instType": instruments.TYPES[market]})]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        return instruments.entries(body)

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return instruments.listing(market, entry)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return instruments.parse(market, entry)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return RestRequest("/api/v5/market/books", {"instId": symbol, "sz": str(_DEPTH)})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        [image] = _parse_image(body).data
        is_cut = max(len(image.bids), len(image.asks)) >= _DEPTH
        out.levels(
            self._symbols[symbol],
            _time_ns(image.ts),
            ts_recv,
            image.seqId,
            image.seqId,
            [(one.price, one.size) for one in image.bids],
            [(one.price, one.size) for one in image.asks],
            0,
            Flag.SNAPSHOT | Flag.FETCHED | (Flag.PARTIAL if is_cut else 0),
            are_pairs=True,
        )

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        return RestRequest("/api/v5/market/books", {"instId": symbol, "sz": str(depth)})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """An image is renewed each 50 ms, the channel each 100 ms: its number may lie between two
        updates, and then nothing is compared. Before 2026 images had none."""
        [image] = orjson.loads(body)["data"]
        bids, asks = ([(level[0], level[1]) for level in image[side]] for side in ("bids", "asks"))
        return RestSnapshot(image.get("seqId", 0), bids, asks)


def _operations(operation: str, streams: Sequence[str]) -> Iterator[bytes]:
    size = _MARKET.limits.streams_per_subscribe
    for start in range(0, len(streams), size):
        pairs = [stream.partition(":") for stream in streams[start : start + size]]
        arguments = [{"channel": channel, "instId": symbol} for channel, _, symbol in pairs]
        yield orjson.dumps({"op": operation, "args": arguments})


adapter: type[FeedAdapter] = Okx
