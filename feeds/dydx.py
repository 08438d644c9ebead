"""dYdX v4, perpetuals: trades and books; quotes are their best levels.

Reference: dYdX docs: "Indexer / WebSocket API" (Orders, Trades, rate limits), "Uncrossing the
orderbook", HTTP "Get perpetual markets".
Units: prices and sizes are decimal text, times of trades RFC 3339 text; books have no times.
Traps:
- `message_id` counts the messages of a connection, from 0 and by one: a jump is a hole in
  everything on it.
- The image of a book comes in `subscribed`, its levels as objects; updates have pairs of price and
  size. `channel_batch_data` has several contents in one message.
- Books arrive crossed: validators see orders at different times. They are published as they are,
  and a reader uncrosses them; quotes taken from them may be crossed too.
- `subscribed` of trades repeats past ones, newest first. `side` is the taker's; `type` tells
  liquidations and deleveraging.
- `v4_markets` is one stream of all markets: oracle price (an index), the coming hour's funding
  rate and open interest in base. There is no mark price.
- 32 subscriptions of a channel are allowed on a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    SECOND,
    Acks,
    BookRule,
    Cause,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    InterestUnit,
    Limits,
    Listing,
    Market,
    Notice,
    PlainFeed,
    Refused,
    RestLimit,
    RestRequest,
    Sequential,
    Side,
    UnknownMessage,
    VenueError,
    add_funding,
    add_mark_price,
    add_open_interest,
    instrument,
    iso_event_ns,
    pairs_of,
)

_MARKETS: Final = "v4_markets"
_CHANNELS: Final = {
    "trades": "v4_trades",
    "quotes": "v4_orderbook",
    "book": "v4_orderbook",
    "funding": _MARKETS,
    "mark_price": _MARKETS,
    "open_interest": _MARKETS,
}
_HOUR: Final = 3_600 * SECOND
_LEFT_OUT: Final = {
    name: Filtered(name) for name in ("v4_candles", "v4_block_height", "v4_subaccounts")
}
_SIDES: Final = {"BUY": int(Side.BID), "SELL": int(Side.ASK)}
_TYPES: Final = {"LIQUIDATED": int(Flag.LIQUIDATION), "DELEVERAGED": int(Flag.ADL)}
_REPEATED: Final = Filtered("repeated message", duplicate=True)
_ID_DIGITS_MAX: Final = 32
_ID_MASK: Final = (1 << 64) - 1
_QUOTE: Final = "USD"


class _Message(msgspec.Struct, gc=False):
    type: str
    channel: str = ""
    id: str = ""
    message_id: Sequential = 0
    contents: msgspec.Raw = msgspec.Raw(b"null")
    message: Any = ""


class _Trade(msgspec.Struct, gc=False):
    id: str
    side: str
    size: Any  # as text or bare: `float_hook` keeps the digits
    price: Any
    createdAt: str  # noqa: N815  # the venue's name
    type: str = "LIMIT"


class _Trades(msgspec.Struct, gc=False):
    trades: list[_Trade]


class _Level(msgspec.Struct, gc=False):
    price: Any
    size: Any


class _Image(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]


class _Facts(msgspec.Struct, rename="camel", gc=False):
    oracle_price: Any = None
    effective_at: str | None = None
    next_funding_rate: Any = None
    open_interest: Any = None


class _Markets(msgspec.Struct, rename="camel", gc=False):
    """All markets in an answer; later those of which something changed."""

    markets: dict[str, _Facts] = {}
    trading: dict[str, _Facts] = {}
    oracle_prices: dict[str, _Facts] = {}


class _Update(msgspec.Struct, gc=False):
    bids: list[list[Any]] = []
    asks: list[list[Any]] = []


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_trades_batch: Final = msgspec.json.Decoder(list[_Trades], float_hook=str).decode
_parse_image: Final = msgspec.json.Decoder(_Image, float_hook=str).decode
_parse_markets: Final = msgspec.json.Decoder(_Markets, float_hook=str).decode
_parse_markets_batch: Final = msgspec.json.Decoder(list[_Markets], float_hook=str).decode
_parse_update: Final = msgspec.json.Decoder(_Update, float_hook=str).decode
_parse_update_batch: Final = msgspec.json.Decoder(list[_Update], float_hook=str).decode


class Dydx(PlainFeed):
    acks: ClassVar[Acks] = Acks.BY_DATA
    venue: ClassVar[str] = "dydx"
    reference: ClassVar[str] = "dYdX v4 Indexer API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "perpetual": Market(
            endpoints=(Endpoint("wss://indexer.dydx.trade/v4/ws", frozenset(_CHANNELS)),),
            rest_url="https://indexer.dydx.trade",
            limits=Limits(
                streams_per_connection=32,
                streams_per_subscribe=1,
                connects_per_s=1.0,
                connects_burst=5,
                requests_per_s=2.0,
                rest=RestLimit(weight_per_s=5.0, weight_burst=20),  # 100 in 10 s
                frame_bytes_max=4 << 20,
            ),
            book=BookRule(Continuity.CONNECTION, may_cross=True, quotes_from_book=True),
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._next = 0  # the message_id that the next message should carry
        self._asked: dict[str, None] = {}  # streams without an answer

    def stream(self, channel: str, symbol: str) -> str:
        name = _CHANNELS[channel]
        return f"{name}:" if name == _MARKETS else f"{name}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        self._asked.update(dict.fromkeys(streams))
        return _requests("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _requests("unsubscribe", streams)

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        message = _parse(payload)
        number = message.message_id
        if number and number == self._next - 1:
            return _REPEATED
        if number > self._next:
            out.hole(Cause.SEQUENCE, ts_recv, self._next, number - 1)
        try:
            control = self._content(payload, message, ts_recv, out)
        except Exception:
            # A message that is refused costs its own streams, and is none that the connection lost.
            # What lies before a later one is declared with the next.
            if number == self._next:
                self._next = number + 1
            raise
        self._next = number + 1
        return control

    def _content(
        self, payload: bytes, message: _Message, ts_recv: int, out: ColumnBuffer
    ) -> Control | None:
        match message.type:
            case "connected" | "unsubscribed" | "pong":
                return Notice.INFO
            case "error":
                return self._refused(str(message.message), message)
            case "subscribed" | "channel_data" | "channel_batch_data":
                return self._data(message, ts_recv, out)
        raise UnknownMessage(self.venue, f"type {message.type!r:.60}")

    def _refused(self, text: str, message: _Message) -> Control:
        told = f"{message.channel}:{message.id}"
        named = [
            item
            for item in self._asked
            if item == told or all(part in text for part in item.split(":", 1))
        ]
        for item in named:
            del self._asked[item]
        return Refused(text, tuple(named))

    def _data(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> Control | None:
        channel = message.channel
        if channel in _LEFT_OUT:
            return _LEFT_OUT[channel]
        if channel not in _CHANNELS.values():
            raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        if channel == _MARKETS:
            self._markets(message, ts_recv, out)
            self._asked.pop(f"{_MARKETS}:", None)
            return None
        number = self._symbols[message.id]
        if channel == "v4_trades":
            self._trades(number, message, ts_recv, out)
        else:
            self._levels(number, message, ts_recv, out)
        self._asked.pop(f"{channel}:{message.id}", None)
        return None

    def _trades(self, number: int, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        is_batch = message.type == "channel_batch_data"
        contents = message.contents
        parts = _parse_trades_batch(contents) if is_batch else [_parse_trades(contents)]
        is_past = message.type == "subscribed"
        past = int(Flag.SNAPSHOT) if is_past else 0
        for part in parts:
            for trade in reversed(part.trades) if is_past else part.trades:
                identifier = _trade_id(trade.id)
                out.add_trade(
                    number,
                    iso_event_ns(trade.createdAt),
                    ts_recv,
                    0,
                    trade.price,
                    trade.size,
                    _SIDES[trade.side],
                    identifier & _ID_MASK,
                    trade_id_high=identifier >> 64,
                    flags=int(Flag.LAST) | past | _TYPES.get(trade.type, 0),
                )

    def _markets(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        """Append what is told of all markets at once, as far as they are known here."""
        is_batch = message.type == "channel_batch_data"
        contents = message.contents
        for part in _parse_markets_batch(contents) if is_batch else [_parse_markets(contents)]:
            for told in (part.markets, part.trading, part.oracle_prices):
                for symbol, facts in told.items():
                    if symbol in self._symbols:
                        _append_facts(self._symbols[symbol], facts, ts_recv, out)

    def _levels(self, number: int, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        contents, last = message.contents, message.message_id
        no_time = int(Flag.NO_VENUE_TIME)
        if message.type == "subscribed":
            image = _parse_image(contents)
            bids, asks = (
                [(level.price, level.size) for level in side] for side in (image.bids, image.asks)
            )
            flags = no_time | Flag.SNAPSHOT
            out.add_book_update(
                number,
                ts_recv,
                ts_recv,
                bids,
                asks,
                first=last,
                last=last,
                flags=flags,
                are_pairs=True,
            )
            return
        is_batch = message.type == "channel_batch_data"
        for part in _parse_update_batch(contents) if is_batch else [_parse_update(contents)]:
            out.add_book_update(
                number,
                ts_recv,
                ts_recv,
                pairs_of(part.bids),
                pairs_of(part.asks),
                first=last,
                last=last,
                flags=no_time,
                are_pairs=True,
            )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel = message["channel"]
        return (f"{channel}:{message['id']}",) if channel in _CHANNELS.values() else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v4/perpetualMarkets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if "errors" in answer:
            text = str(answer["errors"])
            raise VenueError(cls.venue, "errors", text, temporary="Too many requests" in text)
        found: Iterable[Any] = answer["markets"].values()
        return list(found)

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry["ticker"], entry["status"] == "ACTIVE", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base = entry["ticker"].removesuffix(f"-{_QUOTE}")
        if base == entry["ticker"]:
            raise ValueError(f"{entry['ticker']!r:.40} is not priced in {_QUOTE}")
        return instrument(
            cls.venue,
            market,
            entry["ticker"],
            f"{base}-{_QUOTE}-PERP".upper(),
            base,
            _QUOTE,
            entry["tickSize"],
            entry["stepSize"],
            contract=Contract.PERPETUAL,
            settlement="USDC",
        )


def _append_facts(number: int, facts: _Facts, ts_recv: int, out: ColumnBuffer) -> None:
    if facts.oracle_price is not None:
        at = facts.effective_at
        time = None if at is None else iso_event_ns(at)
        add_mark_price(out, number, ts_recv, index_price=facts.oracle_price, ts_event=time)
    if facts.next_funding_rate is not None:
        add_funding(out, number, ts_recv, rate=facts.next_funding_rate, interval_ns=_HOUR)
    if facts.open_interest is not None:
        value, unit = facts.open_interest, InterestUnit.BASE
        add_open_interest(out, number, ts_recv, value=value, unit=unit)


def _requests(kind: str, streams: Sequence[str]) -> Iterator[bytes]:
    for stream in streams:
        channel, _, symbol = stream.partition(":")
        request: dict[str, object] = {"type": kind, "channel": channel}
        if symbol:
            request["id"] = symbol
        if kind == "subscribe":
            request["batched"] = False
        yield orjson.dumps(request)


def _trade_id(text: str) -> int:
    """Return an id of up to 32 hex digits, with or without the dashes of a UUID."""
    digits = text.replace("-", "")
    if not 0 < len(digits) <= _ID_DIGITS_MAX or not digits.isascii() or not digits.isalnum():
        raise DecodeError("dydx", f"{text!r:.60} is no id of a trade")
    return int(digits, 16)


adapter: type[FeedAdapter] = Dydx
