"""Coinbase Advanced Trade, spot: trades and full-depth book; quotes come from the book.

Reference: "Advanced Trade WebSocket" (channels, rate limits), "List Public Products" and "Get
Public Product Book".
Units: price, size are decimal text; times are RFC 3339 with up to nine fractional digits.
Traps:
- A trade's `side` is the maker's: the aggressor is the other side.
- Trades of one message stand newest first. The `snapshot` on subscribe is resent history.
- `sequence_num` counts over all channels of the connection, from 0: a hole names no product.
- One subscribe message holds one channel; its answer lists everything subscribed so far.
- `ticker` speaks on matches only, so it is no source of quotes.
- Products with an `alias` share its book and speak under its name; they are left out.
- More than 16 to 31 level2 products on one connection are refused ("too many L2 streams").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

import msgspec
import orjson
from msgspec import Struct

from ingestor.adapter import (
    SECOND,
    Ack,
    BookRule,
    Cause,
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
    LostTrades,
    Market,
    Notice,
    Reconnect,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    instrument,
    iso_event_ns,
    whole_number,
)

from .market_data import Candle, Product, append_candles, append_statuses
from .shapes import SHAPES

_CHANNELS: Final = {
    "trades": "market_trades",
    "quotes": "level2",
    "book": "level2",
    "candles": "candles",
    "instrument_status": "status",
}
# What names the product in each entry of an event.
_ENTRIES: Final = {
    "market_trades": ("trades", "product_id"),
    "candles": ("candles", "product_id"),
    "status": ("products", "id"),
}
_Entry = TypeVar("_Entry")
_AGGRESSORS: Final = {"BUY": int(Side.ASK), "SELL": int(Side.BID)}  # keyed by the maker's side
_NO_SIDE: Final = int(Side.NONE)  # UNKNOWN_ORDER_SIDE
_LEVEL_SIDES: Final = {"bid", "offer"}
_BOOK_FLAGS: Final = {"update": 0, "snapshot": int(Flag.SNAPSHOT)}
_CONTROL: Final[dict[str, Control]] = {
    "heartbeats": Notice.HEARTBEAT,
    "ticker": Filtered("ticker"),
    "ticker_batch": Filtered("ticker"),
    "user": Filtered("user"),
}
_REPEATED: Final = Filtered("repeated", duplicate=True)
_LATE: Final = Filtered("late")
_LATE_MAX: Final = 100  # so many in a row are no reordering: the count itself is broken
_TEMPORARY: Final = frozenset(
    {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL"}
)
_HISTORY_PAGE: Final = 1_000  # trades in one answer
_NOT_TRADING: Final = ("is_disabled", "trading_disabled", "cancel_only")
_WORD: Final = re.compile(r"[\w-]+")


class _Trade(Struct, gc=False):
    product_id: str
    trade_id: str
    price: Any  # as text or bare: `float_hook` keeps the digits
    size: Any
    time: str
    side: str


class _History(Struct):
    """The answer to a request for past trades, newest first."""

    trades: list[_Trade]


class _Level(Struct, gc=False):
    side: str
    event_time: str
    price_level: Any
    new_quantity: Any


class _Event(Struct):
    """Hold what the events of all channels have in common."""

    type: str = ""
    product_id: str = ""
    trades: list[_Trade] | None = None
    updates: list[_Level] | None = None
    candles: list[Candle] | None = None
    products: list[Product] | None = None
    subscriptions: dict[str, list[str]] | None = None


class _Message(Struct):
    """One frame.

    To read these fields alone takes half the time of reading all, and the books of this venue are
    verbose: 100 bytes and more for a level.
    """

    channel: str | None = None  # lacking in an error
    sequence_num: Sequential = -1
    timestamp: str = ""
    events: list[_Event] | None = None
    type: str = ""
    message: str | None = None


class _Head(Struct):
    """Read what is still read of a message that has another shape."""

    channel: str
    sequence_num: Sequential


_parse_history: Final = msgspec.json.Decoder(_History, float_hook=str).decode
_parse: Final = msgspec.json.Decoder(_Message, float_hook=str).decode  # one for all connections
_parse_head: Final = msgspec.json.Decoder(_Head).decode
_NO_TIME: Final = "1970-01-01T00:00:00"  # of levels in a snapshot that has none


def _append_trade(
    trade: _Trade, instrument: int, ts_recv: int, flags: int, out: ColumnBuffer
) -> None:
    number, side = whole_number(trade.trade_id), _AGGRESSORS.get(trade.side, _NO_SIDE)
    out.add_trade(
        instrument,
        iso_event_ns(trade.time),
        ts_recv,
        number,
        trade.price,
        trade.size,
        side,
        number,
        flags=flags,
    )


class Coinbase:
    venue: ClassVar[str] = "coinbase"
    reference: ClassVar[str] = "Coinbase Advanced Trade WebSocket, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("wss://advanced-trade-ws.coinbase.com", frozenset(_CHANNELS)),),
            rest_url="https://api.coinbase.com",
            limits=Limits(
                streams_per_connection=16,
                streams_per_subscribe=16,
                # An address may connect 8 times and send 8 messages a second, all connections
                # together.
                connects_per_s=4.0,
                connects_burst=2,
                requests_per_s=4.0,
                address_requests_per_s=4.0,
                rest=RestLimit(weight_per_s=4.0, weight_burst=5),  # 10 a second
                frame_bytes_max=32 << 20,  # snapshots of 5 MB and 46,000 levels occur
            ),
            book=BookRule(continuity=Continuity.CONNECTION, quotes_from_book=True),
            trade_numbers=TradeNumbers.ASCENDING,
            recorded="2026-08",
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self.next_number = 0  # the sequence_num that the next message should carry
        self._late = (0, 0)  # late messages in a row, and what was expected meanwhile
        self._asked: set[str] = set()  # streams asked for and neither confirmed nor refused
        self._decoders: dict[str, Callable[[_Message, int, ColumnBuffer], None]] = {
            "market_trades": self._trades,
            "l2_data": self._levels,
            "candles": self._market_data,
            "status": self._market_data,
        }

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        self._asked.update(streams)
        yield _request("subscribe", "heartbeats")  # keeps a connection of quiet products open
        yield from self._requests("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        self._asked.difference_update(streams)
        yield from self._requests("unsubscribe", streams)

    def _requests(self, kind: str, streams: Sequence[str]) -> Iterator[bytes]:
        size = self.markets["spot"].limits.streams_per_subscribe
        symbols_of: dict[str, list[str]] = {}
        for stream in streams:
            channel, _, symbol = stream.partition(":")
            symbols_of.setdefault(channel, []).append(symbol)
        for channel, symbols in symbols_of.items():
            for start in range(0, len(symbols), size):
                yield _request(kind, channel, symbols[start : start + size])

    def ping(self) -> bytes | None:
        return None

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
        try:
            message = _parse(payload)
        except msgspec.ValidationError as failure:
            return self._unreadable(payload, failure)
        channel, number = message.channel, message.sequence_num
        if channel is None:
            return self._error(message)
        if number < 0:
            raise DecodeError(self.venue, f"{channel:.60} without sequence_num")
        if number != self.next_number:
            passed = self._out_of_order(number, ts_recv, out)
            if passed is not None:
                return passed
        try:
            control = self._content(channel, message, ts_recv, out)
        except Exception:
            self._use_up(number)
            raise
        self.next_number = number + 1
        return control

    def _content(
        self, channel: str, message: _Message, ts_recv: int, out: ColumnBuffer
    ) -> Control | None:
        decoder = self._decoders.get(channel)
        if decoder is None:
            return self._control(channel, message)
        if message.events is None:
            raise DecodeError(self.venue, f"{channel:.60} without events")
        decoder(message, ts_recv, out)
        return None

    def _use_up(self, number: int) -> None:
        """A message is refused: it costs its own streams.

        Where it was the next one, it is nothing that the connection lost; what lies before a later
        one is declared with the next message.
        """
        if number == self.next_number:
            self.next_number = number + 1

    def _unreadable(self, payload: bytes, failure: msgspec.ValidationError) -> Control:
        """Count a message of another shape, so that only its own streams are concerned."""
        head = _parse_head(payload)
        self._use_up(head.sequence_num)
        if head.channel in self._decoders or head.channel in _CONTROL:
            raise DecodeError(self.venue, str(failure))
        raise UnknownMessage(self.venue, f"channel {head.channel!r:.60}")

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel, events = message["channel"], message["events"]
        if channel == "l2_data":
            return [f"level2:{event['product_id']}" for event in events]
        member, name = _ENTRIES[channel]
        return [f"{channel}:{item[name]}" for event in events for item in event[member]]

    def _out_of_order(self, number: int, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Declare what was skipped.

        A message whose number was passed is left out: its numbers are declared missing already, and
        an old level must not overwrite a newer one.
        """
        expected = self.next_number
        if number > expected:
            out.hole(Cause.SEQUENCE, ts_recv, expected, number - 1)
            return None
        if number == expected - 1:
            return _REPEATED
        if number == 0:
            return None  # a new connection, whose end before was declared by the session
        late, meanwhile = self._late
        late = late + 1 if meanwhile == expected else 1
        self._late = (late, expected)
        if late > _LATE_MAX:
            return Reconnect(f"sequence_num fell from {expected} to {number} and stays there")
        return _LATE

    def _trades(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        symbols = self._symbols
        for event in message.events or ():
            flags = int(Flag.LAST) | _BOOK_FLAGS[event.type]
            for trade in reversed(_present(event.trades)):
                _append_trade(trade, symbols[trade.product_id], ts_recv, flags, out)

    def _levels(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        number = message.sequence_num
        for event in message.events or ():
            updates = _present(event.updates)
            bids = [
                (update.price_level, update.new_quantity)
                for update in updates
                if update.side == "bid"
            ]
            asks = [
                (update.price_level, update.new_quantity)
                for update in updates
                if update.side == "offer"
            ]
            if len(bids) + len(asks) < len(updates):
                raise KeyError(
                    next(update.side for update in updates if update.side not in _LEVEL_SIDES)
                )
            # Levels of one event share their time; where a snapshot has none, it is 1970.
            time = updates[-1].event_time if updates else _NO_TIME
            out.add_book_update(
                self._symbols[event.product_id],
                iso_event_ns(message.timestamp if time.startswith(_NO_TIME) else time),
                ts_recv,
                bids,
                asks,
                first=number,
                last=number,
                flags=_BOOK_FLAGS[event.type],
                are_pairs=True,
            )

    def _market_data(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        times = (iso_event_ns(message.timestamp), ts_recv)
        for event in message.events or ():
            flags = _BOOK_FLAGS[event.type]
            if message.channel == "candles":
                append_candles(_present(event.candles), self._symbols, times, flags, out)
            else:
                append_statuses(_present(event.products), self._symbols, times, flags, out)

    def _control(self, channel: str, message: _Message) -> Control:
        if channel == "subscriptions":
            return self._subscriptions(message.events or ())
        control = _CONTROL.get(channel)
        if control is None:
            raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        return control

    def _subscriptions(self, events: Sequence[_Event]) -> Control:
        streams = tuple(
            f"{channel}:{symbol}"
            for event in events
            for channel, symbols in (event.subscriptions or {}).items()
            for symbol in symbols
        )
        self._asked.difference_update(streams)
        return Ack(streams) if streams else Notice.INFO

    def _error(self, message: _Message) -> Control:
        text = message.message
        if message.type != "error" or text is None:
            raise UnknownMessage(self.venue, f"type {message.type!r:.60} without a channel")
        words = set(_WORD.findall(text))
        refused = sorted(item for item in self._asked if item.partition(":")[2] in words)
        self._asked.difference_update(refused)
        return Refused(text, tuple(refused))

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        # Pages are documented since 2026-08, whether there are any without `limit` is not.
        return [
            RestRequest(
                "/api/v3/brokerage/market/products",
                {"product_type": "SPOT"},
                cursor=("pagination", "next_cursor"),
                more=("pagination", "has_next"),
                total=("num_products",),
            )
        ]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if "products" not in answer and "error" in answer:
            code = str(answer["error"])
            text = str(answer.get("message") or answer.get("error_details") or "")
            raise VenueError(cls.venue, code, text, temporary=code.upper() in _TEMPORARY)
        found: Iterable[Any] = answer["products"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        """An alias is another name of a product, whose messages carry the product's own."""
        if entry["product_type"] != "SPOT" or entry.get("alias"):
            return None
        status = next((flag for flag in _NOT_TRADING if entry.get(flag)), entry["status"])
        return Listing(entry["product_id"], status == "online", status)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["base_currency_id"], entry["quote_currency_id"]
        return instrument(
            cls.venue,
            market,
            entry["product_id"],
            f"{base}-{quote}".upper(),
            base,
            quote,
            entry["price_increment"],
            entry["base_increment"],
            settlement=quote,
        )

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
        query = {
            "limit": str(_HISTORY_PAGE),
            "start": str(lost.after_ns // SECOND),
            "end": str(lost.before_ns // SECOND + 1),
        }
        path = f"/api/v3/brokerage/market/products/{symbol}/ticker"
        return RestRequest(path, query)

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the past trades of a REST answer, oldest first.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        for trade in reversed(_parse_history(body).trades):
            _append_trade(trade, self._symbols[symbol], ts_recv, int(Flag.LAST), out)

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        query = {"product_id": symbol, "limit": str(depth)}
        return RestRequest("/api/v3/brokerage/market/product_book", query)

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        image = orjson.loads(body)["pricebook"]
        if image["product_id"] != symbol:
            raise DecodeError(self.venue, f"a book of another product than {symbol}")
        bids, asks = (
            [(level["price"], level["size"]) for level in image[side]] for side in ("bids", "asks")
        )
        return RestSnapshot(0, bids, asks)


def _present(entries: list[_Entry] | None) -> list[_Entry]:
    if entries is None:
        raise DecodeError(Coinbase.venue, "an event without its entries")
    return entries


def _request(kind: str, channel: str, symbols: Sequence[str] = ()) -> bytes:
    request: dict[str, object] = {"type": kind, "channel": channel}
    if symbols:
        request["product_ids"] = symbols
    return orjson.dumps(request)


adapter: type[FeedAdapter] = Coinbase
