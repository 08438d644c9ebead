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
from typing import Any, ClassVar, Final
from zlib import crc32

import orjson

from ingestor.adapter import (
    OTHER_BOOK,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    DecimalLevels,
    DecodeError,
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
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
    time_ns,
)

from . import instruments, market_data
from .decoder import (
    DEPTH,
    append_book,
    append_history,
    append_images,
    append_quotes,
    append_trades,
    parse_image,
)
from .shapes import SHAPES

_CHANNELS: Final = {
    "trades": "trades",
    "quotes": "bbo-tbt",
    "candles": market_data.CANDLES,
    "funding": "funding-rate",
    "mark_price": "mark-price",
    "open_interest": "open-interest",
    "liquidations": "liquidation-orders",
    "instrument_status": "instruments",
}
_PUBLIC: Final = frozenset({"trades", "quotes", "book", "mark_price", "instrument_status"})
# By market, those that spot has not.
_MORE: Final[Mapping[str, frozenset[str]]] = {
    "spot": frozenset(),
    "swap": frozenset({"funding", "open_interest", "liquidations"}),
    "futures": frozenset({"open_interest", "liquidations"}),
}
# By levels a side. Those of 10 ms, books50-l2-tbt and books-l2-tbt, want a login with a VIP level.
_BOOK_CHANNELS: Final = {DEPTH: "books", 5: "books5", 1: "bbo-tbt"}
_IMAGES: Final = BookRule(Continuity.NONE, may_cross=True)
_BOOKS: Final = (
    BookOffer(DEPTH, 100),
    BookOffer(5, 100, _IMAGES, is_plain=True),
    BookOffer(1, 10, replace(_IMAGES, quotes_from_book=True), is_plain=True),
)
_WHOLE_BOOKS: Final = frozenset({"books", "books5"})  # never quotes
_NAMED: Final = {*_CHANNELS.values(), *_BOOK_CHANNELS.values()}
_CHECKED: Final = 25  # levels a side that a checksum covers
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("tickers", "trades-all", "index-tickers", "price-limit", "status"),
        *("books50-l2-tbt", "books-l2-tbt", "books-elp", "books-elp-all", "books-rpi"),
        *("adl-warning", "estimated-price", "opt-summary", "economic-calendar"),
        *("event-contract-markets", "block-tickers", "public-struc-block-trades"),
        *("public-block-trades", "sprd-public-trades", "sprd-tickers", "sprd-bbo-tbt"),
        *("sprd-books5", "sprd-books-l2-tbt", "call-auction-details"),
    )
}
_CANDLES: Final = Filtered("candles")  # of other intervals, marks and indices
_UPGRADE: Final = "64008"  # the connection will be closed for an upgrade of the service
_REFUSED: Final = re.compile(r"channel:([\w-]+),instId:([\w-]+)")


def book_checksum(bids: DecimalLevels, asks: DecimalLevels) -> int:
    """Return the CRC32 of a book's 25 best levels a side, bids and asks in turns."""
    levels = [level for pair in zip_longest(bids, asks) for level in pair if level is not None]
    return crc32(":".join(chain.from_iterable(levels)).encode())


_MARKET: Final = Market(
    endpoints=(),
    rest_url="https://www.okx.com",
    other_hosts=(
        *("wseea.okx.com", "wsus.okx.com", "wsaws.okx.com", "ws.okex.com", "wsaws.okex.com"),
        *("eea.okx.com", "us.okx.com", "aws.okx.com", "www.okex.com"),
    ),
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
    recorded="2022-05",
)
_HISTORY_PAGE: Final = 100  # trades in one answer


def _market(more: frozenset[str]) -> Market:
    return replace(
        _MARKET,
        endpoints=(
            Endpoint("wss://ws.okx.com:8443/ws/v5/public", _PUBLIC | more),
            Endpoint("wss://ws.okx.com:8443/ws/v5/business", frozenset({"candles"})),
        ),
    )


# How frames begin as OKX sends them, which tells them apart; others are read too.
_BEGINS: Final = 27
_CHANNEL_OF: Final = {
    b'{"arg":{"channel":"trades",': "trades",
    b'{"arg":{"channel":"bbo-tbt"': "bbo-tbt",
    b'{"arg":{"channel":"books","': "books",
}
_beginning: Final = itemgetter(slice(_BEGINS))


