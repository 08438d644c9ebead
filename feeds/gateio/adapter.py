"""Gate, spot and perpetual futures of USDT and BTC: trades, best bid and ask, books of 400 levels.

Reference: Gate "Spot WebSocket v4" and "Futures WebSocket v4" (trades, book_ticker, obu), REST
"List all currency pairs supported" and "List all futures contracts"; announcements 44946 and 45317
(obu), read 2026-11-30.
Units: prices are decimal text. Sizes of spot are text in base. Those of futures count contracts,
bare integers or decimal text; what one contract is, the instrument's multiplier says: so many of
the base (USDT), or one unit of the quote (BTC). Times are ms, those of spot trades with decimals.
Traps:
- The sign of a futures trade's size is the taker's side; spot trades name it.
- A futures trade that `is_internal` is a takeover by the insurance fund or ADL.
- `obu` begins with `full` and may send the whole book again at any time; after it `U` is `u` of
  the update before + 1. A side in which nothing changed may be left out.
- `tickers` of futures have mark and index price, the funding rate until it is due, and open
  interest in contracts (`total_size`).
- The sign of a liquidation's size is that of its order: one that sells closes a long position.
- A second subscription to the same book is refused with "Alert sub": it is there already.
- `order_book_update` is a book that begins over REST; recordings of others have it.
- Spot prints amounts with more digits than `amount_precision`.
- Requests want a time, which is checked for private channels alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    OTHER_BOOK,
    TAKER_SIDES,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    Continuity,
    Control,
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
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    append_pairs,
    decimal_ns,
    unsigned,
)

from . import instruments, market_data, updates

DEPTH: Final = 400
_CHANNELS: Final = {
    "trades": "trades",
    "quotes": "book_ticker",
    "book": "obu",
    "funding": "tickers",
    "mark_price": "tickers",
    "open_interest": "tickers",
    "liquidations": "public_liquidates",
    "candles": "candlesticks",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book", "candles"})
_URLS: Final = {
    "spot": "wss://api.gateio.ws/ws/v4/",
    "usdt": "wss://fx-ws.gateio.ws/v4/ws/usdt",
    "btc": "wss://fx-ws.gateio.ws/v4/ws/btc",
}
# Without it, sizes of contracts that have decimals are rounded.
_FUTURES_HEADERS: Final = (("X-Gate-Size-Decimal", "1"),)
_REQUEST_TIME: Final = 1_767_225_600  # s; no clock is read here
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("tickers", "order_book", "contract_stats", "public_liquidates", "contracts"),
        *("trades_v2",),
    )
}
_LAST: Final = int(Flag.LAST)
_NO_SIZE: Final = frozenset({0, "0"})
_PART_OF_CONTRACT: Final = Filtered("part_of_contract")
_NOTHING: Final = msgspec.Raw(b"[]")


class _SpotTrade(msgspec.Struct, gc=False):
    id: Sequential
    create_time_ms: Any
    side: str
    currency_pair: str
    amount: Any
    price: Any


class _FuturesTrade(msgspec.Struct, gc=False):
    id: Sequential
    create_time_ms: Any
    contract: str
    size: Any
    price: Any
    is_internal: bool = False


class _Quote(msgspec.Struct, gc=False):
    t: Milliseconds
    u: Sequential
    s: str
    b: Any
    B: Any
    a: Any
    A: Any


class _Book(msgspec.Struct, gc=False):
    t: Milliseconds
    s: str  # ob.BTC_USDT.400
    u: Sequential
    U: Sequential = 0
    full: bool = False
    b: msgspec.Raw = _NOTHING
    a: msgspec.Raw = _NOTHING


class _SpotTrades(msgspec.Struct, gc=False):
    result: _SpotTrade


class _FuturesTrades(msgspec.Struct, gc=False):
    result: list[_FuturesTrade]


class _Quotes(msgspec.Struct, gc=False):
    result: _Quote


class _Books(msgspec.Struct, gc=False):
    result: _Book


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    channel: str
    event: str = "update"
    id: Any = None
    payload: Any = None
    error: Any = None
    result: msgspec.Raw = msgspec.Raw(b"")


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_spot_trades: Final = msgspec.json.Decoder(_SpotTrades, float_hook=str).decode
_parse_futures_trades: Final = msgspec.json.Decoder(_FuturesTrades, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_books: Final = msgspec.json.Decoder(_Books).decode


def _market(name: str) -> Market:
    return Market(
        endpoints=(
            Endpoint(_URLS[name], _SPOT_CHANNELS)
            if name == "spot"
            else Endpoint(_URLS[name], frozenset(_CHANNELS), _FUTURES_HEADERS),
        ),
        rest_url="https://api.gateio.ws",
        limits=Limits(
            streams_per_connection=200,
            streams_per_subscribe=1,  # a refusal is of the whole request
            connects_per_s=1.0,  # 300 connections of an address
            requests_per_s=10.0,
            rest=RestLimit("http", weight_per_s=10.0, weight_burst=20),  # 200 in 10 s
            ping_interval_s=20.0,
        ),
        book=BookRule(Continuity.RANGE, depth_max=DEPTH),
        books=(BookOffer(DEPTH, 100), updates.offer(name)),
        trade_numbers=TradeNumbers.ASCENDING,
        other_hosts=() if name == "spot" else ("fx-api.gateio.ws",),
    )


class Gate(PlainFeed):
    venue: ClassVar[str] = "gateio"
    reference: ClassVar[str] = "Gate WebSocket v4, spot and futures, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(name) for name in _URLS}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._family = "spot" if market == "spot" else "futures"
        self._symbols = symbols
        self._requests = Requests(1)
        self._book_channel = _CHANNELS["book"]

    def choose_book(self, offer: BookOffer) -> None:
        self._book_channel = updates.CHANNEL if offer.rule is not None else _CHANNELS["book"]

    def stream(self, channel: str, symbol: str) -> str:
        return f"{self._book_channel if channel == 'book' else _CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, event: str, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams, keep=event == "subscribe"):
            channel, _, symbol = stream.partition(":")
            request = {
                "time": _REQUEST_TIME,
                "id": number,
                "channel": f"{self._family}.{channel}",
                "event": event,
                "payload": self._payload(channel, symbol),
            }
            yield orjson.dumps(request)

    def _payload(self, channel: str, symbol: str) -> list[str]:
        match channel:
            case "obu":
                return [f"ob.{symbol}.{DEPTH}"]
            case updates.CHANNEL:
                return updates.payload_of(symbol, self._market)
            case "candlesticks":
                return [market_data.INTERVAL, symbol]
        return [symbol]

    def _carries(self, name: str) -> bool:
        return self._market != "spot" or name == "candlesticks"

    def ping(self) -> bytes | None:
        return orjson.dumps({"time": _REQUEST_TIME, "channel": f"{self._family}.ping"})

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        family, _, channel = head.channel.partition(".")
        if family != self._family:
            raise UnknownMessage(self.venue, f"channel {head.channel!r:.60}")
        if channel == "pong":
            return Notice.HEARTBEAT
        if head.error is not None or head.event not in {"update", "all"}:
            return self._answer(channel, head)
        match channel:
            case "trades":
                return self._trades(payload, ts_recv, out)
            case "book_ticker":
                quote = _parse_quotes(payload).result
                prices = (quote.b or "0", quote.B or "0", quote.a or "0", quote.A or "0")
                number = self._symbols[quote.s]
                out.add_quote(number, quote.t * MILLISECOND, ts_recv, quote.u, *prices)
            case "obu" | updates.CHANNEL as name:
                return self._books(name, payload, ts_recv, out)
            case "candlesticks" | "tickers" | "public_liquidates" as name if self._carries(name):
                market_data.append(name, self._market, payload, self._symbols, ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"channel {name!r:.60}")
        return None

    def _trades(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append trades.

        Those of less than one contract have size 0 on connections without the header, and are left
        out.
        """
        if self._market == "spot":
            one = _parse_spot_trades(payload).result
            side = TAKER_SIDES.get(one.side, NO_SIDE)
            time = decimal_ns(one.create_time_ms, MILLISECOND)
            number = self._symbols[one.currency_pair]
            out.add_trade(number, time, ts_recv, one.id, one.price, one.amount, side, one.id)
            return None
        trades = _parse_futures_trades(payload).result
        whole = [trade for trade in trades if trade.size not in _NO_SIZE]
        for trade in whole:
            size, is_sale = unsigned(trade.size)
            out.add_trade(
                self._symbols[trade.contract],
                decimal_ns(trade.create_time_ms, MILLISECOND),
                ts_recv,
                trade.id,
                trade.price,
                size,
                Side.ASK if is_sale else Side.BID,
                trade.id,
                flags=_LAST | Flag.INSURANCE if trade.is_internal else _LAST,
            )
        return _PART_OF_CONTRACT if trades and not whole else None

    def _books(
        self, channel: str, payload: bytes, ts_recv: int, out: ColumnBuffer
    ) -> Control | None:
        if channel != self._book_channel:
            return OTHER_BOOK
        if channel == "obu":
            self._book(_parse_books(payload).result, ts_recv, out)
            return None
        update = updates.parse(payload)
        if update is None:
            return OTHER_BOOK
        updates.append(update, self._symbols[update.s], ts_recv, out)
        return None

    def _book(self, book: _Book, ts_recv: int, out: ColumnBuffer) -> None:
        times = book.t * MILLISECOND, ts_recv
        number = self._symbols[_symbol_of(book.s)]
        flags = int(Flag.SNAPSHOT) if book.full else 0
        numbers = (book.u if book.full else book.U, book.u, 0)
        append_pairs(out, number, times, numbers, (book.b, book.a), flags)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel, result = message["channel"].partition(".")[2], message["result"]
        match channel:
            case "trades" | "tickers" | "public_liquidates":
                trades = result if isinstance(result, list) else [result]
                symbols = [trade.get("contract") or trade["currency_pair"] for trade in trades]
            case "candlesticks":
                candles = result if isinstance(result, list) else [result]
                symbols = [market_data.candle_symbol(candle["n"]) for candle in candles]
            case "book_ticker" | updates.CHANNEL:
                symbols = [result["s"]]
            case "obu":
                symbols = [_symbol_of(result["s"])]
            case _:
                return ()
        return [f"{channel}:{symbol}" for symbol in symbols]

    def _answer(self, channel: str, head: _Head) -> Control:
        if head.event == "unsubscribe":
            return Notice.INFO
        streams = self._requests.answered(head.id)
        if not streams and isinstance(head.payload, list):
            names = [item for item in head.payload if isinstance(item, str)]
            streams = tuple(f"{channel}:{symbol}" for symbol in _symbols_in(channel, names))
        if head.error is not None:
            text = str(head.error.get("message") if isinstance(head.error, dict) else head.error)
            return Ack(streams) if "Alert sub" in text else Refused(text, streams)
        if head.event == "subscribe":
            return Ack(streams)
        raise UnknownMessage(self.venue, f"event {head.event!r:.60}")

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        if self._book_channel != updates.CHANNEL:
            return None
        return updates.request(symbol, self._market)

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        updates.append_image(body, self._market, self._symbols[symbol], ts_recv, out)

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        if market == "spot":
            return [RestRequest("/api/v4/spot/currency_pairs")]
        return [RestRequest(f"/api/v4/futures/{market}/contracts")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        return instruments.entries(body)

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return instruments.listing(market, entry)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return instruments.parse(market, entry)


def _symbols_in(channel: str, names: Sequence[str]) -> Iterable[str]:
    """Return the symbols that the payload of a request names."""
    match channel:
        case "obu":
            return map(_symbol_of, names)
        case updates.CHANNEL:
            return names[:1]
        case "candlesticks":
            return names[1:]
    return names


def _symbol_of(stream: str) -> str:
    """Return the symbol of a book's name, `ob.BTC_USDT.400`. Raises ValueError for another text."""
    start, _, rest = stream.partition(".")
    symbol, _, depth = rest.rpartition(".")
    if start != "ob" or not symbol or not depth.isdigit():
        raise ValueError(f"{stream!r:.60} names no book")
    return symbol


adapter: type[FeedAdapter] = Gate
