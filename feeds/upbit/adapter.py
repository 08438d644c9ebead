"""Upbit, spot: trades and books of up to 30 levels; quotes are their best levels.

Reference: Upbit Open API docs: WebSocket "Basics and errors", "Trade", "Orderbook", REST "List
trading pairs".
Units: prices and sizes are bare JSON numbers, times milliseconds. Sizes are in base.
Traps:
- Frames are binary and hold JSON. A connection's request names all that it is to carry: a new one
  replaces those before. Nothing is confirmed; an error names no stream.
- A code is quote, then base: KRW-BTC is BTC in won.
- The whole book comes each time, without number. A level that is not there has price 0.
- `ask_bid` of a trade is the taker's side: ASK sold, BID bought. `stream_type` SNAPSHOT: it is
  what was when the subscription began.
- The format is DEFAULT here; SIMPLE, with short names, and lists of messages are read too.
- The tick of a price in won depends on the price: from 1,000 won down to 0.00000001.
- The text PING is answered with a status. 120 s without traffic end a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    Acks,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    MilliOrMicroseconds,
    Notice,
    PlainFeed,
    Refused,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    instrument,
    shape,
)

_TYPES: Final = {"trades": "trade", "quotes": "orderbook", "book": "orderbook"}
_SIDES: Final = {"ASK": int(Side.ASK), "BID": int(Side.BID)}
_TRADE_FLAGS: Final = {"SNAPSHOT": int(Flag.LAST | Flag.SNAPSHOT), "REALTIME": int(Flag.LAST)}
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)
_LEFT_OUT: Final = {"ticker": Filtered("ticker"), "candle": Filtered("candle")}
_NOT_THERE: Final = frozenset({0, "0", "0.0"})
_MICROSECONDS_MIN: Final = 10**14  # as milliseconds: the year 5138
_SIMPLE_TRADE: Final = {
    "code": "cd",
    "trade_price": "tp",
    "trade_volume": "tv",
    "ask_bid": "ab",
    "trade_timestamp": "ttms",
    "sequential_id": "sid",
    "stream_type": "st",
}
_SIMPLE_UNIT: Final = {"ask_price": "ap", "bid_price": "bp", "ask_size": "as", "bid_size": "bs"}
_SIMPLE_BOOK: Final = {"code": "cd", "timestamp": "tms", "orderbook_units": "obu", "level": "lv"}
_FINEST: Final = "0.00000001"  # tick of the cheapest band, and of sizes


class _Trade(msgspec.Struct, gc=False):
    code: str
    trade_price: Any  # bare: `float_hook` keeps the digits
    trade_volume: Any
    ask_bid: str
    trade_timestamp: MilliOrMicroseconds
    sequential_id: Sequential = 0
    stream_type: Literal["SNAPSHOT", "REALTIME"] = "REALTIME"


class _Unit(msgspec.Struct, gc=False):
    ask_price: Any
    bid_price: Any
    ask_size: Any
    bid_size: Any


class _Book(msgspec.Struct, gc=False):
    code: str
    timestamp: MilliOrMicroseconds
    orderbook_units: list[_Unit]
    level: Any = 0


class _SimpleTrade(msgspec.Struct, rename=_SIMPLE_TRADE, gc=False):
    """The same in the format SIMPLE."""

    code: str
    trade_price: Any
    trade_volume: Any
    ask_bid: str
    trade_timestamp: MilliOrMicroseconds
    sequential_id: Sequential = 0
    stream_type: Literal["SNAPSHOT", "REALTIME"] = "REALTIME"


class _SimpleUnit(msgspec.Struct, rename=_SIMPLE_UNIT, gc=False):
    ask_price: Any
    bid_price: Any
    ask_size: Any
    bid_size: Any


class _SimpleBook(msgspec.Struct, rename=_SIMPLE_BOOK, gc=False):
    code: str
    timestamp: MilliOrMicroseconds
    orderbook_units: list[_SimpleUnit]
    level: Any = 0


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is; the format SIMPLE has `ty` and `cd`."""

    type: str = ""
    code: str = ""
    ty: str = ""
    cd: str = ""
    error: msgspec.Raw = msgspec.Raw(b"")
    status: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_parse_simple_trade: Final = msgspec.json.Decoder(_SimpleTrade, float_hook=str).decode
