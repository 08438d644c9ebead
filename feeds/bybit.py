"""Bybit v5, spot, linear and inverse: trades, quotes and the book of 200 levels a side.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import numpy as np
import orjson

from ingestor.adapter import (
    Ack,
    AuditImage,
    BookRule,
    Continuity,
    Control,
    Endpoint,
    FeedAdapter,
    Filtered,
    Limits,
    Market,
    Notice,
    Refused,
    RestRequest,
)
from ingestor.batch import TickBuffer, fill
from ingestor.errors import UnknownMessage
from ingestor.instruments import Contract, Instrument, SizeUnit, instrument
from ingestor.rows import Flag, Rows, Side
from ingestor.timestamps import MILLISECOND, iso_text

_DEPTH: Final = 200
_TOPICS: Final = {"trades": "publicTrade", "quotes": "orderbook.1", "book": f"orderbook.{_DEPTH}"}
_SIDES: Final = {"Buy": int(Side.BID), "Sell": int(Side.ASK)}
_SNAPSHOT: Final = int(Flag.SNAPSHOT)
_BOOK_FLAGS: Final = {"snapshot": _SNAPSHOT, "delta": 0}
_UUID_DIGITS: Final = 32
_EMPTY: Final = ("0", "0")
_MARK: Final = 0xFFFFFFFF
_UNCHANGED: Final = Filtered("unchanged quote", duplicate=True)
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in ("tickers", "kline", "liquidation", "allLiquidation", "priceLimit", "insurance")
}
_TOPIC: Final = re.compile(r"[A-Za-z]+\.[\w.\-/]*\w")
_CONTRACTS: Final = {
    "LinearPerpetual": Contract.PERPETUAL,
    "LinearFutures": Contract.FUTURE,
    "InversePerpetual": Contract.PERPETUAL,
    "InverseFutures": Contract.FUTURE,
}

_Decoder = Callable[[Any, int, TickBuffer], Control | None]

# How frames begin as Bybit sends them; those that begin otherwise are read too.
_TRADES_BEGIN: Final = b'{"topic":"publicTrade.'
_BOOK_BEGIN: Final = f'{{"topic":"{_TOPICS["book"]}.'.encode()


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


_parse_trades: Final = msgspec.json.Decoder(_Trades).decode
_parse_book: Final = msgspec.json.Decoder(_Book).decode


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[str]]:
    fill(rows, "ts_event", [one.T * MILLISECOND for one in trades])
    fill(rows, "sequence", [one.seq for one in trades])
    fill(rows, "side", [_SIDES[one.S] for one in trades])
    rows["trade_id_high"], rows["trade_id_low"] = _identifiers([one.i for one in trades])
    return [one.p for one in trades], [one.v for one in trades]


def _identifiers(texts: list[str]) -> tuple[Any, Any]:
    """Return the high and low 64 bits of trade ids: numbers (spot) or UUIDs (derivatives)."""
    if texts[0].isdecimal():
        return 0, np.array([int(text) for text in texts], np.uint64)
    digits = [text.replace("-", "") for text in texts]
    if {*map(len, digits)} != {_UUID_DIGITS}:
        raise ValueError("a trade id of neither form")
    halves = np.frombuffer(bytes.fromhex("".join(digits)), ">u8").reshape(len(texts), 2)
    return halves[:, 0], halves[:, 1]


def _market(name: str) -> Market:
    return Market(
        endpoints=(Endpoint(f"wss://stream.bybit.com/v5/public/{name}"),),
        rest_url="https://api.bybit.com",
        limits=Limits(
            streams_per_connection=300,  # all topics of a connection: at most 21,000 characters
            streams_per_subscribe=10,  # the rule of spot; elsewhere it keeps refusals apart
            connects_per_s=1.5,  # 500 in five minutes
            ping_interval_s=20.0,
        ),
        book=BookRule(continuity=Continuity.INCREMENT),
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
        self._quotes: dict[str, tuple[int, Any, Any]] = {}  # symbol -> u, bids, asks
        self._decoders: dict[str, _Decoder] = {}  # topic -> how to read it

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_TOPICS[channel]}.{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        for stream in streams:
            self._quotes.pop(stream.rpartition(".")[2], None)  # what comes now is news again
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

    def decode(self, payload: bytes, ts_recv: int, out: TickBuffer) -> Control | None:
        if payload.startswith(_TRADES_BEGIN):
            self._trades(payload, ts_recv, out)
            return None
        if payload.startswith(_BOOK_BEGIN) and self._raw_book(payload, ts_recv, out):
            return None
        message = orjson.loads(payload)
        topic = message.get("topic")
        decoder = self._decoders.get(topic)
        if decoder is None:
            if topic is None:
                return self._operation(message)
            if topic.startswith("publicTrade."):
                self._trades(payload, ts_recv, out)
                return None
            decoder = self._find(topic)
        return decoder(message, ts_recv, out)

    def _find(self, topic: str) -> _Decoder:
        name, _, rest = topic.partition(".")
        if name == "orderbook":
            decoder: _Decoder = self._quote if rest.startswith("1.") else self._book
        elif name in _LEFT_OUT:
            return self._left_out
        else:
            raise UnknownMessage(self.venue, f"topic {topic!r:.60}")
        if rest.rpartition(".")[2] in self._symbols:
            self._decoders[topic] = decoder
        return decoder

    def _trades(self, payload: bytes, ts_recv: int, out: TickBuffer) -> None:
        symbols = self._symbols
        for trade in _parse_trades(payload).data:
            out.keep_trade(_read_trades, trade, symbols[trade.s], ts_recv)

    def _quote(self, message: Any, ts_recv: int, out: TickBuffer) -> Control | None:
        data = message["data"]
        symbol = data["s"]
        bids, asks = data["b"], data["a"]
        if message["type"] != "snapshot":
            _, best_bids, best_asks = self._quotes[symbol]
            bids, asks = _best(best_bids, bids), _best(best_asks, asks)
        quote = (data["u"], bids, asks)
        if quote == self._quotes.get(symbol):
            return _UNCHANGED
        bid_price, bid_size = bids[0] if bids else _EMPTY
        ask_price, ask_size = asks[0] if asks else _EMPTY
        out.quote(
            self._symbols[symbol],
            +message["cts"] * MILLISECOND,
            ts_recv,
            data["u"],
            bid_price,
            bid_size,
            ask_price,
            ask_size,
        )
        self._quotes[symbol] = quote
        return None

    def _book(self, message: Any, ts_recv: int, out: TickBuffer) -> None:
        data = message["data"]
        number, bids, asks = data["u"], data["b"], data["a"]
        flags = _SNAPSHOT if number == 1 else _BOOK_FLAGS[message["type"]]
        if flags and max(len(bids), len(asks)) >= _DEPTH:
            flags |= Flag.PARTIAL
        out.levels(
            self._symbols[data["s"]],
            +message["cts"] * MILLISECOND,
            ts_recv,
            number,
            number,
            bids,
            asks,
            0,
            flags,
            mark=data.get("seq", 0) & _MARK,
        )

    def _raw_book(self, payload: bytes, ts_recv: int, out: TickBuffer) -> bool:
        """Append a delta whose levels are plain; return whether it was one."""
        try:
            message = _parse_book(payload)
        except msgspec.ValidationError:
            return False
        book = message.data
        if message.type != "delta" or book.u == 1:
            return False
        return out.raw_levels(
            self._symbols[book.s],
            message.cts * MILLISECOND,
            ts_recv,
            book.u,
            book.u,
            bytes(book.b),
            bytes(book.a),
            mark=book.seq & _MARK,
        )

    def _left_out(self, message: Any, ts_recv: int, out: TickBuffer) -> Control:
        return _LEFT_OUT[message["topic"].partition(".")[0]]

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
    def parse_instruments(cls, market: str, bodies: Sequence[bytes]) -> list[Instrument]:
        return [
            _instrument(market, one)
            for body in bodies
            for one in orjson.loads(body)["result"]["list"]
            if one["status"] == "Trading"
        ]

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: TickBuffer) -> None:
        raise UnknownMessage(self.venue, "books are seeded on the socket")

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        query = {"category": self._market, "symbol": symbol, "limit": str(depth)}
        return RestRequest("/v5/market/orderbook", query)

    def decode_audit(self, symbol: str, body: bytes) -> AuditImage:
        image = orjson.loads(body)["result"]
        bids, asks = ([(price, size) for price, size in image[side]] for side in "ba")
        return AuditImage(image.get("seq", 0) & _MARK, bids, asks)


def _best(best: Any, changes: Any) -> Any:
    """Apply the changes of one side of a book of one level; size 0 removes it."""
    for level in changes:
        if level[1].strip("0."):
            best = [level]
        elif best and best[0][0] == level[0]:
            best = []
    return best


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
