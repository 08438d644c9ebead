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
- Spot prints amounts with more digits than `amount_precision`.
- Requests want a time, which is checked for private channels alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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
    Continuity,
    Contract,
    Control,
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
    Sequential,
    Side,
    SizeUnit,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    append_pairs,
    decimal_ns,
    instrument,
    said,
    time_ns,
    unsigned,
)

DEPTH: Final = 400
_CHANNELS: Final = {
    "trades": "trades",
    "quotes": "book_ticker",
    "book": "obu",
    "funding": "tickers",
    "mark_price": "tickers",
    "open_interest": "tickers",
    "liquidations": "public_liquidates",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book"})
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
        *("tickers", "candlesticks", "order_book", "order_book_update", "contract_stats"),
        *("public_liquidates", "contracts", "trades_v2"),
    )
}
_LAST: Final = int(Flag.LAST)
_TRADING: Final = {"tradable", "trading"}
_TEMPORARY: Final = frozenset({"TOO_MANY_REQUESTS", "SERVER_ERROR", "INTERNAL", "TOO_BUSY"})
# Digits beyond what an instrument's own precision says, as trades and books print them.
_MORE_PRICE_DIGITS: Final = 2
_MORE_SIZE_DIGITS: Final = 4
_SIZE_DIGITS_MAX: Final = 10
_CONTRACT_DIGITS: Final = 8
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


class _Ticker(msgspec.Struct, gc=False):
    contract: str
    mark_price: Any = None
    index_price: Any = None
    funding_rate: Any = None
    total_size: Any = None


class _Tickers(msgspec.Struct, gc=False):
    result: list[_Ticker]
    time_ms: Milliseconds


class _Liquidation(msgspec.Struct, gc=False):
    contract: str
    size: Any
    price: Any
    time: Any
    time_ms: Any = None


