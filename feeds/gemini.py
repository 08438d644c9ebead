"""Gemini: trades, quotes and book deltas of the API that followed "market data v2" in July 2026.

Reference: Gemini "WebSocket API": Streams (Trade, Book Ticker, L2 Differential Depth), Connection
options, REST "Symbol Details", read 2026-11-30.
Units: prices and sizes are decimal text in base; times are ns.
Traps:
- The address asks for images of whole books (`snapshot=-1`). The first `depthUpdate` of a symbol
  after its subscription is that image; afterwards `U` is `u` of the update before + 1. Nothing in
  the message tells them apart.
- `m` says that the buyer was the maker, so the seller is the aggressor.
- A quote leaves out a side that is empty.
- `tick_size` is the step of sizes, `quote_increment` that of prices.
- Symbols are lower case in names of streams, either in messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
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
    Instrument,
    Limits,
    Listing,
    Market,
    Nanoseconds,
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
    VenueError,
    append_pairs,
    instrument,
)

_STREAMS: Final = {"trades": "trade", "quotes": "bookTicker", "book": "depth@100ms"}
_BID, _ASK = int(Side.BID), int(Side.ASK)
_OK: Final = 200
_TYPES: Final = {"spot": "spot", "swap": "perpetual"}
_TRADING: Final = frozenset({"open", "limit_only", "post_only"})
_TEMPORARY: Final = frozenset({"RateLimit", "RateLimited", "System", "Maintenance"})
_LEFT_OUT: Final = Filtered("not_subscribed")


class _Trade(msgspec.Struct, gc=False):
    E: Nanoseconds
    s: str
    t: Sequential
    p: Any  # as text or bare: `float_hook` keeps the digits
    q: Any
    m: bool


class _Quote(msgspec.Struct, gc=False):
    E: Nanoseconds
    s: str
    u: Sequential
    b: Any = "0"
    B: Any = "0"
    a: Any = "0"
    A: Any = "0"


class _Depth(msgspec.Struct, gc=False):
    E: Nanoseconds
    s: str
    U: Sequential
    u: Sequential
    b: msgspec.Raw
    a: msgspec.Raw


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    e: str | None = None
    t: Any = None
    u: Any = None
    id: Any = None
    status: Any = None
    error: Any = None
    s: str = ""


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_quote: Final = msgspec.json.Decoder(_Quote, float_hook=str).decode
_parse_depth: Final = msgspec.json.Decoder(_Depth).decode
_parse_list: Final = msgspec.json.Decoder(Any, float_hook=str).decode

_MARKET: Final = Market(
    endpoints=(Endpoint("wss://ws.gemini.com?snapshot=-1"),),
    rest_url="https://api.gemini.com",
    limits=Limits(
        streams_per_connection=150,
        streams_per_subscribe=25,
        connects_per_s=0.5,  # none is documented
        requests_per_s=5.0,
        rest=RestLimit(weight_per_s=1.0, weight_burst=2),  # public: 120 a minute
        frame_bytes_max=8 << 20,
        ping_interval_s=20.0,
    ),
    book=BookRule(Continuity.RANGE),
    trade_numbers=TradeNumbers.ASCENDING,
)


class Gemini(PlainFeed):
    venue: ClassVar[str] = "gemini"
    reference: ClassVar[str] = "Gemini WebSocket API, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(("spot", "perpetual"), _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)
        self._seeded: set[str] = set()  # symbols whose image came

    def stream(self, channel: str, symbol: str) -> str:
        return f"{symbol.lower()}@{_STREAMS[channel]}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for stream in streams:
            symbol, _, name = stream.partition("@")
            if name == _STREAMS["book"]:
                self._seeded.discard(symbol.upper())
        for number, part in self._requests.parts(streams):
            yield orjson.dumps({"id": str(number), "method": "subscribe", "params": part})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams, keep=False):
            yield orjson.dumps({"id": str(number), "method": "unsubscribe", "params": part})

    def ping(self) -> bytes | None:
        return b'{"id":"ping","method":"ping"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        if head.e == "depthUpdate":
            self._book(_parse_depth(payload), ts_recv, out)
        elif head.e is not None:
            raise UnknownMessage(self.venue, f"event {head.e!r:.60}")
        elif head.t is not None:
            trade = _parse_trade(payload)
            side = _ASK if trade.m else _BID
            row = (trade.t, trade.p, trade.q, side, trade.t)
            out.add_trade(self._symbols[trade.s.upper()], trade.E, ts_recv, *row)
        elif head.u is not None:
            quote = _parse_quote(payload)
            prices = (quote.b, quote.B, quote.a, quote.A)
            out.add_quote(self._symbols[quote.s.upper()], quote.E, ts_recv, quote.u, *prices)
        else:
            return self._answer(payload, head)
        return None

    def _book(self, depth: _Depth, ts_recv: int, out: ColumnBuffer) -> None:
        symbol = depth.s.upper()
        is_image = symbol not in self._seeded
        numbers = (depth.u if is_image else depth.U, depth.u, 0)
        flags = int(Flag.SNAPSHOT) if is_image else 0
        sides = depth.b, depth.a
        append_pairs(out, self._symbols[symbol], (depth.E, ts_recv), numbers, sides, flags)
        self._seeded.add(symbol)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        head = _parse_head(payload)
        if not head.s:
            return ()
        channel = "book" if head.e else "quotes" if head.t is None else "trades"
        return (self.stream(channel, head.s),)

    def _answer(self, payload: bytes, head: _Head) -> Control:
        streams = self._requests.answered(head.id)
        if head.error is not None:
            error = head.error
            text = f"{error.get('code', '')} {error.get('msg') or error.get('message', '')}"
            named = tuple(stream for stream in streams if stream in text)
            return Refused(text.strip(), named or streams)
        if head.status == _OK:
            return Ack(streams) if streams else Notice.INFO
        if "lastUpdateId" in orjson.loads(payload):
            return _LEFT_OUT  # a partial book
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return symbol.upper().endswith("PERP") == (market == "perpetual")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v1/symbols/details/all")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = _parse_list(body)
        if isinstance(answer, dict) and answer.get("result") == "error":
            reason, text = str(answer["reason"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, reason, text, temporary=reason in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _TYPES.get(entry.get("product_type", "spot")) != market:
            return None
        return Listing(entry["symbol"].upper(), entry["status"] in _TRADING, entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["base_currency"], entry["quote_currency"]
        is_swap = market == "perpetual"
        return instrument(
            cls.venue,
            market,
            entry["symbol"].upper(),
            f"{base}-{quote}{'-PERP' if is_swap else ''}".upper(),
            base,
            quote,
            str(entry["quote_increment"]),
            str(entry["tick_size"]),
            contract=Contract.PERPETUAL if is_swap else Contract.SPOT,
            settlement=quote,
        )


adapter: type[FeedAdapter] = Gemini
