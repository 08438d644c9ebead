"""Poloniex spot: trades, and books of 20 levels with quotes of them.

Reference: Poloniex "Spot WebSocket API": Public Channels (Trades, Book Level 2), REST "Symbol
Information", read 2026-11-30.
Units: prices and sizes are decimal text in base; times are ms.
Traps:
- `lastId` of a book is `id` of the message before. A snapshot has one too, of before it.
- `quantity` is a trade's size in base, `amount` in quote. `takerSide` is the taker's.
- Numbers of trades are bare or text.
- A connection that is silent for 30 seconds ends: the client sends {"event":"ping"}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    TAKER_SIDES,
    Ack,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    Counted,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Milliseconds,
    Notice,
    PlainFeed,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    append_pairs,
    instrument,
    level_pairs,
    shape,
    whole_number,
)

DEPTH: Final = 20
_CHANNELS: Final = {"trades": "trades", "quotes": "book_lv2", "book": "book_lv2"}
_LEFT_OUT: Final = {
    name: Filtered(name) for name in ("ticker", "book", "symbols", "currencies", "exchange")
}
_CANDLES: Final = Filtered("candles")
_TRADING: Final = frozenset({"NORMAL", "POST_ONLY"})
_TEMPORARY: Final = frozenset({"500", "603", "429", "503", "601"})
_DIGITS_MAX: Final = 18


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    price: Any  # as text or bare: `float_hook` keeps the digits
    quantity: Any
    createTime: Milliseconds  # noqa: N815  # the venue's name
    id: Any
    takerSide: str = ""  # noqa: N815  # the venue's name


class _Trades(msgspec.Struct, gc=False):
    data: list[_Trade]


class _Levels(msgspec.Struct, gc=False):
    symbol: str
    asks: msgspec.Raw
    bids: msgspec.Raw
    id: Counted
    lastId: Sequential  # noqa: N815  # the venue's name
    createTime: Milliseconds  # noqa: N815  # the venue's name


class _Book(msgspec.Struct, gc=False):
    action: Literal["snapshot", "update"]
    data: list[_Levels]


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    channel: str = ""
    event: str | None = None
    symbols: list[str] = []
    message: str = ""


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book).decode


# The texts of frequent frames.
_SHAPES: Final = (
    shape(
        RowClass.LEVEL,
        '{"channel":"book_lv2","data":<[>{"symbol":"<symbol>","createTime":<ms:ts_event>,'
        f'"asks":{level_pairs("asks")},"bids":{level_pairs("bids")},"lastId":<int:previous>,'
        '"id":<int:first,last>=1>,"ts":<n>}<row><]>,"action":"update"}',
    ),
    shape(
        RowClass.TRADE,
        '{"channel":"trades","data":<[>{"symbol":"<symbol>","amount":"<text>",'
        '"takerSide":"<side:buy=1|sell=2>","quantity":"<size:size>","createTime":<ms:ts_event>,'
        '"price":"<price:price>","id":"<int:sequence,trade_id_low>","ts":<n>}<row><]>}',
    ),
)


class Poloniex(PlainFeed):
    venue: ClassVar[str] = "poloniex"
    reference: ClassVar[str] = "Poloniex Spot WebSocket API, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("wss://ws.poloniex.com/ws/public"),),
            rest_url="https://api.poloniex.com",
            limits=Limits(
                streams_per_connection=200,
                streams_per_subscribe=1,  # a refusal is of the whole request
                connects_per_s=1.0,  # 2,000 connections of an address
                requests_per_s=20.0,  # 500 a second
                rest=RestLimit(weight_per_s=2.0, weight_burst=5),  # lists: 10 a second
                ping_interval_s=20.0,
            ),
            book=BookRule(Continuity.PREVIOUS, depth_max=DEPTH, quotes_from_book=True),
            trade_numbers=TradeNumbers.ASCENDING,
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._requests = Requests(1)

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for _, (stream,) in self._requests.parts(streams):
            yield _operation("subscribe", stream)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for stream in streams:
            yield _operation("unsubscribe", stream)

    def ping(self) -> bytes | None:
        return b'{"event":"ping"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        if head.event is not None:
            return self._event(head)
        match head.channel:
            case "trades":
                for trade in _parse_trades(payload).data:
                    identifier = whole_number(trade.id)
                    time = trade.createTime * MILLISECOND
                    side = TAKER_SIDES.get(trade.takerSide.lower(), NO_SIDE)
                    row = (identifier, trade.price, trade.quantity, side, identifier)
                    out.add_trade(self._symbols[trade.symbol], time, ts_recv, *row)
            case "book_lv2":
                book = _parse_book(payload)
                is_image = book.action == "snapshot"
                flags = int(Flag.SNAPSHOT) if is_image else 0
                for item in book.data:
                    numbers = (item.id, item.id, 0 if is_image else item.lastId)
                    times = item.createTime * MILLISECOND, ts_recv
                    number = self._symbols[item.symbol]
                    append_pairs(out, number, times, numbers, (item.bids, item.asks), flags)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name if name.startswith("candles_"):
                return _CANDLES
            case name:
                raise UnknownMessage(self.venue, f"channel {name!r:.60}")
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel = message["channel"]
        if channel not in _CHANNELS.values():
            return ()
        return [f"{channel}:{item['symbol']}" for item in message["data"]]

    def _event(self, head: _Head) -> Control:
        streams = tuple(f"{head.channel}:{symbol}" for symbol in head.symbols)
        match head.event:
            case "subscribe":
                return Ack(streams) if streams else Notice.INFO
            case "unsubscribe" | "unsubscribe_all":
                return Notice.INFO
            case "pong":
                return Notice.HEARTBEAT
            case "error":
                text = head.message
                if "already subscribed" in text.lower():
                    return Notice.INFO
                return Refused(text, streams or self._requests.named(text, ":"))
        raise UnknownMessage(self.venue, f"event {head.event!r:.60}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/markets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict) and "code" in answer:
            code, text = str(answer["code"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry["symbol"], entry["state"] in _TRADING, entry["state"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["baseCurrencyName"], entry["quoteCurrencyName"]
        limits = entry["symbolTradeLimit"]
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}".upper(),
            base,
            quote,
            _increment(limits["priceScale"]),
            _increment(limits["quantityScale"]),
            settlement=quote,
        )


def _increment(digits: Any) -> str:
    """Return the increment of so many decimals."""
    if type(digits) is not int or not 0 <= digits <= _DIGITS_MAX:
        raise ValueError(f"{digits!r:.40} decimals")
    return f"0.{'1'.rjust(digits, '0')}" if digits else "1"


def _operation(event: str, stream: str) -> bytes:
    channel, _, symbol = stream.partition(":")
    return orjson.dumps({"event": event, "channel": [channel], "symbols": [symbol]})


adapter: type[FeedAdapter] = Poloniex
