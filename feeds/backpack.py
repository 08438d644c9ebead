"""Backpack, spot and perpetuals: trades, quotes, and book deltas that a REST image begins.

Reference: Backpack Exchange API, "Streams" (Trade, Book ticker, Depth), REST "Get depth", "Get
markets", read 2026-11-30.
Units: prices and sizes are decimal text in base; times are microseconds.
Traps:
- `m` says that the buyer was the maker, so the seller is the aggressor.
- `U` of a book update is `u` of the one before + 1; `lastUpdateId` of the image joins them.
- Numbers of updates are bare or text. `T` is the engine's time, `E` that of the event.
- `markPrice` has the mark and the index price and the estimated funding rate; open interest is in
  base. The side of a liquidation is the order's.
- Subscriptions are not confirmed: only what is wrong is answered.
- The server pings with websocket frames and closes what doesn't answer within two minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MICROSECOND,
    Ack,
    Acks,
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
    PlainFeed,
    Position,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    RestSnapshot,
    Sequential,
    Side,
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    append_pairs,
    either_ns,
    instrument,
    said,
    time_ns,
    whole_number,
)

_STREAMS: Final = {
    "trades": "trade",
    "quotes": "bookTicker",
    "book": "depth",
    "funding": "markPrice",
    "mark_price": "markPrice",
    "open_interest": "openInterest",
    "liquidations": "liquidation",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book"})
_POSITIONS: Final = {"Ask": Position.LONG, "Bid": Position.SHORT}
_BID, _ASK = int(Side.BID), int(Side.ASK)
_TYPES: Final = {"SPOT": "spot", "PERP": "perp"}
_TRADING: Final = frozenset({"Open", "LimitOnly", "PostOnly"})
_DEPTH: Final = 1_000
_DEPTHS: Final = (5, 10, 20, 50, 100, 500, 1_000)
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in ("kline", "liquidation", "markPrice", "ticker", "openInterest", "fundingRate")
}
_TEMPORARY: Final = frozenset(
    {"TOO_MANY_REQUESTS", "SERVICE_UNAVAILABLE", "MAINTENANCE", "TIMEOUT"}
)


class _Trade(msgspec.Struct, gc=False):
    s: str
    p: Any  # as text or bare: `float_hook` keeps the digits
    q: Any
    t: Sequential
    T: Any
    m: bool


class _Quote(msgspec.Struct, gc=False):
    s: str
    T: Any
    u: Any = 0
    b: Any = "0"
    B: Any = "0"
    a: Any = "0"
    A: Any = "0"


class _Depth(msgspec.Struct, gc=False):
    s: str
    U: Any
    u: Any
    T: Any
    b: msgspec.Raw
    a: msgspec.Raw


class _Mark(msgspec.Struct, gc=False):
    s: str
    E: Any
    p: Any
    i: Any = None
    f: Any = None
    n: Any = None


class _Interest(msgspec.Struct, gc=False):
    s: str
    E: Any
    o: Any


class _Liquidation(msgspec.Struct, gc=False):
    s: str
    T: Any
    q: Any
    p: Any
    S: str


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    data: msgspec.Raw = msgspec.Raw(b"")
    stream: str = ""
    id: Any = None
    error: Any = None


class _Image(msgspec.Struct):
    """The answer to a request for a book."""

    lastUpdateId: Any  # noqa: N815  # the venue's name
    bids: list[tuple[Any, Any]]
    asks: list[tuple[Any, Any]]
    timestamp: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_quote: Final = msgspec.json.Decoder(_Quote, float_hook=str).decode
_parse_depth: Final = msgspec.json.Decoder(_Depth).decode
_parse_mark: Final = msgspec.json.Decoder(_Mark, float_hook=str).decode
_parse_interest: Final = msgspec.json.Decoder(_Interest, float_hook=str).decode
_parse_liquidation: Final = msgspec.json.Decoder(_Liquidation, float_hook=str).decode
_parse_image: Final = msgspec.json.Decoder(_Image, float_hook=str).decode

_URL: Final = "wss://ws.backpack.exchange"
_MARKET: Final = Market(
    endpoints=(Endpoint(_URL, _SPOT_CHANNELS),),
    rest_url="https://api.backpack.exchange",
    limits=Limits(
        streams_per_connection=200,
        streams_per_subscribe=25,
        connects_per_s=0.5,  # none is documented
        requests_per_s=5.0,
        rest=RestLimit(weight_per_s=5.0, weight_burst=10),  # 2,000 a minute
    ),
    book=BookRule(Continuity.RANGE, SnapshotSource.REST),
    trade_numbers=TradeNumbers.CONSECUTIVE,
)


class Backpack(PlainFeed):
    venue: ClassVar[str] = "backpack"
    reference: ClassVar[str] = "Backpack Exchange API 1.0, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": _MARKET,
        "perp": replace(_MARKET, endpoints=(Endpoint(_URL, frozenset(_STREAMS)),)),
    }
    acks: ClassVar[Acks] = Acks.NEVER

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_STREAMS[channel]}.{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams):
            yield orjson.dumps({"method": "SUBSCRIBE", "params": part, "id": number})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams, keep=False):
            yield orjson.dumps({"method": "UNSUBSCRIBE", "params": part, "id": number})

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        data = bytes(head.data)
        if not data:
            return self._answer(payload, head)
        name = head.stream.partition(".")[0]
        match name:
            case "trade":
                trade = _parse_trade(data)
                side = _ASK if trade.m else _BID
                row = (trade.t, trade.p, trade.q, side, trade.t)
                number = self._symbols[trade.s]
                out.add_trade(number, time_ns(trade.T, MICROSECOND), ts_recv, *row)
            case "bookTicker":
                quote = _parse_quote(data)
                prices = (quote.b, quote.B, quote.a, quote.A)
                time, sequence = time_ns(quote.T, MICROSECOND), whole_number(quote.u)
                out.add_quote(self._symbols[quote.s], time, ts_recv, sequence, *prices)
            case "depth":
                depth = _parse_depth(data)
                times = time_ns(depth.T, MICROSECOND), ts_recv
                numbers = whole_number(depth.U), whole_number(depth.u), 0
                number = self._symbols[depth.s]
                append_pairs(out, number, times, numbers, (depth.b, depth.a))
            case "markPrice" | "openInterest" | "liquidation" if self._market == "perp":
                self._derivative(name, data, ts_recv, out)
            case _ if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case _:
                raise UnknownMessage(self.venue, f"stream {name!r:.60}")
        return None

    def _derivative(self, name: str, data: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append what only perpetuals have."""
        if name == "markPrice":
            mark = _parse_mark(data)
            number, time = self._symbols[mark.s], time_ns(mark.E, MICROSECOND)
            prices = {"mark_price": mark.p, "index_price": said(mark.i)}
            add_mark_price(out, number, ts_recv, ts_event=time, **prices)
            if said(mark.f) is not None:
                due_ns = None if mark.n is None else _due_ns(mark.n)
                state = FundingState.PREDICTED
                add_funding(
                    out, number, ts_recv, rate=mark.f, ts_event=time, due_ns=due_ns, state=state
                )
        elif name == "openInterest":
            interest = _parse_interest(data)
            number, time = self._symbols[interest.s], time_ns(interest.E, MICROSECOND)
            unit, value = InterestUnit.BASE, interest.o
            add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)
        else:
            one = _parse_liquidation(data)
            add_liquidation(
                out,
                self._symbols[one.s],
                ts_recv,
                position=_POSITIONS.get(one.S, Position.UNKNOWN),
                size=one.q,
                price=one.p,
                ts_event=time_ns(one.T, MICROSECOND),
            )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        name, _, rest = _parse_head(payload).stream.partition(".")
        symbol = rest.rpartition(".")[2]  # depth.200ms.SOL_USDC
        return (f"{name}.{symbol}",) if name in _STREAMS.values() else ()

    def _answer(self, payload: bytes, head: _Head) -> Control:
        streams = self._requests.answered(head.id)
        if head.error is not None:
            text = f"{head.error['code']} {head.error['message']}"
            named = tuple(stream for stream in streams if stream in text)
            return Refused(text, named or streams)
        if head.id is not None:
            return Ack(streams)
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return symbol.endswith("_PERP") == (market == "perp")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v1/markets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict) and "code" in answer:
            code, text = str(answer["code"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _TYPES.get(entry["marketType"]) != market:
            return None
        status = entry["orderBookState"]
        return Listing(entry["symbol"], status in _TRADING, status)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["baseSymbol"], entry["quoteSymbol"]
        is_perpetual = market == "perp"
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}{'-PERP' if is_perpetual else ''}".upper(),
            base,
            quote,
            entry["filters"]["price"]["tickSize"],
            entry["filters"]["quantity"]["stepSize"],
            contract=Contract.PERPETUAL if is_perpetual else Contract.SPOT,
            settlement=quote,
        )

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return RestRequest("/api/v1/depth", {"symbol": symbol, "limit": str(_DEPTH)})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        image = _parse_image(body)
        last = whole_number(image.lastUpdateId)
        flags = Flag.SNAPSHOT if image.timestamp else Flag.SNAPSHOT | Flag.NO_VENUE_TIME
        if max(len(image.bids), len(image.asks)) >= _DEPTH:
            flags |= Flag.PARTIAL
        out.add_book_update(
            self._symbols[symbol],
            time_ns(image.timestamp, MICROSECOND) if image.timestamp else ts_recv,
            ts_recv,
            image.bids,
            image.asks,
            first=last,
            last=last,
            flags=flags,
            are_pairs=True,
        )

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        limit = next(limit for limit in _DEPTHS if limit >= depth)
        return RestRequest("/api/v1/depth", {"symbol": symbol, "limit": str(limit)})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """The document doesn't order the levels."""
        image = _parse_image(body)
        bids, asks = (
            sorted(((str(price), str(size)) for price, size in side), key=_price)
            for side in (image.bids, image.asks)
        )
        return RestSnapshot(whole_number(image.lastUpdateId), bids[::-1], asks)


def _due_ns(value: Any) -> int:
    """Return when funding is next exchanged, which comes in us, once in ms."""
    return either_ns(whole_number(value))


def _price(level: tuple[str, str]) -> float:
    """Order levels; a float is exact enough for that."""
    return float(level[0])


adapter: type[FeedAdapter] = Backpack
