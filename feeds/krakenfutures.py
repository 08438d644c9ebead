"""Kraken Derivatives, linear and inverse: trades, and books of all levels with quotes of them.

Reference: Kraken "Futures WebSocket API" (trade, book, heartbeat), REST "Get instruments", read
2026-11-30.
Units: prices and sizes are bare JSON numbers, read with their digits kept; times are ms. Sizes are
in base (linear: PF_, FF_, FV_) or count contracts of 1 USD (inverse: PI_, FI_).
Traps:
- `seq` of a book's messages rises by one for each product. A size is absolute, 0 removes the level.
- `side` of a trade is the taker's; `type` says what it was. Trades of a snapshot are newest first.
- `ticker` comes once a second, so quotes are the best levels of the book.
- `ticker` has the rate of this hour, fixed, and the predicted one of the next, both relative to the
  price.
- A trade that liquidates is a row of liquidations too: its taker's position is closed.
- A refusal is an `error` or `alert` without a name, or `subscribed_failed` with products.
- Lists may have symbols in lower case, messages have none.
- Both markets have a perpetual of BTC and USD: they are apart, since canonical names are.
- A connection that is silent for a minute ends: the feed `heartbeat` comes every second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    SECOND,
    TAKER_SIDES,
    Ack,
    BookRule,
    ColumnBuffer,
    CompiledShape,
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
    Milliseconds,
    Notice,
    PlainFeed,
    Position,
    PriceKind,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    SizeUnit,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    instrument,
    iso_event_ns,
    iso_text,
    optional_ns,
    shape,
    unsigned,
    uuid_halves,
)

_FEEDS: Final = {
    "trades": "trade",
    "quotes": "book",
    "book": "book",
    "funding": "ticker",
    "mark_price": "ticker",
    "open_interest": "ticker",
    "liquidations": "trade",
}
_HOUR_NS: Final = 3_600 * SECOND
_UNITS: Final = {"linear": InterestUnit.BASE, "inverse": InterestUnit.QUOTE}
_POSITIONS: Final = {"sell": Position.LONG, "buy": Position.SHORT}
_STREAM_OF: Final = {"trade": "trade", "book": "book", "ticker": "ticker"}
_LEFT_OUT: Final = {name: Filtered(name) for name in ("ticker_lite",)}
_LAST: Final = int(Flag.LAST)
_CONDITIONS: Final = {
    "liquidation": int(Flag.LIQUIDATION),
    "assignment": int(Flag.LIQUIDATION),  # a liquidated position that a participant takes over
    "termination": int(Flag.ADL),
    "block": int(Flag.BLOCK),
}
_INVERSE: Final = ("PI_", "FI_")
_MARKET_OF: Final = {
    "flexible_futures": "linear",
    "futures_vanilla": "linear",
    "futures_inverse": "inverse",
}
_TEMPORARY: Final = frozenset({"apiLimitExceeded", "Unavailable", "Server Error", "serverError"})
_LOT_DIGITS_MAX: Final = 12


class _Trade(msgspec.Struct, gc=False):
    product_id: str
    side: str
    time: Milliseconds
    price: Any  # `float_hook` keeps the digits
    qty: Any
    uid: str | None = None
    type: str = "fill"
    seq: Sequential = 0


class _Trades(msgspec.Struct, gc=False):
    product_id: str
    trades: list[_Trade]


class _Level(msgspec.Struct, gc=False):
    price: Any
    qty: Any


class _Image(msgspec.Struct, gc=False):
    product_id: str
    seq: Counted
    bids: list[_Level]
    asks: list[_Level]
    timestamp: Milliseconds | None = None


class _Change(msgspec.Struct, gc=False):
    product_id: str
    seq: Counted
    side: str
    price: Any
    qty: Any
    timestamp: Milliseconds | None = None


class _Ticker(msgspec.Struct, gc=False):
    product_id: str
    time: Milliseconds
    markPrice: Any = None  # noqa: N815  # the venue's name
    index: Any = None
    relative_funding_rate: Any = None
    relative_funding_rate_prediction: Any = None
    next_funding_rate_time: Any = None
    openInterest: Any = None  # noqa: N815  # the venue's name


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    feed: str = ""
    event: str | None = None
    product_ids: list[str] = []
    message: str = ""


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_image: Final = msgspec.json.Decoder(_Image, float_hook=str).decode
_parse_ticker: Final = msgspec.json.Decoder(_Ticker, float_hook=str).decode
_parse_change: Final = msgspec.json.Decoder(_Change, float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode

_MARKET: Final = Market(
    endpoints=(Endpoint("wss://futures.kraken.com/ws/v1", frozenset(_FEEDS)),),
    rest_url="https://futures.kraken.com",
    limits=Limits(
        streams_per_connection=200,
        streams_per_subscribe=1,  # a refusal doesn't say which product it means
        connects_per_s=1.0,  # 100 connections
        requests_per_s=20.0,  # 100 a second
        rest=RestLimit(weight_per_s=2.0, weight_burst=4),  # 500 of cost 2 in 10 s, with a key
        frame_bytes_max=4 << 20,
    ),
    book=BookRule(Continuity.INCREMENT, quotes_from_book=True),
    trade_numbers=TradeNumbers.ASCENDING,
)


# The texts of frequent frames. What is no plain fill goes to `decode`.
_SHAPES: Final = (
    shape(
        RowClass.LEVEL,
        '{"feed":"book","product_id":"<symbol>","side":"<side:buy=1|sell=2>",'
        '"seq":<int:first,last>=1>,"price":<price>,"qty":<size><level>,"timestamp":<ms:ts_event>}',
    ),
    shape(
        RowClass.TRADE,
        '{"feed":"trade","product_id":"<symbol>","uid":"<uuid>","side":"<side:buy=1|sell=2>",'
        '"type":"fill","seq":<int:sequence>,"time":<ms:ts_event>,"qty":<size:size>,'
        '"price":<price:price>}',
    ),
)


class KrakenFutures(PlainFeed):
    venue: ClassVar[str] = "krakenfutures"
    reference: ClassVar[str] = "Kraken Futures WebSocket API v1, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(("linear", "inverse"), _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(1)

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_FEEDS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        yield b'{"event":"subscribe","feed":"heartbeat"}'
        yield from self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        yield from self._operations("unsubscribe", streams)

    def _operations(self, event: str, streams: Sequence[str]) -> Iterator[bytes]:
        for _, (stream,) in self._requests.parts(streams, keep=event == "subscribe"):
            feed, _, symbol = stream.partition(":")
            yield orjson.dumps({"event": event, "feed": feed, "product_ids": [symbol]})

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
        match head.feed:
            case "trade":
                self._append(_parse_trade(payload), _LAST, ts_recv, out)
            case "trade_snapshot":
                for trade in reversed(_parse_trades(payload).trades):
                    self._append(trade, _LAST | Flag.SNAPSHOT, ts_recv, out)
            case "book":
                self._change(_parse_change(payload), ts_recv, out)
            case "book_snapshot":
                image = _parse_image(payload)
                sides = [[(level.price, _absolute(level.qty)) for level in image.bids],
                         [(level.price, _absolute(level.qty)) for level in image.asks]]  # fmt: skip
                self._levels(image, sides, int(Flag.SNAPSHOT), ts_recv, out)
            case "ticker":
                self._ticker(_parse_ticker(payload), ts_recv, out)
            case "heartbeat":
                return Notice.HEARTBEAT
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"feed {name!r:.60}")
        return None

    def _append(self, trade: _Trade, flags: int, ts_recv: int, out: ColumnBuffer) -> None:
        high, low = uuid_halves(trade.uid) if trade.uid else (0, 0)
        number, time = self._symbols[trade.product_id], trade.time * MILLISECOND
        if trade.type == "liquidation" and not flags & Flag.SNAPSHOT:
            add_liquidation(
                out,
                number,
                ts_recv,
                position=_POSITIONS.get(trade.side, Position.UNKNOWN),
                size=trade.qty,
                price=trade.price,
                price_kind=PriceKind.FILL,
                ts_event=time,
                sequence=trade.seq,
            )
        out.add_trade(
            number,
            time,
            ts_recv,
            trade.seq,
            trade.price,
            trade.qty,
            TAKER_SIDES.get(trade.side, NO_SIDE),
            low,
            trade_id_high=high,
            flags=flags | _CONDITIONS.get(trade.type, 0),
        )

    def _ticker(self, one: _Ticker, ts_recv: int, out: ColumnBuffer) -> None:
        number, time = self._symbols[one.product_id], one.time * MILLISECOND
        due_ns = optional_ns(one.next_funding_rate_time)
        rates = (
            (one.relative_funding_rate, due_ns, FundingState.SETTLED),
            (
                one.relative_funding_rate_prediction,
                None if due_ns is None else due_ns + _HOUR_NS,
                FundingState.PREDICTED,
            ),
        )
        for rate, due, state in rates:
            if rate is not None:
                add_funding(
                    out,
                    number,
                    ts_recv,
                    rate=rate,
                    ts_event=time,
                    due_ns=due,
                    interval_ns=_HOUR_NS,
                    state=state,
                )
        prices = {"mark_price": one.markPrice, "index_price": one.index}
        if any(price is not None for price in prices.values()):
            add_mark_price(out, number, ts_recv, ts_event=time, **prices)
        if one.openInterest is not None:
            unit = _UNITS[self._market]
            value = one.openInterest
            add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)

    def _change(self, change: _Change, ts_recv: int, out: ColumnBuffer) -> None:
        if change.side not in TAKER_SIDES:
            raise ValueError(f"a side {change.side!r:.40}")
        level = [(change.price, _absolute(change.qty))]
        sides = [level, []] if change.side == "buy" else [[], level]
        self._levels(change, sides, 0, ts_recv, out)

    def _levels(
        self,
        message: _Image | _Change,
        sides: Sequence[Sequence[tuple[Any, Any]]],
        flags: int,
        ts_recv: int,
        out: ColumnBuffer,
    ) -> None:
        time = message.timestamp
        out.add_book_update(
            self._symbols[message.product_id],
            ts_recv if time is None else time * MILLISECOND,
            ts_recv,
            sides[0],
            sides[1],
            first=message.seq,
            last=message.seq,
            flags=flags if time is not None else flags | Flag.NO_VENUE_TIME,
            are_pairs=True,
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        feed = _STREAM_OF.get(message["feed"].removesuffix("_snapshot"))
        return (f"{feed}:{message['product_id']}",) if feed else ()

    def _event(self, head: _Head) -> Control:
        streams = tuple(f"{head.feed}:{symbol}" for symbol in head.product_ids)
        match head.event:
            case "subscribed":
                return Ack(streams) if streams else Notice.INFO
            case "subscribed_failed":
                return Refused(head.message or "subscribed_failed", streams)
            case "error":
                return Refused(head.message, self._requests.named(head.message, ":"))
            case "alert":
                return Refused(head.message)
            case "unsubscribed" | "unsubscribed_failed" | "info":
                return Notice.INFO
        raise UnknownMessage(self.venue, f"event {head.event!r:.60}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return symbol.upper().startswith(_INVERSE) == (market == "inverse")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/derivatives/api/v3/instruments", weight=2)]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = _parse_list(body)
        if answer["result"] != "success":
            text = str(answer.get("error", ""))
            raise VenueError(cls.venue, text or "error", text, temporary=text in _TEMPORARY)
        found: Iterable[Any] = answer["instruments"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _MARKET_OF.get(entry["type"]) != market:
            return None
        is_trading = entry["tradeable"] is True
        status = "post_only" if entry.get("postOnly") is True else "tradeable"
        return Listing(
            entry["symbol"].upper(), is_trading, status if is_trading else "not_tradeable"
        )

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["base"], entry["quote"]
        last = entry.get("lastTradingTime")
        expiry_ns = iso_event_ns(last) if last else 0
        suffix = iso_text(expiry_ns)[:10].replace("-", "") if last else "PERP"
        return instrument(
            cls.venue,
            market,
            entry["symbol"].upper(),
            f"{base}-{quote}-{suffix}".upper(),
            base,
            quote,
            str(entry["tickSize"]),
            _lot_size(entry["contractValueTradePrecision"]),
            contract=Contract.FUTURE if last else Contract.PERPETUAL,
            settlement=base if market == "inverse" else quote,
            size_unit=SizeUnit.QUOTE if market == "inverse" else SizeUnit.BASE,
            multiplier=str(entry.get("contractSize", "1")),
            expiry_ns=expiry_ns,
        )


def _absolute(size: Any) -> Any:
    """Return a level's size; a negative one, which occurred, removes the level."""
    text, is_negative = unsigned(size)
    return "0" if is_negative else text


def _lot_size(digits: Any) -> str:
    """Return the increment of so many decimals, of tens, hundreds and so on where negative."""
    if type(digits) is not int or not -_LOT_DIGITS_MAX <= digits <= _LOT_DIGITS_MAX:
        raise ValueError(f"contractValueTradePrecision {digits!r:.40}")
    return f"0.{'1'.rjust(digits, '0')}" if digits > 0 else "1".ljust(1 - digits, "0")


adapter: type[FeedAdapter] = KrakenFutures
