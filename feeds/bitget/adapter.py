"""Bitget, API v3 (unified account): spot, and futures that settle in USDT, USDC or coins.

Reference: Bitget UTA API, "WebSocket": Public Channels (Public Trade, Order Book), REST "Get
Instruments".
Units: prices and sizes are decimal text, times are milliseconds as text. Sizes are in base, those
of coin futures too.
Traps:
- All markets share one address; `instType` in `arg` tells them apart. Symbols of spot and of
  futures are the same text (BTCUSDT), so a frame of another market is no data of this one.
- `pseq` of a book is the `seq` of the update before, 0 in a snapshot. Both come as numbers or as
  text. `checksum` is 0, which says nothing: the chain proves the book.
- `books1` is a snapshot each time.
- The first message of trades is a snapshot of past ones, newest first.
- `S` of a trade is the taker's side; `isRPI` says that it was against a retail price improvement
  order.
- `ticker` has mark and index price, the funding rate until it is due, and open interest in base.
- `liquidation` is of a type of instruments, without a symbol; its side is the position's.
- Messages of API v2 (recordings of /v2/ws/public) name `channel` and `instId`, and say `asks`,
  `tradeId`, `holdingAmount` and so on; they are read too.
- A candle does not say whether it is closed.
- The client sends the text `ping`, no JSON, and gets `pong`; two minutes without end a connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    OTHER_MARKET,
    TAKER_SIDES,
    Ack,
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
    Flag,
    FundingState,
    Instrument,
    InterestUnit,
    Limits,
    Listing,
    Market,
    Notice,
    PlainFeed,
    Position,
    Refused,
    RestLimit,
    RestRequest,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_candle,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    append_pairs,
    best_of,
    instrument,
    iso_text,
    optional_ns,
    said,
    span_ns,
    time_ns,
    whole_number,
)

from .messages import (
    CANDLE,
    Book,
    Candle,
    Candles,
    ClassicBook,
    ClassicQuotes,
    ClassicTrade,
    ClassicTrades,
    Head,
    Liquidations,
    Quotes,
    Tickers,
    Trade,
    Trades,
    parse_book,
    parse_candles,
    parse_classic_book,
    parse_classic_quotes,
    parse_classic_trades,
    parse_head,
    parse_liquidations,
    parse_quotes,
    parse_tickers,
    parse_trades,
)
from .shapes import shapes

_TOPICS: Final = {
    "trades": "publicTrade",
    "quotes": "books1",
    "book": "books",
    "funding": "ticker",
    "mark_price": "ticker",
    "open_interest": "ticker",
    "liquidations": "liquidation",
    "candles": "kline",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book", "candles"})
_INTERVAL: Final = "1m"  # of candles
_MEMBERS: Final = 7  # of a candle that is an array
_OF_ALL_SYMBOLS: Final = "liquidation"
_POSITIONS: Final = {"buy": Position.LONG, "sell": Position.SHORT}
_TYPES: Final = {
    "spot": "spot",
    "usdt": "usdt-futures",
    "usdc": "usdc-futures",
    "coin": "coin-futures",
}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in ("ticker", "liquidation", "books5", "books50", "books15", "rpiBooks")
}
_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_IS_RPI: Final = frozenset({True, "yes", "YES", "true"})
# System errors, too many requests, and the service's own limits.
_TEMPORARY: Final = frozenset({"429", "40010", "40015", "40200", "40725", "45001"})


def _market(name: str) -> Market:
    channels = _SPOT_CHANNELS if name == "spot" else frozenset(_TOPICS)
    return Market(
        endpoints=(Endpoint("wss://ws.bitget.com/v3/ws/public", channels),),
        rest_url="https://api.bitget.com",
        limits=Limits(
            streams_per_connection=50,  # more are allowed; the venue advises against it
            streams_per_subscribe=25,
            connects_per_s=0.8,  # 300 in five minutes
            connects_burst=10,
            requests_per_s=5.0,  # 10 messages a second, pings among them
            requests_per_hour=240,
            rest=RestLimit("http", weight_per_s=8.0, weight_burst=10),  # 20 a second
            ping_interval_s=25.0,
            lifetime_s=86_400.0,
        ),
        book=BookRule(Continuity.PREVIOUS),
        trade_numbers=TradeNumbers.ASCENDING,
    )


_SHAPES: Final = {market: shapes(kind) for market, kind in _TYPES.items()}


class Bitget(PlainFeed):
    venue: ClassVar[str] = "bitget"
    reference: ClassVar[str] = "Bitget UTA API v3, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(name) for name in _TYPES}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._type = _TYPES[market]
        self._symbols = symbols

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES[market]

    def stream(self, channel: str, symbol: str) -> str:
        topic = _TOPICS[channel]
        return topic if topic == _OF_ALL_SYMBOLS else f"{topic}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, operation: str, streams: Sequence[str]) -> Iterator[bytes]:
        size = self.markets[self._market].limits.streams_per_subscribe
        for start in range(0, len(streams), size):
            pairs = [stream.partition(":") for stream in streams[start : start + size]]
            arguments = [
                {"instType": self._type, "topic": topic}
                | ({"symbol": symbol} if symbol else {})
                | ({"interval": _INTERVAL} if topic == "kline" else {})
                for topic, _, symbol in pairs
            ]
            yield orjson.dumps({"op": operation, "args": arguments})

    def ping(self) -> bytes | None:
        return b"ping"

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if payload == b"pong":
            return Notice.HEARTBEAT
        head = parse_head(payload)
        if head.action is None:
            return self._event(payload, head)
        if head.arg is None:
            raise DecodeError(self.venue, "data without arg")
        if head.arg.inst_type.lower() != self._type:
            return OTHER_MARKET
        is_classic = not head.arg.topic
        match head.arg.names[0]:
            case "publicTrade":
                parsed_trades = (parse_classic_trades if is_classic else parse_trades)(payload)
                self._trades(parsed_trades, ts_recv, out)
            case "books1":
                parsed_quotes = (parse_classic_quotes if is_classic else parse_quotes)(payload)
                self._quotes(parsed_quotes, ts_recv, out)
            case "books":
                parsed_book = (parse_classic_book if is_classic else parse_book)(payload)
                self._book(parsed_book, ts_recv, out)
            case "kline":
                self._candles(parse_candles(payload), ts_recv, out)
            case "ticker" if self._market != "spot":
                self._tickers(parse_tickers(payload), ts_recv, out)
            case "liquidation" if self._market != "spot":
                self._liquidations(parse_liquidations(payload), ts_recv, out)
            case topic if topic in _LEFT_OUT:
                return _LEFT_OUT[topic]
            case topic:
                raise UnknownMessage(self.venue, f"topic {topic!r:.60}")
        return None

    def _trades(self, message: Trades | ClassicTrades, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[message.arg.names[1]]
        flags = int(Flag.LAST) | _FLAGS[message.action]
        trades: Sequence[Trade | ClassicTrade] = message.data
        for trade in reversed(trades):  # newest first
            identifier = whole_number(trade.i)
            out.add_trade(
                number,
                time_ns(trade.T),
                ts_recv,
                identifier,
                trade.p,
                trade.v,
                TAKER_SIDES.get(trade.S, NO_SIDE),
                identifier,
                flags=flags | Flag.RPI if trade.isRPI in _IS_RPI else flags,
            )

    def _quotes(self, message: Quotes | ClassicQuotes, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[message.arg.names[1]]
        for best in message.data:
            sequence = whole_number(best.seq)
            prices = (*best_of(best.b), *best_of(best.a))
            out.add_quote(number, time_ns(best.ts), ts_recv, sequence, *prices)

    def _book(self, message: Book | ClassicBook, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[message.arg.names[1]]
        flags = _FLAGS[message.action]
        for update in message.data:
            last = whole_number(update.seq)
            previous = 0 if flags else whole_number(update.pseq)
            times = time_ns(update.ts), ts_recv
            append_pairs(out, number, times, (last, last, previous), (update.b, update.a), flags)

    def _tickers(self, message: Tickers, ts_recv: int, out: ColumnBuffer) -> None:
        number, time = self._symbols[message.arg.names[1]], time_ns(message.ts)
        for item in message.data:
            rate = said(item.funding_rate)
            interest = said(item.open_interest) or said(item.holding_amount)
            prices = {"mark_price": said(item.mark_price), "index_price": said(item.index_price)}
            due_ns = optional_ns(item.next_funding_time)
            if rate is not None and due_ns is not None:
                state = FundingState.PREDICTED
                add_funding(
                    out, number, ts_recv, rate=rate, ts_event=time, due_ns=due_ns, state=state
                )
            if any(price is not None for price in prices.values()):
                add_mark_price(out, number, ts_recv, ts_event=time, **prices)
            if interest is not None:
                unit = InterestUnit.BASE
                add_open_interest(out, number, ts_recv, value=interest, unit=unit, ts_event=time)

    def _candles(self, message: Candles, ts_recv: int, out: ColumnBuffer) -> None:
        named = message.arg
        interval_ns = span_ns(named.interval or named.channel.removeprefix(CANDLE))
        number, time = self._symbols[named.names[1]], time_ns(message.ts)
        for item in message.data:
            is_object = isinstance(item, dict)
            candle = msgspec.convert(item, Candle) if is_object else Candle(*item[:_MEMBERS])
            add_candle(
                out,
                number,
                ts_recv,
                start_ns=time_ns(candle.start),
                interval_ns=interval_ns,
                prices=(candle.open, candle.high, candle.low, candle.close),
                volume=candle.volume,
                turnover=candle.turnover,
                ts_event=time,
            )

    def _liquidations(self, message: Liquidations, ts_recv: int, out: ColumnBuffer) -> None:
        for item in message.data:
            add_liquidation(
                out,
                self._symbols[item.symbol],
                ts_recv,
                position=_POSITIONS.get(item.side, Position.UNKNOWN),
                size=item.amount,
                price=item.price,
                ts_event=time_ns(item.ts),
            )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        argument = parse_head(payload).arg
        if argument is None or argument.inst_type.lower() != self._type:
            return ()
        return (argument.stream,) if argument.names[0] in _TOPICS.values() else ()

    def _event(self, payload: bytes, head: Head) -> Control:
        streams = (head.arg.stream,) if head.arg is not None else ()
        match head.event or head.op:
            case "subscribe":
                return Ack(streams)
            case "unsubscribe" | "pong":
                return Notice.INFO
            case "error":
                message = orjson.loads(payload)
                text = f"{message.get('code', '')} {message.get('msg', '')}"
                return Refused(text.strip(), streams)
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return True  # frames say theirs

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v3/market/instruments", {"category": _TYPES[market].upper()})]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        code = str(answer["code"])
        if code != "00000":
            text = str(answer.get("msg", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["data"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry["category"].lower() != _TYPES[market]:
            return None
        return Listing(entry["symbol"], entry["status"] == "online", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["baseCoin"], entry["quoteCoin"]
        pair = f"{base}-{quote}".upper()
        if market == "spot":
            tick_size, lot_size = (
                _increment(entry, name) for name in ("pricePrecision", "quantityPrecision")
            )
            more: dict[str, Any] = {"settlement": quote}
        else:
            tick_size, lot_size = entry["priceMultiplier"], entry["quantityMultiplier"]
            is_future = entry["type"] == "delivery"
            expiry_ns = time_ns(entry["deliveryTime"]) if is_future else 0
            pair += f"-{iso_text(expiry_ns)[:10].replace('-', '') if is_future else 'PERP'}"
            more = {
                "contract": Contract.FUTURE if is_future else Contract.PERPETUAL,
                "settlement": base if market == "coin" else quote,
                "expiry_ns": expiry_ns // MILLISECOND * MILLISECOND,
            }
        return instrument(
            cls.venue, market, entry["symbol"], pair, base, quote, tick_size, lot_size, **more
        )


def _increment(entry: Any, name: str) -> str:
    """Return the increment of so many digits as decimal text."""
    digits = whole_number(entry[name])
    if digits > 18:
        raise ValueError(f"{name} is {digits}")
    return f"0.{'1'.rjust(digits, '0')}" if digits else "1"


adapter: type[FeedAdapter] = Bitget