class _Liquidations(msgspec.Struct, gc=False):
    result: list[_Liquidation]


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
_parse_tickers: Final = msgspec.json.Decoder(_Tickers, float_hook=str).decode
_parse_liquidations: Final = msgspec.json.Decoder(_Liquidations, float_hook=str).decode
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
        trade_numbers=TradeNumbers.ASCENDING,
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

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

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
                "payload": [f"ob.{symbol}.{DEPTH}" if channel == "obu" else symbol],
            }
            yield orjson.dumps(request)

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
                self._trades(payload, ts_recv, out)
            case "book_ticker":
                quote = _parse_quotes(payload).result
                prices = (quote.b or "0", quote.B or "0", quote.a or "0", quote.A or "0")
                number = self._symbols[quote.s]
                out.quote(number, quote.t * MILLISECOND, ts_recv, quote.u, *prices)
            case "obu":
                self._book(_parse_books(payload).result, ts_recv, out)
            case "tickers" if self._market != "spot":
                self._tickers(_parse_tickers(payload), ts_recv, out)
            case "public_liquidates" if self._market != "spot":
                self._liquidations(_parse_liquidations(payload), ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"channel {name!r:.60}")
        return None

    def _trades(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        if self._market == "spot":
            one = _parse_spot_trades(payload).result
            side = TAKER_SIDES.get(one.side, NO_SIDE)
            time = decimal_ns(one.create_time_ms, MILLISECOND)
            number = self._symbols[one.currency_pair]
            out.trade(number, time, ts_recv, one.id, one.price, one.amount, side, one.id)
            return
        for trade in _parse_futures_trades(payload).result:
            size, is_sale = unsigned(trade.size)
            out.trade(
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

    def _book(self, book: _Book, ts_recv: int, out: ColumnBuffer) -> None:
        times = book.t * MILLISECOND, ts_recv
        number = self._symbols[_symbol_of(book.s)]
        flags = int(Flag.SNAPSHOT) if book.full else 0
        numbers = (book.u if book.full else book.U, book.u, 0)
        append_pairs(out, number, times, numbers, (book.b, book.a), flags)

    def _tickers(self, message: _Tickers, ts_recv: int, out: ColumnBuffer) -> None:
        time = message.time_ms * MILLISECOND
        for item in message.result:
            number = self._symbols[item.contract]
            rate, interest = said(item.funding_rate), said(item.total_size)
            prices = {"mark_price": said(item.mark_price), "index_price": said(item.index_price)}
            if rate is not None:
                state = FundingState.PREDICTED
                add_funding(out, number, ts_recv, rate=rate, ts_event=time, state=state)
            if any(price is not None for price in prices.values()):
                add_mark_price(out, number, ts_recv, ts_event=time, **prices)
            if interest is not None:
                unit = InterestUnit.CONTRACT
                add_open_interest(out, number, ts_recv, value=interest, unit=unit, ts_event=time)

    def _liquidations(self, message: _Liquidations, ts_recv: int, out: ColumnBuffer) -> None:
        for item in message.result:
            size, is_sale = unsigned(item.size)
            is_fine = item.time_ms is not None
            time = time_ns(item.time_ms) if is_fine else decimal_ns(item.time, SECOND)
            add_liquidation(
                out,
                self._symbols[item.contract],
                ts_recv,
                position=Position.LONG if is_sale else Position.SHORT,
                size=size,
                price=item.price,
                price_kind=PriceKind.ORDER,
                ts_event=time,
            )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel, result = message["channel"].partition(".")[2], message["result"]
        match channel:
            case "trades" | "tickers" | "public_liquidates":
                trades = result if isinstance(result, list) else [result]
                symbols = [trade.get("contract") or trade["currency_pair"] for trade in trades]
            case "book_ticker":
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
            symbols = [_symbol_of(name) if channel == "obu" else name for name in names]
            streams = tuple(f"{channel}:{symbol}" for symbol in symbols)
        if head.error is not None:
            text = str(head.error.get("message") if isinstance(head.error, dict) else head.error)
            return Ack(streams) if "Alert sub" in text else Refused(text, streams)
        if head.event == "subscribe":
            return Ack(streams)
        raise UnknownMessage(self.venue, f"event {head.event!r:.60}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        if market == "spot":
            return [RestRequest("/api/v4/spot/currency_pairs")]
        return [RestRequest(f"/api/v4/futures/{market}/contracts")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict) and "label" in answer:
            label, text = str(answer["label"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, label, text, temporary=label in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if market == "spot":
            status = entry["trade_status"]
            return Listing(entry["id"], status in _TRADING, status)
        is_ending = entry.get("in_delisting") is True
        status = "delisting" if is_ending else entry.get("status", "trading")
        return Listing(entry["name"], status in _TRADING or is_ending, status)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return _spot(entry) if market == "spot" else _contract(market, entry)


def _symbol_of(stream: str) -> str:
    """Return the symbol of a book's name, `ob.BTC_USDT.400`. Raises ValueError for another text."""
    start, _, rest = stream.partition(".")
    symbol, _, depth = rest.rpartition(".")
    if start != "ob" or not symbol or not depth.isdigit():
        raise ValueError(f"{stream!r:.60} names no book")
    return symbol


def _spot(one: Any) -> Instrument:
    base, quote = one["base"], one["quote"]
    digits = [one["precision"], one["amount_precision"]]
    if not all(type(count) is int and 0 <= count <= 16 for count in digits):
        raise ValueError(f"precisions {digits!r:.60}")
    found = instrument(
        Gate.venue,
        "spot",
        one["id"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        *(f"0.{'1'.rjust(count, '0')}" if count else "1" for count in digits),
        settlement=quote,
    )
    finer = min(found.size_exponent + _MORE_SIZE_DIGITS, _SIZE_DIGITS_MAX)
    return replace(
        found,
        price_exponent=found.price_exponent + _MORE_PRICE_DIGITS,
        size_exponent=max(found.size_exponent, finer),
    )


def _contract(market: str, one: Any) -> Instrument:
    base, _, quote = one["name"].partition("_")
    is_inverse = one["type"] == "inverse"
    found = instrument(
        Gate.venue,
        market,
        one["name"],
        f"{base}-{quote}-PERP".upper(),
        base,
        quote,
        one["order_price_round"],
        "1",
        contract=Contract.PERPETUAL,
        settlement=market.upper(),
        size_unit=SizeUnit.CONTRACT,
        multiplier="1" if is_inverse else one["quanto_multiplier"],
    )
    return replace(found, size_exponent=_CONTRACT_DIGITS)


adapter: type[FeedAdapter] = Gate