_parse_simple_book: Final = msgspec.json.Decoder(_SimpleBook, float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


# The text of trades; a number with an exponent goes to `decode`.
_SHAPES: Final = (
    shape(
        RowClass.TRADE,
        '{"type":"trade","code":"<symbol>","timestamp":<n>,"trade_date":"<text>",'
        '"trade_time":"<text>","trade_timestamp":<ms:ts_event>,"trade_price":<price:price>,'
        '"trade_volume":<size:size>,"ask_bid":"<side:ASK=2|BID=1>","prev_closing_price":<number>,'
        '"change":"<text>","change_price":<number>,"sequential_id":<int:sequence,trade_id_low>,'
        '"best_ask_price":<number>,"best_ask_size":<number>,"best_bid_price":<number>,'
        '"best_bid_size":<number>,"stream_type":"REALTIME"}',
    ),
)


class Upbit(PlainFeed):
    acks: ClassVar[Acks] = Acks.NEVER
    venue: ClassVar[str] = "upbit"
    reference: ClassVar[str] = "Upbit Open API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("wss://api.upbit.com/websocket/v1"),),
            rest_url="https://api.upbit.com",
            other_hosts=("sg-api.upbit.com", "id-api.upbit.com", "th-api.upbit.com"),
            limits=Limits(
                streams_per_connection=1_000,
                streams_per_subscribe=1_000,
                connects_per_s=4.0,  # 5 are allowed
                connects_burst=1,
                requests_per_s=2.0,
                address_requests_per_s=1.6,  # 100 a minute
                rest=RestLimit(weight_per_s=5.0, weight_burst=5),  # 10 a second
                ping_interval_s=30.0,
                replaces_subscriptions=True,
            ),
            book=BookRule(Continuity.NONE, depth_max=30, quotes_from_book=True, images_only=True),
            trade_numbers=TradeNumbers.ASCENDING,
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._carried: dict[str, None] = {}  # the streams of the newest request

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_TYPES[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        self._carried.update(dict.fromkeys(streams))
        yield _request(self._carried)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        """Ask for what is left; a request of nothing is none that the venue takes."""
        for stream in streams:
            self._carried.pop(stream, None)
        if self._carried:
            yield _request(self._carried)

    def ping(self) -> bytes | None:
        return b"PING"

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if payload[:1] != b"[":
            return self._one(payload, ts_recv, out)
        found = [self._one(bytes(entry), ts_recv, out) for entry in _parse_list(payload)]
        if not found:
            raise DecodeError(self.venue, "a list of nothing")
        return None if None in found else found[-1]

    def _one(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Take a message; the formats JSON_LIST and SIMPLE_LIST have several in a frame."""
        head = _parse_head(payload)
        match head.type or head.ty:
            case "trade":
                parse_trade = _parse_trade if head.type else _parse_simple_trade
                self._trade(parse_trade(payload), ts_recv, out)
            case "orderbook":
                parse_book = _parse_book if head.type else _parse_simple_book
                self._book(parse_book(payload), ts_recv, out)
            case "":
                return self._control(payload, head)
            case kind:
                name = kind.partition(".")[0]
                if name not in _LEFT_OUT:
                    raise UnknownMessage(self.venue, f"type {kind!r:.60}")
                return _LEFT_OUT[name]
        return None

    def _control(self, payload: bytes, head: _Head) -> Control:
        if bytes(head.error):
            error = orjson.loads(payload)["error"]
            return Refused(f"{error['name']} {error.get('message', '')}".strip())
        if head.status is None:
            raise UnknownMessage(self.venue, f"{payload[:60]!r}")
        return Notice.HEARTBEAT

    def _trade(self, trade: _Trade | _SimpleTrade, ts_recv: int, out: ColumnBuffer) -> None:
        out.add_trade(
            self._symbols[trade.code],
            _ns(trade.trade_timestamp),
            ts_recv,
            trade.sequential_id,
            trade.trade_price,
            trade.trade_volume,
            _SIDES[trade.ask_bid],
            trade.sequential_id,
            flags=_TRADE_FLAGS[trade.stream_type],
        )

    def _book(self, book: _Book | _SimpleBook, ts_recv: int, out: ColumnBuffer) -> None:
        units: Sequence[_Unit | _SimpleUnit] = book.orderbook_units
        bids = [
            (unit.bid_price, unit.bid_size) for unit in units if unit.bid_price not in _NOT_THERE
        ]
        asks = [
            (unit.ask_price, unit.ask_size) for unit in units if unit.ask_price not in _NOT_THERE
        ]
        number, time = self._symbols[book.code], _ns(book.timestamp)
        out.add_book_update(number, time, ts_recv, bids, asks, flags=_IMAGE, are_pairs=True)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        messages = _parse_list(payload) if payload[:1] == b"[" else [payload]
        heads = [_parse_head(bytes(message)) for message in messages]
        return [
            f"{head.type or head.ty}:{head.code or head.cd}"
            for head in heads
            if (head.type or head.ty) in _TYPES.values()
        ]

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v1/market/all", {"is_details": "true"})]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict):
            error = answer["error"]
            code = str(error["name"])
            temporary = code == "too_many_requests"
            raise VenueError(cls.venue, code, str(error.get("message", "")), temporary=temporary)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of trading pairs")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        event = entry.get("market_event") or {}
        status = "warning" if event.get("warning") else "listed"
        return Listing(entry["market"], trading=True, status=status)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        quote, _, base = entry["market"].partition("-")
        return instrument(
            cls.venue,
            market,
            entry["market"],
            f"{base}-{quote}".upper(),
            base,
            quote,
            _FINEST,
            _FINEST,
            settlement=quote,
        )


def _ns(time: int) -> int:
    """Return milliseconds, or microseconds, as ns."""
    return time * (MILLISECOND if time < _MICROSECONDS_MIN else MILLISECOND // 1_000)


def _request(streams: Iterable[str]) -> bytes:
    codes: dict[str, list[str]] = {}
    for stream in streams:
        kind, _, code = stream.partition(":")
        codes.setdefault(kind, []).append(code)
    wanted = [{"type": kind, "codes": some} for kind, some in codes.items()]
    return orjson.dumps([{"ticket": "market-data"}, *wanted, {"format": "DEFAULT"}])


adapter: type[FeedAdapter] = Upbit
