"""KuCoin, spot and futures: trades, best bid and ask, the whole book in increments.

Reference: KuCoin API docs: Websocket "Get Public Token", Spot "Trade", "Orderbook - Level1",
"Orderbook - Increment", Futures "Match", "Get Ticker V2", "Orderbook - Increment", REST "Get All
Symbols", "Get All Symbols (futures)", "Get Part OrderBook", "Get Full OrderBook" of futures.
Units: prices are decimal text. Sizes of spot are text in base, those of futures bare integers of
contracts. Times are ns (trades, futures' ticker) or ms (books, spot's level 1), bare or as text.
Traps:
- A token is asked for by POST first (`bullet-public`). It opens connections for a day.
- One request names one topic with up to 100 symbols; its answer has its id alone.
- Spot's increments cover sequenceStart to sequenceEnd, those of futures one number each. An entry
  with price 0 only moves the number. The public image of spot is of 100 levels a side.
- A futures' change is one text: price, side, size.
- The side of a trade is the taker's. Older trade ids are 24 hex digits.
- A candle does not say whether it is closed.
- `level2Depth50` is the whole book of 50 levels each time; that of 5 levels is left out.
- Recordings of the addresses of the unified account (x-push-spot) are read too: unified.py.
- A contract of an inverse market is -1 in the list: one dollar. XBT is BTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    NO_SIDE,
    OTHER_BOOK,
    TAKER_SIDES,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    Continuity,
    Control,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Handshake,
    Instrument,
    Limits,
    Listing,
    Market,
    Notice,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
    best_of,
    pairs_of,
    time_ns,
    whole_number,
)

from . import instruments, market_data, unified

_TOPICS: Final = {
    "spot": {
        "trades": "/market/match",
        "quotes": "/spotMarket/level1",
        "book": "/market/level2",
        "candles": "/market/candles",
    },
    "futures": {
        "trades": "/contractMarket/execution",
        "quotes": "/contractMarket/tickerV2",
        "book": "/contractMarket/level2",
        "funding": "/contract/instrument",
        "mark_price": "/contract/instrument",
        "candles": "/contractMarket/limitCandle",
    },
}
_DEPTH: Final = 50
_FIRST: Final = {"spot": 100, "futures": 10_000}  # levels of the images over REST
_IMAGES: Final = {
    "spot": f"/spotMarket/level2Depth{_DEPTH}",
    "futures": f"/contractMarket/level2Depth{_DEPTH}",
}
_BOOKS: Final = {market: topics["book"] for market, topics in _TOPICS.items()}
_LEFT_OUT: Final = {
    name: Filtered(name.rpartition("/")[2])
    for name in (
        *("/market/ticker", "/market/snapshot", "/spotMarket/level2Depth5"),
        *("/indicator/index", "/indicator/markPrice", "/contractMarket/ticker"),
        *("/contractMarket/level2Depth5", "/contract/announcement"),
        *("/contractMarket/snapshot", "/contractMarket/tradeOrders"),
    )
}
_SNAPSHOTS: Final = {
    "spot": "/api/v1/market/orderbook/level2_100",
    "futures": "/api/v1/level2/snapshot",
}
_IMAGE: Final = {"spot": int(Flag.SNAPSHOT | Flag.PARTIAL), "futures": int(Flag.SNAPSHOT)}
_NO_PRICE: Final = frozenset({"0", 0})
_HEX_ID: Final = 24  # digits of an older trade id
_CHANGE_PARTS: Final = 3
_NS: Final = 1
_ID_MASK: Final = (1 << 64) - 1


class _Trade(msgspec.Struct, rename="camel", gc=False):
    symbol: str
    side: str
    price: Any  # as text or bare: `float_hook` keeps the digits
    size: Any
    trade_id: Any
    sequence: Any = 0
    time: Any = None  # of spot
    ts: Any = None  # of futures


class _Level1(msgspec.Struct, gc=False):
    timestamp: Any
    asks: list[Any] | None = None
    bids: list[Any] | None = None


class _Ticker(msgspec.Struct, rename="camel", gc=False):
    symbol: str
    best_bid_price: Any
    best_bid_size: Any
    best_ask_price: Any
    best_ask_size: Any
    ts: Any
    sequence: Any = 0


class _Sides(msgspec.Struct, gc=False):
    asks: list[list[Any]]
    bids: list[list[Any]]


class _Increment(msgspec.Struct, rename="camel", gc=False):
    symbol: str
    changes: _Sides
    sequence_start: Any
    sequence_end: Any
    time: Any


class _Change(msgspec.Struct, gc=False):
    sequence: Any
    change: str
    timestamp: Any


class _Image(msgspec.Struct, gc=False):
    sequence: Any
    asks: list[list[Any]]
    bids: list[list[Any]]
    time: Any = None  # of spot, ms
    ts: Any = None  # of futures, ns
    symbol: str | None = None  # of futures


class _Best(msgspec.Struct, gc=False):
    """The best levels of a book."""

    asks: list[list[Any]]
    bids: list[list[Any]]
    timestamp: Any
    sequence: Any = 0


class _Message(msgspec.Struct, gc=False):
    type: str = ""
    topic: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: Any = None
    code: Any = None
    T: str = ""  # this and the following: of the unified account
    result: Any = None
    message: Any = None
    reason: Any = None


class _Answer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: _Image


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_level1: Final = msgspec.json.Decoder(_Level1, float_hook=str).decode
_parse_ticker: Final = msgspec.json.Decoder(_Ticker, float_hook=str).decode
_parse_increment: Final = msgspec.json.Decoder(_Increment, float_hook=str).decode
_parse_change: Final = msgspec.json.Decoder(_Change, float_hook=str).decode
_parse_best: Final = msgspec.json.Decoder(_Best, float_hook=str).decode
_parse_image: Final = msgspec.json.Decoder(_Answer, float_hook=str).decode


def _market(name: str, host: str, rest_host: str, continuity: Continuity) -> Market:
    of_images = BookRule(Continuity.NONE, depth_max=_DEPTH, images_only=True)
    return Market(
        endpoints=(Endpoint(f"wss://{host}/", frozenset(_TOPICS[name])),),
        rest_url=f"https://{rest_host}",
        limits=Limits(
            streams_per_connection=300,  # 400 are allowed
            streams_per_subscribe=100,
            connects_per_s=0.4,  # 30 a minute
            connects_burst=5,
            requests_per_s=8.0,  # 100 in 10 s, pings among them
            rest=RestLimit(name, weight_per_s=20.0, weight_burst=100),  # 2,000 in 30 s
            ping_interval_s=18.0,
            frame_bytes_max=4 << 20,
        ),
        book=BookRule(continuity, SnapshotSource.REST),
        books=(
            BookOffer(_FIRST[name]),
            BookOffer(_DEPTH, 100, of_images, is_plain=True),
            unified.OFFER,
        ),
        trade_numbers=TradeNumbers.ASCENDING,
        other_hosts=(f"x-push-{name}.kucoin.com",),
    )


class Kucoin:
    venue: ClassVar[str] = "kucoin"
    reference: ClassVar[str] = "KuCoin API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": _market("spot", "ws-api-spot.kucoin.com", "api.kucoin.com", Continuity.RANGE),
        "futures": _market(
            "futures",
            "ws-api-futures.kucoin.com",
            "api-futures.kucoin.com",
            Continuity.INCREMENT,
        ),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._topics = dict(_TOPICS[market])
        self._channels = {topic: channel for channel, topic in self._topics.items()}
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)

    def choose_book(self, offer: BookOffer) -> None:
        names = {_DEPTH: _IMAGES[self._market], unified.DEPTH: unified.BOOK}
        self._topics["book"] = names.get(offer.depth, _BOOKS[self._market])
        self._channels = {topic: channel for channel, topic in self._topics.items()}

    def stream(self, channel: str, symbol: str) -> str:
        stream = f"{self._topics[channel]}:{symbol}"
        return f"{stream}_{market_data.INTERVAL}" if channel == "candles" else stream

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, operation: str, streams: Sequence[str]) -> Iterator[bytes]:
        by_topic: dict[str, list[str]] = {}
        for stream in streams:
            by_topic.setdefault(stream.partition(":")[0], []).append(stream)
        for topic, some in by_topic.items():
            for number, part in self._requests.parts(some, keep=operation == "subscribe"):
                symbols = ",".join(stream.partition(":")[2] for stream in part)
                request = {"id": str(number), "type": operation, "topic": f"{topic}:{symbols}"}
                yield orjson.dumps(request | {"privateChannel": False, "response": True})

    def ping(self) -> bytes | None:
        return b'{"id":"ping","type":"ping"}'

    @classmethod
    def handshake_request(cls, market: str) -> RestRequest:
        return RestRequest("/api/v1/bullet-public", weight=10, body=b"")

    @classmethod
    def read_handshake(cls, market: str, body: bytes) -> Handshake:
        return instruments.handshake(body)

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        message = _parse(payload)
        if message.T:
            has_book = self._topics["book"] == unified.BOOK
            push = unified.parse(payload)
            return unified.take(push, self._market, self._symbols, ts_recv, out, has_book=has_book)
        match message.type:
            case "message":
                return self._data(message, ts_recv, out)
            case "ack":
                streams = self._requests.answered(message.id)
                return Ack(streams) if streams else Notice.INFO
            case "pong":
                return Notice.HEARTBEAT
            case "welcome":
                return Notice.INFO
            case "error":
                text = f"{message.code} {msgspec.json.decode(message.data)}"
                return Refused(text, self._requests.answered(message.id))
            case "":
                return self._answer(message)
        raise UnknownMessage(self.venue, f"type {message.type!r:.60}")

    def _answer(self, message: _Message) -> Control:
        """Return what an answer of the unified account says."""
        if message.message == "welcome":
            return Notice.INFO
        if message.result is None:
            raise UnknownMessage(self.venue, "neither data nor an answer")
        streams = self._requests.answered(message.id)
        if message.result not in {True, "true"}:
            return Refused(str(message.reason or message.message), streams)
        return Ack(streams) if streams else Notice.INFO

    def _data(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> Control | None:
        topic, _, symbol = message.topic.partition(":")
        channel = self._channels.get(topic)
        if channel is None:
            if topic in {_BOOKS[self._market], _IMAGES[self._market]}:
                return OTHER_BOOK
            if topic not in _LEFT_OUT:
                raise UnknownMessage(self.venue, f"topic {message.topic!r:.60}")
            return _LEFT_OUT[topic]
        is_spot = self._market == "spot"
        match channel:
            case "trades":
                self._trade(_parse_trade(message.data), ts_recv, out)
            case "candles":
                market_data.candle(self._symbols, symbol, message.data, ts_recv, out)
            case "funding" | "mark_price":
                market_data.instrument(self._symbols[symbol], message.data, ts_recv, out)
            case "quotes" if is_spot:
                level1 = _parse_level1(message.data)
                bid, ask = (best_of([side] if side else []) for side in (level1.bids, level1.asks))
                time = time_ns(level1.timestamp)
                out.add_quote(self._symbols[symbol], time, ts_recv, 0, *bid, *ask)
            case "quotes":
                self._ticker(_parse_ticker(message.data), ts_recv, out)
            case _ if topic in _IMAGES.values():
                self._best(symbol, _parse_best(message.data), ts_recv, out)
            case _ if is_spot:
                self._increment(_parse_increment(message.data), ts_recv, out)
            case _:
                self._change(symbol, _parse_change(message.data), ts_recv, out)
        return None

    def _trade(self, trade: _Trade, ts_recv: int, out: ColumnBuffer) -> None:
        identifier = _trade_id(trade.trade_id)
        out.add_trade(
            self._symbols[trade.symbol],
            time_ns(trade.ts if trade.time is None else trade.time, _NS),
            ts_recv,
            whole_number(trade.sequence),
            trade.price,
            trade.size,
            TAKER_SIDES.get(trade.side, NO_SIDE),
            identifier & _ID_MASK,
            trade_id_high=identifier >> 64,
        )

    def _ticker(self, ticker: _Ticker, ts_recv: int, out: ColumnBuffer) -> None:
        bid, ask = (
            ("0", "0") if size in _NO_PRICE else (price, size)
            for price, size in (
                (ticker.best_bid_price, ticker.best_bid_size),
                (ticker.best_ask_price, ticker.best_ask_size),
            )
        )
        number, sequence = self._symbols[ticker.symbol], whole_number(ticker.sequence)
        out.add_quote(number, time_ns(ticker.ts, _NS), ts_recv, sequence, *bid, *ask)

    def _increment(self, increment: _Increment, ts_recv: int, out: ColumnBuffer) -> None:
        bids, asks = (
            [pair for pair in pairs_of(side) if pair[0] not in _NO_PRICE]
            for side in (increment.changes.bids, increment.changes.asks)
        )
        out.add_book_update(
            self._symbols[increment.symbol],
            time_ns(increment.time),
            ts_recv,
            bids,
            asks,
            first=whole_number(increment.sequence_start),
            last=whole_number(increment.sequence_end),
            are_pairs=True,
        )

    def _change(self, symbol: str, change: _Change, ts_recv: int, out: ColumnBuffer) -> None:
        parts = change.change.split(",")
        if len(parts) != _CHANGE_PARTS:
            raise ValueError(f"{change.change!r:.60} is no price, side and size")
        price, side, size = parts
        levels = [] if price in _NO_PRICE else [(price, size)]
        bids, asks = {"buy": (levels, []), "sell": ([], levels)}[side]
        number, sequence = self._symbols[symbol], whole_number(change.sequence)
        time = time_ns(change.timestamp)
        out.add_book_update(
            number, time, ts_recv, bids, asks, first=sequence, last=sequence, are_pairs=True
        )

    def _best(self, symbol: str, best: _Best, ts_recv: int, out: ColumnBuffer) -> None:
        bids, asks = pairs_of(best.bids), pairs_of(best.asks)
        number, time = whole_number(best.sequence), time_ns(best.timestamp)
        flags = int(Flag.SNAPSHOT | Flag.PARTIAL)
        instrument = self._symbols[symbol]
        out.add_book_update(
            instrument,
            time,
            ts_recv,
            bids,
            asks,
            first=number,
            last=number,
            flags=flags,
            are_pairs=True,
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = _parse(payload)
        if message.T:
            push = unified.parse(payload)
            channel = unified.channel_of(push)
            if channel not in self._topics:
                return ()
            symbol = unified.symbol_of(push)
            return (
                f"{unified.BOOK}:{symbol}" if channel == "book" else self.stream(channel, symbol),
            )
        stream = message.topic
        topic = stream.partition(":")[0]
        return (stream,) if topic in self._channels or topic in _IMAGES.values() else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest(instruments.PATHS[market], weight=4)]

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
        if self._topics["book"] in _IMAGES.values():
            return None
        return RestRequest(_SNAPSHOTS[self._market], {"symbol": symbol}, weight=3)

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        image = _parse_image(body).data
        if image.symbol not in {None, symbol}:
            raise DecodeError(self.venue, f"a book of {image.symbol!r:.60} for {symbol}")
        number = whole_number(image.sequence)
        time = time_ns(image.ts, _NS) if image.time is None else time_ns(image.time)
        flags = _IMAGE[self._market]
        out.add_book_update(
            self._symbols[symbol],
            time,
            ts_recv,
            pairs_of(image.bids),
            pairs_of(image.asks),
            first=number,
            last=number,
            flags=flags,
            are_pairs=True,
        )


def _trade_id(text: object) -> int:
    """Return a trade's id: decimal digits, or 24 hex digits as they were before."""
    if type(text) is str and len(text) == _HEX_ID and text.isascii() and text.isalnum():
        return int(text, 16)
    return whole_number(text)


adapter: type[FeedAdapter] = Kucoin
