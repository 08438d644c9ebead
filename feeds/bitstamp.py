"""Bitstamp, spot: trades and the whole book by differences; quotes are its best levels.

Reference: Bitstamp "WebSocket API v2" (live_trades, diff_order_book, order_book, forced
reconnection), HTTP API "Order book", "Markets".
Units: prices and sizes are decimal text (`price_str`, `amount_str`; the bare numbers beside them
are floats), times are microseconds as text. Sizes are in base.
Traps:
- `diff_order_book` gives absolute sizes since the message before, without number; its image is
  over REST. `microtimestamp` orders both: what is not newer than the image is in it already.
  Nothing tells of a message that was lost but the next image.
- A book may be crossed, the document says, while the engine matches.
- `order_book` is the whole book of 100 levels each time.
- `type` of a trade is the taker's side: 0 bought, 1 sold.
- Channels are named by pairs in lower case without separator: btcusd.
- bts:request_reconnect wants a new connection. A connection lives 90 days at most.
- An answer to an unknown channel is bts:error with a text that may name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    OTHER_BOOK,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
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
    Notice,
    Reconnect,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    Side,
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    instrument,
    time_ns,
    whole_number,
)

_TRADES: Final = "live_trades_"
_DIFFERENCES: Final = "diff_order_book_"
_IMAGES: Final = "order_book_"
_LEFT_OUT: Final = ("live_orders_", "detail_order_book_", "funding_rate_", "mark_price_")
_SIDES: Final = {0: int(Side.BID), 1: int(Side.ASK)}
_MICROSECOND: Final = MILLISECOND // 1_000
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)
_DEPTH: Final = 100
_PLACES_MAX: Final = 18


class _Trade(msgspec.Struct, gc=False):
    id: Counted
    type: int
    price_str: str
    amount_str: str
    microtimestamp: Any


class _Levels(msgspec.Struct, gc=False):
    microtimestamp: Any
    bids: list[list[Any]]
    asks: list[list[Any]]


class _Message(msgspec.Struct, gc=False):
    event: str
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade).decode
_parse_levels: Final = msgspec.json.Decoder(_Levels, float_hook=str).decode


class _Error(msgspec.Struct, gc=False):
    message: str = ""
    code: Any = None


_parse_error: Final = msgspec.json.Decoder(_Error).decode

_RULE: Final = BookRule(Continuity.NONE, SnapshotSource.REST, may_cross=True, quotes_from_book=True)


class Bitstamp:
    venue: ClassVar[str] = "bitstamp"
    reference: ClassVar[str] = "Bitstamp WebSocket API v2, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("wss://ws.bitstamp.net"),),
            rest_url="https://www.bitstamp.net",
            limits=Limits(
                streams_per_connection=100,
                streams_per_subscribe=1,
                connects_per_s=1.0,
                connects_burst=5,
                requests_per_s=10.0,
                rest=RestLimit(weight_per_s=10.0, weight_burst=20),  # 400 a second
                frame_bytes_max=4 << 20,
                ping_interval_s=20.0,
                lifetime_s=90 * 86_400.0,
            ),
            book=_RULE,
            books=(
                BookOffer(10_000),
                BookOffer(
                    _DEPTH,
                    rule=replace(
                        _RULE, snapshot=SnapshotSource.SOCKET, depth_max=_DEPTH, images_only=True
                    ),
                    is_plain=True,
                ),
            ),
            trade_numbers=TradeNumbers.ASCENDING,
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._asked: dict[str, None] = {}  # streams without an answer
        self._book = _DIFFERENCES

    def choose_book(self, offer: BookOffer) -> None:
        self._book = _IMAGES if offer.depth == _DEPTH else _DIFFERENCES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_TRADES if channel == 'trades' else self._book}{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        self._asked.update(dict.fromkeys(streams))
        return _requests("bts:subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _requests("bts:unsubscribe", streams)

    def ping(self) -> bytes | None:
        return b'{"event":"bts:heartbeat"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        message = _parse(payload)
        match message.event:
            case "trade" | "data":
                return self._data(message, ts_recv, out)
            case "bts:subscription_succeeded":
                self._asked.pop(message.channel, None)
                return Ack((message.channel,))
            case "bts:unsubscription_succeeded" | "bts:connection_established":
                return Notice.INFO
            case "bts:heartbeat":
                return Notice.HEARTBEAT
            case "bts:request_reconnect":
                return Reconnect("the venue asks for it")
            case "bts:error":
                return self._refused(message)
            case event if event.startswith("order_"):
                return Filtered("live_orders")
            case event:
                raise UnknownMessage(self.venue, f"event {event!r:.60}")

    def _refused(self, message: _Message) -> Control:
        text = _parse_error(message.data).message
        named = [item for item in self._asked if item == message.channel or item in text]
        for item in named:
            del self._asked[item]
        return Refused(text, tuple(named))

    def _data(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> Control | None:
        channel = message.channel
        if channel.startswith(_TRADES):
            self._trade(channel[len(_TRADES) :], _parse_trade(message.data), ts_recv, out)
        elif channel.startswith((_DIFFERENCES, _IMAGES)):
            if not channel.startswith(self._book):
                return OTHER_BOOK
            symbol = channel[len(self._book) :]
            flags = 0 if self._book == _DIFFERENCES else _IMAGE
            self._levels(symbol, _parse_levels(message.data), flags, ts_recv, out)
        else:
            found = next((name for name in _LEFT_OUT if channel.startswith(name)), "")
            if not found:
                raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
            return Filtered(found.rstrip("_"))
        return None

    def _trade(self, symbol: str, trade: _Trade, ts_recv: int, out: ColumnBuffer) -> None:
        out.add_trade(
            self._symbols[symbol],
            time_ns(trade.microtimestamp, _MICROSECOND),
            ts_recv,
            trade.id,
            trade.price_str,
            trade.amount_str,
            _SIDES[trade.type],
            trade.id,
        )

    def _levels(
        self, symbol: str, levels: _Levels, flags: int, ts_recv: int, out: ColumnBuffer
    ) -> None:
        number = whole_number(levels.microtimestamp)
        time = time_ns(number, _MICROSECOND)
        sides = levels.bids, levels.asks
        out.add_book_update(
            self._symbols[symbol], time, ts_recv, *sides, first=number, last=number, flags=flags
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel = message["channel"]
        return (channel,) if channel.startswith((_TRADES, _DIFFERENCES, _IMAGES)) else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v2/markets/")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict):
            code = str(answer["code"])
            raise VenueError(cls.venue, code, str(answer.get("reason", "")), temporary=True)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of markets")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry.get("market_type", "SPOT") != "SPOT":
            return None
        return Listing(entry["market_symbol"], entry["trading"] == "Enabled", entry["trading"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["base_currency"], entry["counter_currency"]
        return instrument(
            cls.venue,
            market,
            entry["market_symbol"],
            f"{base}-{quote}".upper(),
            base,
            quote,
            _increment(entry["counter_decimals"]),
            _increment(entry["base_decimals"]),
            settlement=quote,
        )

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        if self._book == _IMAGES:
            return None
        return RestRequest(f"/api/v2/order_book/{symbol}/", {"group": "1"})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        self._levels(symbol, _parse_levels(body), int(Flag.SNAPSHOT), ts_recv, out)

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        return RestRequest(f"/api/v2/order_book/{symbol}/", {"group": "1"})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        levels = _parse_levels(body)
        bids, asks = (
            [(str(level[0]), str(level[1])) for level in side]
            for side in (levels.bids, levels.asks)
        )
        return RestSnapshot(whole_number(levels.microtimestamp), bids, asks)


def _requests(event: str, streams: Sequence[str]) -> Iterator[bytes]:
    for stream in streams:
        yield orjson.dumps({"event": event, "data": {"channel": stream}})


def _increment(places: object) -> str:
    if type(places) is not int or not 0 <= places <= _PLACES_MAX:
        raise ValueError(f"{places!r:.40} decimals")
    return f"0.{'1':0>{places}}" if places else "1"


adapter: type[FeedAdapter] = Bitstamp
