"""WhiteBIT, spot and perpetuals: trades, quotes, and books of 100 levels.

Reference: WhiteBIT "WebSocket API": Market Streams (Depth, Last Trades, Book Ticker), REST "Market
Info" (v4), read 2026-11-30. The address is the one that replaces api.whitebit.com until 2027-03-01.
Units: prices and sizes are decimal text in base; times are seconds with a fraction, bare.
Traps:
- Messages have their content in `params`, an array. Of a book: whether it is whole, the book, the
  market. Whole ones come on subscribe and after ten seconds without a change.
- `past_update_id` is `update_id` of the message before. A side without changes is left out.
- `depth_subscribe` names one market and adds it to the others (its last parameter).
  `trades_subscribe` and `bookTicker_subscribe` replace all markets of before: each request names
  all that the connection has.
- `type` of a trade is the taker's side. The first message of a market holds past ones.
- A client that says nothing for 60 seconds is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    NO_SIDE,
    SECOND,
    TAKER_SIDES,
    Ack,
    BookRule,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    Counted,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Notice,
    PlainFeed,
    Refused,
    RestLimit,
    RestRequest,
    Sequential,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    append_pairs,
    decimal_ns,
    instrument,
)

DEPTH: Final = 100
_METHODS: Final = {"trades": "trades", "quotes": "bookTicker", "book": "depth"}
_REPLACED: Final = frozenset({"trades", "bookTicker"})
_LEFT_OUT: Final = {
    f"{name}_update": Filtered(name)
    for name in ("candles", "lastprice", "market", "marketToday", "premiumIndex", "liquidations")
}
_LAST: Final = int(Flag.LAST)
_TYPES: Final = {"spot": "spot", "futures": "perp"}
_PING_ID: Final = 0
_DIGITS_MAX: Final = 18
_NOTHING: Final = msgspec.Raw(b"[]")


class _Trade(msgspec.Struct, gc=False):
    id: Sequential
    time: Any
    price: Any  # as text or bare: `float_hook` keeps the digits
    amount: Any
    type: str = ""
    rpi: bool = False


class _TradeParameters(msgspec.Struct, array_like=True, gc=False):
    market: str
    trades: list[_Trade]


class _Quote(msgspec.Struct, array_like=True, gc=False):
    time: Any
    sent: Any
    market: str
    update_id: Sequential
    bid_price: Any
    bid_size: Any
    ask_price: Any
    ask_size: Any


class _Depth(msgspec.Struct, gc=False):
    update_id: Counted
    timestamp: Any
    past_update_id: Sequential = 0
    bids: msgspec.Raw = _NOTHING
    asks: msgspec.Raw = _NOTHING


class _DepthParameters(msgspec.Struct, array_like=True, gc=False):
    is_whole: bool
    book: _Depth
    market: str


class _Trades(msgspec.Struct, gc=False):
    params: _TradeParameters


class _Quotes(msgspec.Struct, gc=False):
    params: list[_Quote]


class _Depths(msgspec.Struct, gc=False):
    params: _DepthParameters


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    method: str = ""
    id: Any = None
    result: Any = None
    error: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_depths: Final = msgspec.json.Decoder(_Depths, float_hook=str).decode

_MARKET: Final = Market(
    endpoints=(Endpoint("wss://wss.whitebit.com/ws"),),
    rest_url="https://whitebit.com",
    limits=Limits(
        streams_per_connection=600,
        streams_per_subscribe=600,  # markets in a request that replaces
        connects_per_s=5.0,  # 1,000 a minute
        requests_per_s=3.0,  # 200 a minute once, 12,000 in 10 s today
        rest=RestLimit(weight_per_s=10.0, weight_burst=20),  # 2,000 in 10 s
        frame_bytes_max=4 << 20,
        ping_interval_s=25.0,
    ),
    book=BookRule(Continuity.PREVIOUS, depth_max=DEPTH),
    trade_numbers=TradeNumbers.ASCENDING,
)


class WhiteBit(PlainFeed):
    venue: ClassVar[str] = "whitebit"
    reference: ClassVar[str] = "WhiteBIT WebSocket API, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(("spot", "perp"), _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._number = _PING_ID
        self._asked: dict[int, tuple[str, ...]] = {}  # request -> its streams
        self._carried: dict[str, dict[str, None]] = {method: {} for method in _REPLACED}
        self._begun: set[str] = set()  # markets whose past trades came

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_METHODS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for method, symbols in _by_method(streams):
            if method == "depth":
                for symbol in symbols:
                    streams_of_request = (f"depth:{symbol}",)
                    yield self._request(
                        "depth_subscribe", [symbol, DEPTH, "0", True], streams_of_request
                    )
                continue
            if method == "trades":
                self._begun.difference_update(symbols)
            yield self._replace(method, [*dict.fromkeys([*self._carried[method], *symbols])])

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for method, symbols in _by_method(streams):
            if method == "depth":
                for symbol in symbols:
                    yield self._request("depth_unsubscribe", [symbol], ())
                continue
            left = [symbol for symbol in self._carried[method] if symbol not in symbols]
            yield self._request(f"{method}_unsubscribe", [*symbols], ())
            if left:
                yield self._replace(method, left)

    def _replace(self, method: str, symbols: Sequence[str]) -> bytes:
        """Return the request that has a method carry these markets and no others."""
        self._carried[method] = dict.fromkeys(symbols)
        streams = tuple(f"{method}:{symbol}" for symbol in symbols)
        return self._request(f"{method}_subscribe", symbols, streams)

    def _request(
        self, method: str, parameters: Sequence[object], streams: tuple[str, ...]
    ) -> bytes:
        self._number += 1
        if streams:
            self._asked[self._number] = streams
        return orjson.dumps({"id": self._number, "method": method, "params": parameters})

    def ping(self) -> bytes | None:
        return orjson.dumps({"id": _PING_ID, "method": "ping", "params": []})

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        match head.method:
            case "":
                return self._answer(payload, head)
            case "trades_update":
                self._trades(_parse_trades(payload).params, ts_recv, out)
            case "bookTicker_update":
                for quote in _parse_quotes(payload).params:
                    bid = quote.bid_price or "0", quote.bid_size or "0"
                    ask = quote.ask_price or "0", quote.ask_size or "0"
                    number, time = self._symbols[quote.market], decimal_ns(quote.time, SECOND)
                    out.add_quote(number, time, ts_recv, quote.update_id, *bid, *ask)
            case "depth_update":
                message = _parse_depths(payload).params
                book = message.book
                flags = int(Flag.SNAPSHOT) if message.is_whole else 0
                numbers = book.update_id, book.update_id, 0 if flags else book.past_update_id
                times = decimal_ns(book.timestamp, SECOND), ts_recv
                number = self._symbols[message.market]
                append_pairs(out, number, times, numbers, (book.bids, book.asks), flags)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"method {name!r:.60}")
        return None

    def _trades(self, message: _TradeParameters, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[message.market]
        flags = _LAST if message.market in self._begun else _LAST | Flag.SNAPSHOT
        for trade in sorted(message.trades, key=lambda one: one.id):
            out.add_trade(
                number,
                decimal_ns(trade.time, SECOND),
                ts_recv,
                trade.id,
                trade.price,
                trade.amount,
                TAKER_SIDES.get(trade.type, NO_SIDE),
                trade.id,
                flags=flags | Flag.RPI if trade.rpi else flags,
            )
        self._begun.add(message.market)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        method, parameters = message["method"].removesuffix("_update"), message["params"]
        match method:
            case "trades":
                return (f"trades:{parameters[0]}",)
            case "bookTicker":
                return [f"bookTicker:{quote[2]}" for quote in parameters]
            case "depth":
                return (f"depth:{parameters[2]}",)
        return ()

    def _answer(self, payload: bytes, head: _Head) -> Control:
        if head.result == "pong":
            return Notice.HEARTBEAT
        streams = self._asked.pop(head.id, ()) if type(head.id) is int else ()
        if head.error is not None:
            text = f"{head.error['code']} {head.error['message']}"
            words = text.split()
            named = tuple(stream for stream in streams if stream.partition(":")[2] in words)
            for stream in named:
                method, _, symbol = stream.partition(":")
                self._carried.get(method, {}).pop(symbol, None)
            return Refused(text, named or streams)
        match head.result:
            case {"status": "success"}:
                return Ack(streams) if streams else Notice.INFO
            case None:
                raise DecodeError(self.venue, f"{payload[:60]!r}")
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return symbol.endswith("_PERP") == (market == "perp")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v4/public/markets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict) and "message" in answer:
            code, text = str(answer.get("code", "")), str(answer["message"])
            raise VenueError(cls.venue, code, text, temporary="many" in text.lower())
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _TYPES.get(entry.get("type", "spot")) != market:
            return None
        is_trading = entry["tradesEnabled"] is True
        return Listing(entry["name"], is_trading, "enabled" if is_trading else "disabled")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["stock"], entry["money"]
        is_perpetual = market == "perp"
        return instrument(
            cls.venue,
            market,
            entry["name"],
            f"{base}-{quote}{'-PERP' if is_perpetual else ''}".upper(),
            base,
            quote,
            _increment(entry["moneyPrec"]),
            _increment(entry["stockPrec"]),
            contract=Contract.PERPETUAL if is_perpetual else Contract.SPOT,
            settlement=quote,
        )


def _by_method(streams: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each method with the markets that streams of it name."""
    symbols_of: dict[str, list[str]] = {}
    for stream in streams:
        method, _, symbol = stream.partition(":")
        symbols_of.setdefault(method, []).append(symbol)
    yield from symbols_of.items()


def _increment(digits: Any) -> str:
    """Return the increment of so many decimals, given as text."""
    if type(digits) is not str or not digits.isdecimal() or int(digits) > _DIGITS_MAX:
        raise ValueError(f"{digits!r:.40} decimals")
    count = int(digits)
    return f"0.{'1'.rjust(count, '0')}" if count else "1"


adapter: type[FeedAdapter] = WhiteBit
