"""Binance spot, USD-M and COIN-M futures: trades, best bid and ask, book deltas.

Reference: Binance "WebSocket Streams" (spot), "Websocket Market Streams" (USD-M, COIN-M), REST
"Exchange Information" and "Order Book" of each, read 2026-11-21.
Units: prices and sizes are decimal text, times are ms, on spot also us where the address has
`timeUnit=MICROSECOND`. ts_event is the matching engine's time (T) where a message has one, else the
event time (E); spot quotes and book snapshots have neither.
Traps:
- Spot is read from /ws, where an event comes alone; futures and recordings have it wrapped with
  the name of its stream. Both are read.
- `m` says that the buyer was the maker, so the seller is the aggressor.
- Futures document no `trade` stream, so prints come from `aggTrade` there: one row is the fills of
  one price and one taking side within 100 ms, without those of the insurance fund and of ADL; its
  id is the aggregate's. Recordings hold both; both are read. Of raw trades, `X` says what they
  were: those that are NA have neither price nor size.
- `nq` of an aggregate (since 2025-12-31) is its size without retail price improvement orders.
- USD-M spreads its streams over two endpoints: depth and quotes on /public, trades on /market.
- Subscribing to a symbol that doesn't exist is acknowledged like any other.
- After a coarser tick or lot size comes into force, orders of the old ones stay in the book (a size
  of 117924.5 at a lot size of 1): exponents come from the precision that is printed, not from the
  increments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    Counted,
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
    Milliseconds,
    Notice,
    Reconnect,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
)

from . import instruments, market_data, shapes
from .events import (
    NO_TRADE,
    AggregateTrade,
    BookTicker,
    Depth,
    FuturesDepth,
    FuturesTrade,
    Quote,
    Trade,
    append_event,
    append_history,
    is_whole_book,
    parse_wrapped,
    parser_of,
)

_SNAPSHOT: Final = int(Flag.SNAPSHOT)

# Levels of the REST snapshot, and what it weighs. Fewer than 1,000 soon leave a wrong top of a busy
# book, beyond which only what changed is known.
_SPOT_WEIGHTS: Final = {1_000: 50, 100: 5, 500: 25, 5_000: 250}
_FUTURES_WEIGHTS: Final = {1_000: 20, 100: 5, 500: 10}
_DEPTH_WEIGHT: Final = {"spot": _SPOT_WEIGHTS, "usdm": _FUTURES_WEIGHTS, "coinm": _FUTURES_WEIGHTS}
_SPOT_BOOKS: Final = tuple(BookOffer(d, ms) for ms in (100, 1_000) for d in _SPOT_WEIGHTS)
_FUTURES_BOOKS: Final = tuple(BookOffer(d, ms) for ms in (100, 250, 500) for d in _FUTURES_WEIGHTS)
_UNNAMED_SPEEDS: Final = {"spot": 1_000, "usdm": 250, "coinm": 250}  # of a stream `@depth`
_AUDIT_LIMITS: Final = (5, 10, 20, 50, 100)
_AUDIT_WEIGHT: Final = 5  # of up to 100 levels on spot; futures take less
_DEPTH_PATH: Final = {"spot": "/api/v3/depth", "usdm": "/fapi/v1/depth", "coinm": "/dapi/v1/depth"}
_HISTORY_PATH: Final = {
    "spot": "/api/v3/historicalTrades",
    "usdm": "/fapi/v1/aggTrades",
    "coinm": "/dapi/v1/aggTrades",
}
_HISTORY_WEIGHT: Final = {"spot": 25, "usdm": 20, "coinm": 20}
_HISTORY_PAGE: Final = 1_000  # trades in one answer
_EXCHANGE_INFO: Final = {
    "spot": RestRequest("/api/v3/exchangeInfo", {"showPermissionSets": "false"}, weight=20),
    "usdm": RestRequest("/fapi/v1/exchangeInfo"),
    "coinm": RestRequest("/dapi/v1/exchangeInfo"),
}

_USED_WEIGHT: Final = "X-MBX-USED-WEIGHT-1M"
# 300 connects in 5 minutes: 30 at once and 0.7 a second. A spot connection may receive 5 messages
# a second, our pongs among them, and 4 requests a second have been seen to be too many. Over REST
# 6,000 weight a minute.
_SPOT_LIMITS: Final = Limits(
    streams_per_connection=1_024,
    streams_per_subscribe=100,
    connects_per_s=0.7,
    connects_burst=30,
    requests_per_s=2.0,
    rest=RestLimit("spot", 40.0, 200, _USED_WEIGHT, used_max=4_800),
    lifetime_s=86_400.0,
)
# Since 2026-06-30 fapi and dapi share 2,400 weight a minute ("COIN-M/USD-M Architecture
# Integration", 2026-06-10). 1,024 streams and 10 messages a second on a connection
# (developers.binance.com, USD-M and COIN-M "Websocket Market Streams"); a mirror of these pages and
# the one of options still say 200, which `streams_per_connection = 200` in a feed keeps to.
_FUTURES_LIMITS: Final = replace(
    _SPOT_LIMITS,
    requests_per_s=5.0,
    rest=RestLimit("futures", 26.0, 100, _USED_WEIGHT, used_max=1_900),
)

_SPOT_BOOK: Final = BookRule(Continuity.RANGE, SnapshotSource.REST, verify_with_quotes=True)
_FUTURES_BOOK: Final = BookRule(Continuity.PREVIOUS, SnapshotSource.REST, verify_with_quotes=True)

_SPOT_STREAM: Final = {"trades": "trade", "quotes": "bookTicker", "candles": "kline_1m"}
_FUTURES_STREAM: Final = {
    "trades": "aggTrade",
    "quotes": "bookTicker",
    "candles": "kline_1m",
    "funding": "markPrice@1s",
    "mark_price": "markPrice@1s",
    "liquidations": "forceOrder",
}
_STREAM: Final = {"spot": _SPOT_STREAM, "usdm": _FUTURES_STREAM, "coinm": _FUTURES_STREAM}
_CONTRACTS: Final = "!contractInfo"  # of all symbols
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book", "candles"})
_MARKET_CHANNELS: Final = frozenset(
    {"trades", "candles", "funding", "mark_price", "liquidations", "instrument_status"}
)

# What each event is read with; spot quotes have none.
Parsers = Mapping[object, Callable[[bytes], Any]]
_PARSERS: Final[Parsers] = {
    "trade": msgspec.json.Decoder(Trade, float_hook=str).decode,
    "aggTrade": msgspec.json.Decoder(AggregateTrade, float_hook=str).decode,
    "bookTicker": msgspec.json.Decoder(BookTicker, float_hook=str).decode,
}
SPOT_PARSERS: Final[Parsers] = {
    **_PARSERS,
    "depthUpdate": msgspec.json.Decoder(Depth, float_hook=str).decode,
    None: msgspec.json.Decoder(Quote, float_hook=str).decode,
}
FUTURES_PARSERS: Final[Parsers] = {
    **_PARSERS,
    "trade": msgspec.json.Decoder(FuturesTrade, float_hook=str).decode,
    "depthUpdate": msgspec.json.Decoder(FuturesDepth, float_hook=str).decode,
}
_CHANNEL_OF_EVENT: Final = {
    "trade": "trades",
    "aggTrade": "trades",
    "bookTicker": "quotes",
    "depthUpdate": "book",
    "depth": "book",  # in the name of its stream
    None: "quotes",
    "kline": "candles",
    "kline_1m": "candles",
    "markPriceUpdate": "mark_price",
    "markPrice": "mark_price",
    "forceOrder": "liquidations",
    "contractInfo": "instrument_status",
}
# Documented events of streams that are not subscribed to on all markets; recordings hold them.
_NOT_SUBSCRIBED: Final = {
    *("24hrMiniTicker", "24hrTicker", "1hTicker", "4hTicker", "1dTicker", "avgPrice"),
    *("kline", "continuous_kline", "indexPrice_kline", "markPrice_kline", "markPriceUpdate"),
    *("indexPriceUpdate", "assetIndexUpdate", "compositeIndex", "contractInfo", "forceOrder"),
    *("blockTrade", "referencePrice"),  # spot, since 2026-05
    # USD-M's `tradingSession`: which session an exchange is in.
    *("EquityUpdate", "CommodityUpdate"),
    *("KR_EquityUpdate", "HK_EquityUpdate", "CN_EquityUpdate"),
}


class _Head(msgspec.Struct, gc=False):
    """Tell which frame it is: an event alone, or wrapped as combined streams have it."""

    e: str | None = None
    u: Any = None
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Snapshot(msgspec.Struct):
    """The answer to a request for a book."""

    lastUpdateId: Counted  # noqa: N815  # the venue's name
    bids: list[list[Any]]
    asks: list[list[Any]]
    T: Milliseconds | None = None  # futures
    symbol: str | None = None  # COIN-M


_parse_snapshot: Final = msgspec.json.Decoder(_Snapshot, float_hook=str).decode
_parse_head: Final = msgspec.json.Decoder(_Head).decode


class Binance:
    """One connection to one market of Binance."""

    venue: ClassVar[str] = "binance"
    reference: ClassVar[str] = "Binance WebSocket Streams, spot and futures, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            (Endpoint("wss://stream.binance.com:9443/ws", _SPOT_CHANNELS),),
            "https://api.binance.com",
            _SPOT_LIMITS,
            _SPOT_BOOK,
            _SPOT_BOOKS,
            TradeNumbers.CONSECUTIVE,
            recorded="2021-10, 2024-08",
            other_hosts=("data-stream.binance.vision", "data-api.binance.vision"),
        ),
        "usdm": Market(
            (
                Endpoint("wss://fstream.binance.com/public/stream", frozenset({"quotes", "book"})),
                Endpoint("wss://fstream.binance.com/market/stream", _MARKET_CHANNELS),
            ),
            "https://fapi.binance.com",
            _FUTURES_LIMITS,
            _FUTURES_BOOK,
            _FUTURES_BOOKS,
            TradeNumbers.SPANS,
            recorded="2021-07, 2024-08",
        ),
        "coinm": Market(
            (Endpoint("wss://dstream.binance.com/stream", _MARKET_CHANNELS | {"quotes", "book"}),),
            "https://dapi.binance.com",
            _FUTURES_LIMITS,
            _FUTURES_BOOK,
            _FUTURES_BOOKS,
            TradeNumbers.SPANS,
        ),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._is_spot = market == "spot"
        self._parsers: Parsers = SPOT_PARSERS if self._is_spot else FUTURES_PARSERS
        self._symbols = symbols
        places = self.markets[market].endpoints
        self._channels = {channel for place in places for channel in place.channels}
        self._requests = 0
        self._offer = self.markets[market].books[0]
        self._subscribing: dict[int, tuple[str, ...]] = {}  # request id -> its streams

    def choose_book(self, offer: BookOffer) -> None:
        self._offer = offer

    def stream(self, channel: str, symbol: str) -> str:
        if channel == "instrument_status":
            return _CONTRACTS
        name = self._depth_stream() if channel == "book" else _STREAM[self._market][channel]
        return f"{symbol.lower()}@{name}"

    def _depth_stream(self) -> str:
        speed_ms = self._offer.speed_ms
        return "depth" if speed_ms == _UNNAMED_SPEEDS[self._market] else f"depth@{speed_ms}ms"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for some in _chunks(streams):
            frame = self._request("SUBSCRIBE", some)
            self._subscribing[self._requests] = some
            yield frame

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for some in _chunks(streams):
            yield self._request("UNSUBSCRIBE", some)

    def _request(self, method: str, streams: tuple[str, ...]) -> bytes:
        self._requests += 1
        return orjson.dumps({"method": method, "params": streams, "id": self._requests})

    def ping(self) -> bytes | None:
        return None  # the server pings with websocket frames, which the transport answers

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return shapes.shapes(market)

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Take frames of every kind, wrapped or not.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        try:
            if self._is_spot:
                event = parser_of(payload)(payload)
            else:
                wrapped = parse_wrapped(payload)
                if not is_whole_book(wrapped.stream):
                    return self._rarer(payload, ts_recv, out)
                event = wrapped.data
        except (LookupError, msgspec.ValidationError):
            return self._rarer(payload, ts_recv, out)
        append_event(self._symbols, event, ts_recv, out)
        return None

    def _rarer(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Take what is not as this market's connections have it, or no event of a symbol."""
        try:
            head, body = _parse_head(payload), payload
            stream = head.stream
            inner = bytes(head.data)
            if inner and not (self._is_spot and (head.e or head.u)):
                body = inner
                head = _parse_head(body)
        except msgspec.ValidationError as failure:
            return self._other(payload, str(failure))
        event = head.e
        if event in market_data.EVENTS and _CHANNEL_OF_EVENT[event] in self._channels:
            return market_data.append(event, self._symbols, body, ts_recv, out)
        parse = self._parsers.get(event)
        if parse is None:
            return (
                self._other(payload, "an event without a name")
                if event is None
                else self._not_data(event)
            )
        if event == "depthUpdate" and not is_whole_book(stream):
            return Filtered("not_subscribed")
        if event is None and head.u is None:
            return self._other(payload, "a quote without a number")
        found = parse(body)
        if isinstance(found, FuturesTrade) and found.X == NO_TRADE:
            return Filtered("no_trade")
        append_event(self._symbols, found, ts_recv, out)
        return None

    def _other(self, payload: bytes, reason: str) -> Control | None:
        """Read what is no event of a symbol: answers to requests, partial books, nonsense."""
        message = orjson.loads(payload)
        match message:
            case {"result": None, "id": int(number)}:
                streams = self._subscribing.pop(number, None)
                return Notice.INFO if streams is None else Ack(streams)
            case {"error": {"msg": str(text)}} | {"code": int(), "msg": str(text)}:
                return Refused(text, self._subscribing.pop(message.get("id"), ()))
            case {"lastUpdateId": _} | {"data": {"lastUpdateId": _}}:
                return Filtered("not_subscribed")  # spot's partial books
            case {"data": _} | {"e": _}:
                raise DecodeError(self.venue, reason)
        raise UnknownMessage(self.venue, f"{payload[:120]!r}")

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        stream, data = message.get("stream"), message.get("data", message)
        name, symbol = data.get("e"), data.get("s")
        if stream:
            symbol, name = stream.split("@")[:2]
        channel = _CHANNEL_OF_EVENT.get(name)
        return () if channel is None else (self.stream(channel, symbol),)

    def _not_data(self, event: object) -> Control:
        if event in _NOT_SUBSCRIBED:
            return Filtered("not_subscribed")
        if event == "serverShutdown":
            return Reconnect("the server is about to shut down")
        raise UnknownMessage(self.venue, f"{event!r:.60}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return (_EXCHANGE_INFO[market],)

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        found: Iterable[Any] = instruments.entries(cls.venue, body)
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return instruments.listing(market, entry)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        is_spot = market == "spot"
        parse = instruments.spot_instrument if is_spot else instruments.futures_instrument
        return replace(parse(market, entry), venue=cls.venue)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return RestRequest(
            _DEPTH_PATH[self._market],
            {"symbol": symbol, "limit": str(self._offer.depth)},
            _DEPTH_WEIGHT[self._market][self._offer.depth],
        )

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        limit = next(limit for limit in _AUDIT_LIMITS if limit >= depth)
        query = {"symbol": symbol, "limit": str(limit)}
        return RestRequest(_DEPTH_PATH[self._market], query, _AUDIT_WEIGHT)

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        book = self._image(symbol, body)
        bids, asks = ([(str(p), str(q)) for p, q in side] for side in (book.bids, book.asks))
        return RestSnapshot(book.lastUpdateId, bids, asks)

    def _image(self, symbol: str, body: bytes) -> _Snapshot:
        book = _parse_snapshot(body)
        if book.symbol not in {None, symbol}:
            raise DecodeError(self.venue, f"a book of {book.symbol!r:.60} for {symbol}")
        return book

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        query = {"symbol": symbol, "fromId": str(lost.first), "limit": str(_HISTORY_PAGE)}
        market = self._market
        return RestRequest(_HISTORY_PATH[market], query, _HISTORY_WEIGHT[market])

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the past trades of a REST answer, oldest first.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        append_history(body, self._symbols[symbol], ts_recv, out, is_spot=self._is_spot)

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        book = self._image(symbol, body)
        last, bids, asks, time = book.lastUpdateId, book.bids, book.asks, book.T
        flags = _SNAPSHOT if time is not None else _SNAPSHOT | Flag.NO_VENUE_TIME
        # A recording doesn't say how many were asked for: as many as may be are taken for cut.
        if max(len(bids), len(asks)) in _DEPTH_WEIGHT[self._market]:
            flags |= Flag.PARTIAL
        out.add_book_update(
            self._symbols[symbol],
            ts_recv if time is None else time * MILLISECOND,
            ts_recv,
            bids,
            asks,
            first=last,
            last=last,
            flags=flags,
        )


def _chunks(streams: Sequence[str]) -> Iterator[tuple[str, ...]]:
    size = _SPOT_LIMITS.streams_per_subscribe
    return (tuple(streams[start : start + size]) for start in range(0, len(streams), size))


adapter: type[FeedAdapter] = Binance
