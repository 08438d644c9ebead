"""Bybit v5, spot, linear and inverse: trades, quotes and the book, of 200 levels a side or others.

Reference: "V5 API": WebSocket Stream (Connect, Trade, Orderbook), Get Instruments Info, Get
Orderbook.
Units: price, size are decimal text; times are milliseconds. Sizes are in base (spot, linear) or
in quote (inverse: contracts of 1 USD).
Traps:
- Quotes are `orderbook.1`: a snapshot each time, repeated with the same `u` after 3 s of quiet.
- `cts` is the matching engine's time and what ts_event holds; `ts` is when the message was made.
- `u` of a book rises by one; `u` = 1 is a fresh image after a restart of the venue's service.
- A trade's `S` is the taker's side. Its id is a UUID (derivatives) or a number (spot); `seq` is
  shared by all trades of one match. The message type of trades says "snapshot" but means nothing.
- REST images have a `u` of another depth; `seq` is what books of all depths have in common.
- Acks name the request, not its topics. A refusal names a topic in its text, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from ingestor.adapter import (
    MILLISECOND,
    OTHER_BOOK,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Contract,
    Control,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Instrument,
    Limits,
    Listing,
    LostTrades,
    Market,
    Notice,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    SizeUnit,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    instrument,
    iso_text,
)

from . import shapes
from .decoder import (
    CHECK_BITS,
    DEPTH,
    KINDS,
    Kind,
    append_book,
    append_history,
    append_trades,
    beginning,
)
from .market_data import CANDLES, STATUS, MarketData
from .quotes import UNCHANGED, Quotes, append_quote

_TOPICS: Final = {
    "trades": "publicTrade",
    "quotes": "orderbook.1",
    "funding": "tickers",
    "mark_price": "tickers",
    "open_interest": "tickers",
    "liquidations": "allLiquidation",
    "candles": CANDLES,
}
_SPOT: Final = frozenset({"trades", "quotes", "book", "candles"})
_DERIVATIVES: Final = _SPOT | {"funding", "mark_price", "open_interest", "liquidations"}
# The best levels as a book: an image each time, from which quotes are derived too.
_BEST: Final = BookRule(Continuity.NONE, quotes_from_book=True)
_BOOKS: Final = (
    BookOffer(DEPTH, 100),
    BookOffer(1, 10, _BEST, is_plain=True),
    BookOffer(50, 20, is_plain=True),
    BookOffer(1_000, 200, is_plain=True),
)
# Books that are never subscribed to: of RPI orders too, with levels of three members, and of all
# levels, which begin with a REST image.
_OTHER_BOOKS: Final = {"rpi", "full", "25", "500", *(str(offer.depth) for offer in _BOOKS)}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("tickers", "liquidation", "priceLimit", "insurance"),
        *("adlAlert", "tickers_lt", "kline_lt", "lt"),
    )
}
_NAMED: Final = ("publicTrade.", "orderbook.", "tickers.", "kline.", "allLiquidation.", STATUS)
_TOPIC: Final = re.compile(r"[A-Za-z]+\.[\w.\-/]*\w")
# Errors of the list that the venue calls temporary: server timeout, too many visits, server error,
# the address's and the system's rate limit.
_TEMPORARY: Final = frozenset({10000, 10006, 10016, 10018, 10429})
# The newest trades that REST gives; there is no way to ask for older ones.
_HISTORY_PAGE: Final = {"spot": 60, "linear": 1_000, "inverse": 1_000}
_CONTRACTS: Final = {
    "LinearPerpetual": Contract.PERPETUAL,
    "LinearFutures": Contract.FUTURE,
    "InversePerpetual": Contract.PERPETUAL,
    "InverseFutures": Contract.FUTURE,
}


def _market(name: str) -> Market:
    return Market(
        endpoints=(
            Endpoint(
                f"wss://stream.bybit.com/v5/public/{name}",
                _SPOT if name == "spot" else _DERIVATIVES,
            ),
            Endpoint(
                "wss://stream.bybit.com/v5/public/misc/status", frozenset({"instrument_status"})
            ),
        ),
        rest_url="https://api.bybit.com",
        other_hosts=(
            *("stream.bybit.eu", "stream.bybit.id", "stream.bybit.kz", "stream.bybit.tr"),
            *("stream.bytick.com", "api.bytick.com", "api.bybit.eu", "api.bybit.id"),
            *("api.bybit.kz", "api.bybit.tr"),
        ),
        limits=Limits(
            streams_per_connection=300,  # all topics of a connection: at most 21,000 characters
            streams_per_subscribe=10,  # the rule of spot; elsewhere it keeps refusals apart
            connects_per_s=1.4,  # 500 in five minutes
            rest=RestLimit("http", weight_per_s=10.0, weight_burst=20),  # 600 in 5 s, all markets
            ping_interval_s=20.0,
        ),
        book=BookRule(continuity=Continuity.INCREMENT),
        books=_BOOKS,
        trade_numbers=TradeNumbers.ASCENDING,
        recorded="2026-08" if name == "linear" else "",
    )


class Bybit:
    venue: ClassVar[str] = "bybit"
    reference: ClassVar[str] = "Bybit V5 API, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {
        name: _market(name) for name in ("spot", "linear", "inverse")
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests: dict[str, tuple[str, ...]] = {}  # req_id -> the topics that it asked for
        self._request = 0
        self.depth = DEPTH
        self.quotes = Quotes()
        self._market_data = MarketData(market, symbols)

    def choose_book(self, offer: BookOffer) -> None:
        self.depth = offer.depth

    def stream(self, channel: str, symbol: str) -> str:
        if channel == "instrument_status":
            return STATUS
        topic = f"orderbook.{self.depth}" if channel == "book" else _TOPICS[channel]
        return f"{topic}.{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        for stream in streams:
            symbol = stream.rpartition(".")[2]
            self.quotes.best.pop(symbol, None)  # what comes now is news again
            self.quotes.numbers.pop(symbol, None)
            if stream.startswith("tickers."):
                self._market_data.forget(symbol)
        yield from self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        yield from self._operations("unsubscribe", streams)

    def _operations(self, operation: str, streams: Sequence[str]) -> Iterator[bytes]:
        size = self.markets[self._market].limits.streams_per_subscribe
        for start in range(0, len(streams), size):
            topics = tuple(streams[start : start + size])
            self._request += 1
            identifier = str(self._request)
            if operation == "subscribe":
                self._requests[identifier] = topics
            yield orjson.dumps({"req_id": identifier, "op": operation, "args": topics})

    def ping(self) -> bytes | None:
        return b'{"op":"ping"}'

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return shapes.shapes(market)

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        kind = KINDS.get(beginning(payload))
        if kind is None:
            message = orjson.loads(payload)
            topic = message.get("topic")
            if topic is None:
                return self._operation(message)
            name, _, rest = topic.partition(".")
            if self._market_data.takes(name):
                return self._market_data.append(name, payload, ts_recv, out)
            if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            kind = self._kind(name, rest)
            if kind is None:
                return OTHER_BOOK
        elif kind is Kind.BOOK and self.depth != DEPTH:
            return OTHER_BOOK
        if kind is Kind.TRADES:
            append_trades(payload, self._symbols, ts_recv, out)
        elif kind is Kind.BOOK:
            append_book(payload, self._symbols, ts_recv, out, self.depth)
        elif self.depth == 1:
            if self.quotes.is_repeated(payload):
                return UNCHANGED
            append_book(payload, self._symbols, ts_recv, out, 1)
        else:
            return append_quote(payload, self.quotes, self._symbols, ts_recv, out)
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        topic = orjson.loads(payload)["topic"]
        return (topic,) if topic.startswith(_NAMED) else ()

    def _kind(self, name: str, rest: str) -> Kind | None:
        """Return the kind of a topic, `name.rest`; None for another book than the connection's."""
        if name == "publicTrade":
            return Kind.TRADES
        depth = rest.partition(".")[0]
        if name == "orderbook" and depth == "1":
            return Kind.QUOTE
        if name == "orderbook" and depth in _OTHER_BOOKS:
            return Kind.BOOK if depth == str(self.depth) else None
        raise UnknownMessage(self.venue, f"topic {name!r:.60}")

    def _operation(self, message: Any) -> Control:
        match message:
            case {"op": "pong"} | {"op": "ping", "ret_msg": "pong"}:
                return Notice.HEARTBEAT
            case {"op": "subscribe", "success": True}:
                return self._acknowledged(message.get("req_id", ""))
            case {"op": "subscribe", "success": False, "ret_msg": str(text)}:
                return self._refused(message.get("req_id", ""), text)
            case {"op": "unsubscribe", "success": bool()}:
                return Notice.INFO
        raise UnknownMessage(self.venue, f"{message!r:.60}")

    def _acknowledged(self, identifier: str) -> Control:
        if not identifier:
            return Ack()
        topics = self._requests.pop(identifier, ())
        return Ack(topics) if topics else Notice.INFO

    def _refused(self, identifier: str, text: str) -> Control:
        """Name the topics of the refusal: those in its text, or the only one of its request."""
        asked = self._requests.pop(identifier, ())
        named = tuple(topic for topic in _TOPIC.findall(text) if topic in asked)
        if "already subscribed" in text:
            return Ack(named) if named else Notice.INFO
        return Refused(text, named or (asked if len(asked) == 1 else ()))

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [
            RestRequest(
                "/v5/market/instruments-info",
                {"category": market, "limit": "1000"},
                cursor=("result", "nextPageCursor"),
            )
        ]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        code = answer["retCode"]
        if code != 0:
            text = str(answer.get("retMsg", ""))
            raise VenueError(cls.venue, str(code), text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["result"]["list"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry["symbol"], entry["status"] == "Trading", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return _instrument(market, entry)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        raise UnknownMessage(self.venue, "books are seeded on the socket")

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        limit = _HISTORY_PAGE[self._market]
        query = {"category": self._market, "symbol": symbol, "limit": str(limit)}
        return RestRequest("/v5/market/recent-trade", query)

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the past trades of a REST answer, oldest first.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        append_history(body, self._symbols[symbol], ts_recv, out)

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        query = {"category": self._market, "symbol": symbol, "limit": str(depth)}
        return RestRequest("/v5/market/orderbook", query)

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        answer = orjson.loads(body)
        image = answer["result"]
        if answer["retCode"] != 0 or image["s"] != symbol:
            raise DecodeError(self.venue, f"no book of {symbol}: code {answer['retCode']!r:.40}")
        bids, asks = ([(price, size) for price, size in image[side]] for side in "ba")
        return RestSnapshot(image.get("seq", 0) & CHECK_BITS, bids, asks)


def _instrument(market: str, one: Any) -> Instrument:
    base, quote = one["baseCoin"], one["quoteCoin"]
    pair = f"{base}-{quote}".upper()
    tick_size = one["priceFilter"]["tickSize"]
    lots = one["lotSizeFilter"]
    if market == "spot":
        return instrument(
            Bybit.venue,
            market,
            one["symbol"],
            pair,
            base,
            quote,
            tick_size,
            lots["basePrecision"],
            settlement=quote,
        )
    contract = _CONTRACTS[one["contractType"]]
    expiry_ns = int(one["deliveryTime"]) * MILLISECOND
    is_future = contract is Contract.FUTURE
    suffix = iso_text(expiry_ns)[:10].replace("-", "") if is_future else "PERP"
    return instrument(
        Bybit.venue,
        market,
        one["symbol"],
        f"{pair}-{suffix}",
        base,
        quote,
        tick_size,
        lots["qtyStep"],
        contract=contract,
        settlement=one["settleCoin"],
        size_unit=SizeUnit.QUOTE if market == "inverse" else SizeUnit.BASE,
        expiry_ns=expiry_ns if is_future else 0,
    )


adapter: type[FeedAdapter] = Bybit