class Okx:
    venue: ClassVar[str] = "okx"
    reference: ClassVar[str] = "OKX API v5, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(more) for name, more in _MORE.items()}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._type = instruments.TYPES[market]
        self.book_channel = "books"

    def choose_book(self, offer: BookOffer) -> None:
        self.book_channel = _BOOK_CHANNELS[offer.depth]

    def stream(self, channel: str, symbol: str) -> str:
        name = self.book_channel if channel == "book" else _CHANNELS[channel]
        return f"{name}:{self._type if name in market_data.BY_TYPE else symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("unsubscribe", streams)

    def ping(self) -> bytes | None:
        return b"ping"

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return SHAPES

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
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
                append_trades(payload, symbols, ts_recv, out)
            case "bbo-tbt":
                append_quotes(payload, symbols, ts_recv, out)
            case _ if market_data.takes(channel):
                return market_data.append(channel, symbols, payload, ts_recv, out)
            case _:
                return self._left_out(channel)
        return None

    def _book(
        self, channel: str, payload: bytes, ts_recv: int, out: ColumnBuffer
    ) -> Control | None:
        if channel != self.book_channel:
            return OTHER_BOOK
        append = append_book if channel == "books" else append_images
        append(payload, self._symbols, ts_recv, out)
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        named = orjson.loads(payload)["arg"]
        channel = named["channel"]
        if channel in market_data.BY_TYPE:
            return (f"{channel}:{named['instType']}",)
        return (f"{channel}:{named['instId']}",) if channel in _NAMED else ()

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        query = {"instId": symbol, "type": "1", "after": str(lost.last + 1)}
        query["limit"] = str(_HISTORY_PAGE)
        return RestRequest("/api/v5/market/history-trades", query)

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the past trades of a REST answer, oldest first.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        append_history(body, self._symbols[symbol], ts_recv, out)

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
            case {"event": "subscribe", "arg": {"channel": channel, "instType": kind}}:
                return Ack((f"{channel}:{kind}",))
            case {"event": "notice", "code": code, "msg": str(text)}:
                return Reconnect(text) if code == _UPGRADE else Notice.INFO
            case {"event": "error", "code": code, "msg": str(text)}:
                named = tuple(":".join(found) for found in _REFUSED.findall(text))
                return Refused(f"{code} {text}", named)
            case {"event": "unsubscribe" | "channel-conn-count" | "channel-conn-count-error"}:
                return Notice.INFO
        raise UnknownMessage(self.venue, f"{message!r:.60}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return instruments.is_of_market(market, symbol)

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
        return RestRequest("/api/v5/market/books", {"instId": symbol, "sz": str(DEPTH)})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        [image] = parse_image(body).data
        is_cut = max(len(image.bids), len(image.asks)) >= DEPTH
        out.add_book_update(
            self._symbols[symbol],
            time_ns(image.ts),
            ts_recv,
            [(level.price, level.size) for level in image.bids],
            [(level.price, level.size) for level in image.asks],
            first=image.seqId,
            last=image.seqId,
            flags=Flag.SNAPSHOT | Flag.FETCHED | (Flag.PARTIAL if is_cut else 0),
            are_pairs=True,
        )

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        return RestRequest("/api/v5/market/books", {"instId": symbol, "sz": str(depth)})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """An image is renewed each 50 ms, the channel each 100 ms: its number may lie between two
        updates, and then nothing is compared. Before 2026 images had none.
        """
        answer = orjson.loads(body)
        if answer["code"] != "0":
            raise DecodeError(self.venue, f"{symbol}: code {answer['code']!r:.40}")
        [image] = answer["data"]
        bids, asks = (
            [(price, size) for price, size, _, _ in image[side]] for side in ("bids", "asks")
        )
        return RestSnapshot(image.get("seqId", 0), bids, asks)


def _operations(operation: str, streams: Sequence[str]) -> Iterator[bytes]:
    size = _MARKET.limits.streams_per_subscribe
    for start in range(0, len(streams), size):
        pairs = [stream.partition(":") for stream in streams[start : start + size]]
        arguments = [
            {"channel": channel, "instType" if channel in market_data.BY_TYPE else "instId": what}
            for channel, _, what in pairs
        ]
        yield orjson.dumps({"op": operation, "args": arguments})


adapter: type[FeedAdapter] = Okx
