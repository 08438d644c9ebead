"""Lighter, perpetuals and spot: trades, quotes, and books chained by nonces.

Reference: Lighter API, "WebSocket Reference" (Order Book, Trade, Ticker), REST "orderBooks", read
2026-11-30; lighter-python issue 105 on offsets.
Units: prices and sizes are decimal text in base; times are ms, those of the matching engine us.
Traps:
- Frames name a market by its number, so that is the venue's symbol: 0 is ETH. A request has
  `order_book/0`, an answer `order_book:0`.
- The first message of a channel, `subscribed/...`, confirms it and has its data: the book's image,
  trades of before, the last quote.
- `begin_nonce` of an update is `nonce` of the one before. `offset` is no longer dense.
- `is_maker_ask` says that the seller was the maker, so the buyer is the aggressor.
- Liquidations and deleveragings come in a list of their own, `liquidation_trades`.
- `market_stats` has mark and index price, open interest in USD, and the hour's funding rate in
  percent as it stands (`current_funding_rate`) and as it was exchanged last (`funding_rate`).
- The server sends {"type":"ping"} and wants a pong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    SECOND,
    Acks,
    BookRule,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    Counted,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    FundingState,
    Instrument,
    InterestUnit,
    Limits,
    Listing,
    Market,
    MilliOrMicroseconds,
    Milliseconds,
    Notice,
    PlainFeed,
    Position,
    PriceKind,
    Refused,
    Reply,
    RestLimit,
    RestRequest,
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    either_ns,
    instrument,
    said,
)

_CHANNELS: Final = {
    "trades": "trade",
    "quotes": "ticker",
    "book": "order_book",
    "funding": "market_stats",
    "mark_price": "market_stats",
    "open_interest": "market_stats",
    "liquidations": "trade",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book"})
_HOUR_NS: Final = 3_600 * SECOND
_PERCENT: Final = Decimal("0.01")
_RATE_MAX: Final = 40  # characters
_BID, _ASK = int(Side.BID), int(Side.ASK)
_CONDITIONS: Final = {"liquidation": int(Flag.LIQUIDATION), "deleverage": int(Flag.ADL)}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("market_stats", "spot_market_stats", "height", "candle", "notification"),
        *("premium", "pool_info", "user_stats"),
    )
}
_OK: Final = 200
_TEMPORARY: Final = frozenset({"429", "500", "502", "503", "23000"})
_DIGITS_MAX: Final = 18


class _Trade(msgspec.Struct, gc=False):
    trade_id: Sequential
    market_id: int
    price: Any  # as text or bare: `float_hook` keeps the digits
    size: Any
    is_maker_ask: bool
    timestamp: Milliseconds
    type: str = "trade"


class _Trades(msgspec.Struct, gc=False):
    channel: str
    trades: list[_Trade] | None = None
    liquidation_trades: list[_Trade] | None = None


class _Level(msgspec.Struct, gc=False):
    price: Any = "0"
    size: Any = "0"


class _Ticker(msgspec.Struct, gc=False):
    a: _Level | None = None
    b: _Level | None = None


class _Quote(msgspec.Struct, gc=False):
    channel: str
    ticker: _Ticker
    timestamp: Milliseconds
    nonce: Sequential = 0


class _Book(msgspec.Struct, gc=False):
    asks: list[_Level]
    bids: list[_Level]
    nonce: Counted
    begin_nonce: Sequential = 0
    last_updated_at: MilliOrMicroseconds | None = None


class _Books(msgspec.Struct, gc=False):
    channel: str
    order_book: _Book
    timestamp: Milliseconds | None = None


class _Stats(msgspec.Struct, gc=False):
    market_id: int
    mark_price: Any = None
    index_price: Any = None
    open_interest: Any = None
    current_funding_rate: Any = None


class _MarketStats(msgspec.Struct, gc=False):
    market_stats: _Stats
    timestamp: Milliseconds | None = None


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    type: str = ""
    channel: str = ""
    error: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_quote: Final = msgspec.json.Decoder(_Quote, float_hook=str).decode
_parse_stats: Final = msgspec.json.Decoder(_MarketStats, float_hook=str).decode
_parse_books: Final = msgspec.json.Decoder(_Books, float_hook=str).decode

_URL: Final = "wss://mainnet.zklighter.elliot.ai/stream?readonly=true"
_MARKET: Final = Market(
    endpoints=(Endpoint(_URL, frozenset(_CHANNELS)),),
    rest_url="https://mainnet.zklighter.elliot.ai",
    limits=Limits(
        streams_per_connection=100,
        streams_per_subscribe=1,
        connects_per_s=1.0,  # 80 a minute
        requests_per_s=3.0,  # 200 messages a minute of an address
        address_requests_per_s=3.0,
        rest=RestLimit(weight_per_s=0.5, weight_burst=2),  # 60 a minute
        frame_bytes_max=8 << 20,
        lifetime_s=86_400.0,
    ),
    book=BookRule(Continuity.PREVIOUS),
    trade_numbers=TradeNumbers.ASCENDING,
)


class Lighter(PlainFeed):
    venue: ClassVar[str] = "lighter"
    reference: ClassVar[str] = "Lighter WebSocket Reference, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "perp": _MARKET,
        "spot": replace(_MARKET, endpoints=(Endpoint(_URL, _SPOT_CHANNELS),)),
    }
    acks: ClassVar[Acks] = Acks.BY_DATA

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for stream in streams:
            yield _request("subscribe", stream)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for stream in streams:
            yield _request("unsubscribe", stream)

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        action, _, channel = head.type.partition("/")
        is_first = action == "subscribed"
        if not channel or not (is_first or action == "update"):
            return self._other(payload, head)
        match channel:
            case "trade":
                self._trades(_parse_trades(payload), is_first, ts_recv, out)
            case "ticker":
                self._quote(_parse_quote(payload), ts_recv, out)
            case "order_book":
                self._book(_parse_books(payload), is_first, ts_recv, out)
            case "market_stats" if self._market == "perp" and not head.channel.endswith(":all"):
                self._stats(_parse_stats(payload), ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"channel {name!r:.60}")
        return None

    def _trades(self, message: _Trades, is_first: bool, ts_recv: int, out: ColumnBuffer) -> None:
        flags = Flag.LAST | Flag.SNAPSHOT if is_first else Flag.LAST
        number = self._number(message.channel)
        trades = [*(message.trades or ()), *(message.liquidation_trades or ())]
        by_id = {trade.trade_id: trade for trade in trades}
        for identifier, trade in sorted(by_id.items()):
            if trade.type == "liquidation" and not is_first and self._market == "perp":
                add_liquidation(
                    out,
                    number,
                    ts_recv,
                    position=Position.SHORT if trade.is_maker_ask else Position.LONG,
                    size=trade.size,
                    price=trade.price,
                    price_kind=PriceKind.FILL,
                    ts_event=trade.timestamp * MILLISECOND,
                    sequence=identifier,
                )
            out.add_trade(
                number,
                trade.timestamp * MILLISECOND,
                ts_recv,
                identifier,
                trade.price,
                trade.size,
                _BID if trade.is_maker_ask else _ASK,
                identifier,
                flags=flags | _CONDITIONS.get(trade.type, 0),
            )

    def _quote(self, quote: _Quote, ts_recv: int, out: ColumnBuffer) -> None:
        bid, ask = quote.ticker.b or _Level(), quote.ticker.a or _Level()
        sides = (bid.price, bid.size, ask.price, ask.size)
        time = quote.timestamp * MILLISECOND
        out.add_quote(self._number(quote.channel), time, ts_recv, quote.nonce, *sides)

    def _book(self, message: _Books, is_first: bool, ts_recv: int, out: ColumnBuffer) -> None:
        book = message.order_book
        time = message.timestamp if book.last_updated_at is None else book.last_updated_at
        flags = int(Flag.SNAPSHOT) if is_first else 0
        out.add_book_update(
            self._number(message.channel),
            ts_recv if time is None else either_ns(time),
            ts_recv,
            [(level.price, level.size) for level in book.bids],
            [(level.price, level.size) for level in book.asks],
            first=book.nonce,
            last=book.nonce,
            previous=0 if is_first else book.begin_nonce,
            flags=flags | Flag.NO_VENUE_TIME if time is None else flags,
            are_pairs=True,
        )

    def _stats(self, message: _MarketStats, ts_recv: int, out: ColumnBuffer) -> None:
        time = None if message.timestamp is None else message.timestamp * MILLISECOND
        one = message.market_stats
        number = self._symbols[str(one.market_id)]
        rate, interest = said(one.current_funding_rate), said(one.open_interest)
        if rate is not None:
            add_funding(
                out,
                number,
                ts_recv,
                rate=_fraction(rate),
                ts_event=time,
                interval_ns=_HOUR_NS,
                state=FundingState.PREDICTED,
            )
        prices = {"mark_price": said(one.mark_price), "index_price": said(one.index_price)}
        if any(price is not None for price in prices.values()):
            add_mark_price(out, number, ts_recv, ts_event=time, **prices)
        if interest is not None:
            unit = InterestUnit.USD
            add_open_interest(out, number, ts_recv, value=interest, unit=unit, ts_event=time)

    def _number(self, channel: str) -> int:
        """Return the instrument of a channel, `order_book:0`."""
        return self._symbols[channel.partition(":")[2]]

    def streams_of(self, payload: bytes) -> Sequence[str]:
        channel = _parse_head(payload).channel
        return (channel,) if channel.partition(":")[0] in _CHANNELS.values() else ()

    def _other(self, payload: bytes, head: _Head) -> Control:
        match head.type:
            case "ping":
                return Reply(b'{"type":"pong"}')
            case "pong":
                return Notice.HEARTBEAT
            case "connected" | "unsubscribed":
                return Notice.INFO
        if head.error is not None:
            text = f"{head.error['code']} {head.error['message']}"
            return Refused(text, tuple(_named(text)))
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v1/orderBooks")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if answer.get("code") != _OK:
            code, text = str(answer["code"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["order_books"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry.get("market_type", "perp") != market:
            return None
        if type(entry["market_id"]) is not int:
            raise ValueError(f"market_id {entry['market_id']!r:.40}")
        return Listing(str(entry["market_id"]), entry["status"] == "active", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, _, quote = entry["symbol"].partition("/")
        quote = quote or "USDC"
        is_perpetual = market == "perp"
        return instrument(
            cls.venue,
            market,
            str(entry["market_id"]),
            f"{base}-{quote}{'-PERP' if is_perpetual else ''}".upper(),
            base,
            quote,
            _increment(entry["supported_price_decimals"]),
            _increment(entry["supported_size_decimals"]),
            contract=Contract.PERPETUAL if is_perpetual else Contract.SPOT,
            settlement=quote,
        )


def _fraction(percent: Any) -> str:
    """Return a rate in percent as a part of one, exactly. Raises ValueError for no number."""
    text = str(percent)
    try:
        rate = Decimal(text) * _PERCENT if len(text) <= _RATE_MAX else Decimal("NaN")
    except ArithmeticError:
        rate = Decimal("NaN")
    if not rate.is_finite() or abs(rate.adjusted()) > _RATE_MAX:
        raise ValueError(f"{text!r:.60} is no rate")
    return f"{rate:f}"


def _increment(digits: Any) -> str:
    """Return the increment of so many decimals."""
    if type(digits) is not int or not 0 <= digits <= _DIGITS_MAX:
        raise ValueError(f"{digits!r:.40} decimals")
    return f"0.{'1'.rjust(digits, '0')}" if digits else "1"


def _request(kind: str, stream: str) -> bytes:
    return orjson.dumps({"type": kind, "channel": stream.replace(":", "/", 1)})


def _named(text: str) -> Iterator[str]:
    """Yield the streams that a refusal names, as `order_book/999`."""
    for word in text.replace("(", " ").replace(")", " ").split():
        channel, _, symbol = word.partition("/")
        if channel in _CHANNELS.values() and symbol:
            yield f"{channel}:{symbol}"


adapter: type[FeedAdapter] = Lighter
