"""MEXC, spot (protobuf) and perpetual futures (JSON): trades, best bid and ask, books.

Reference: MEXC API docs: Spot v3 "Websocket Market Streams" with mexcdevelop/websocket-proto,
"Order Book", "Exchange Information"; Contract v1 "WebSocket API", "Get the contract's depth", "Get
the contract information".
Units: spot's prices and sizes are decimal text, futures' bare numbers; times are milliseconds.
Sizes of futures count contracts.
Traps:
- Spot's requests and answers are JSON text, its data protobuf frames: a wrapper with channel,
  symbol, times and one body, of the numbers 313 (book), 314 (trades), 315 (best bid and ask).
- Spot's update covers fromVersion to toVersion; the image is over REST. A connection has 30
  streams.
- An answer's `msg` lists the streams that it grants, or says "Not Subscribed successfully!".
- A futures' level is price, contracts, orders. `version` rises by one; some messages cover a range
  `begin` to `end`. There is no stream of best bid and ask: quotes are taken from the book.
- A futures' ticker has the funding rate, fair (mark) and index price, and open interest in
  contracts.
- `T` of a futures trade: 1 the taker bought, 2 sold. Trades come alone or as a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    Ack,
    BookRule,
    ColumnBuffer,
    Continuity,
    Control,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    InterestUnit,
    Limits,
    Listing,
    Market,
    Milliseconds,
    Notice,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    Sequential,
    Side,
    SnapshotSource,
    TradeNumbers,
    UnknownMessage,
    add_funding,
    add_mark_price,
    add_open_interest,
    pairs_of,
    whole_number,
)

from . import instruments, spot

_SPOT_STREAMS: Final = {
    "trades": "spot@public.aggre.deals.v3.api.pb@100ms",
    "quotes": "spot@public.aggre.bookTicker.v3.api.pb@100ms",
    "book": "spot@public.aggre.depth.v3.api.pb@100ms",
}
_OURS: Final = tuple(name.removesuffix("@100ms") for name in _SPOT_STREAMS.values())
_KINDS: Final = {
    "trades": "deal",
    "quotes": "depth",
    "book": "depth",
    "funding": "ticker",
    "mark_price": "ticker",
    "open_interest": "ticker",
}
_LEFT_OUT: Final = {
    name: Filtered(name.removeprefix("push."))
    for name in (
        *("push.tickers", "push.kline", "push.fair.price", "push.index.price"),
        *("push.funding.rate", "push.depth.full", "push.contract", "push.event.contract"),
    )
}
_SIDES: Final = {1: int(Side.BID), 2: int(Side.ASK)}
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)
_IMAGE_LEVELS: Final = 1_000
_NAMED: Final = re.compile(r"spot@[^,\]\s]+")
_REFUSED: Final = ("not subscribed", "blocked", "reason")


class _Deal(msgspec.Struct, gc=False):
    p: Any  # bare: `float_hook` keeps the digits
    v: Any
    T: int
    t: Milliseconds
    i: Any = 0


class _Depth(msgspec.Struct, gc=False):
    version: Sequential
    asks: list[list[Any]] = []
    bids: list[list[Any]] = []
    begin: Sequential = 0
    end: Sequential = 0
    timestamp: Milliseconds | None = None  # of an image


class _Ticker(msgspec.Struct, rename="camel", gc=False):
    timestamp: Milliseconds
    fair_price: Any = None
    index_price: Any = None
    funding_rate: Any = None
    hold_vol: Any = None


class _Push(msgspec.Struct, gc=False):
    channel: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    symbol: str = ""
    ts: Milliseconds | None = None


class _SpotAnswer(msgspec.Struct, gc=False):
    msg: str
    code: int = 0


class _SpotImage(msgspec.Struct, rename="camel", gc=False):
    last_update_id: Sequential
    bids: list[list[Any]]
    asks: list[list[Any]]
    timestamp: Milliseconds | None = None


class _DepthAnswer(msgspec.Struct, gc=False):
    data: _Depth


_parse_push: Final = msgspec.json.Decoder(_Push).decode
_parse_deal: Final = msgspec.json.Decoder(_Deal, float_hook=str).decode
_parse_deals: Final = msgspec.json.Decoder(list[_Deal], float_hook=str).decode
_parse_depth: Final = msgspec.json.Decoder(_Depth, float_hook=str).decode
_parse_ticker: Final = msgspec.json.Decoder(_Ticker, float_hook=str).decode
_parse_spot_answer: Final = msgspec.json.Decoder(_SpotAnswer).decode
_parse_spot_image: Final = msgspec.json.Decoder(_SpotImage, float_hook=str).decode
_parse_depth_answer: Final = msgspec.json.Decoder(_DepthAnswer, float_hook=str).decode


class Mexc:
    venue: ClassVar[str] = "mexc"
    reference: ClassVar[str] = "MEXC API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("wss://wbs-api.mexc.com/ws"),),
            rest_url="https://api.mexc.com",
            limits=Limits(
                streams_per_connection=30,
                streams_per_subscribe=10,
                connects_per_s=1.0,
                connects_burst=5,
                requests_per_s=10.0,
                rest=RestLimit(weight_per_s=20.0, weight_burst=100),  # 500 in 10 s
                ping_interval_s=20.0,
                lifetime_s=86_400.0,
            ),
            book=BookRule(Continuity.RANGE, SnapshotSource.REST),
        ),
        "futures": Market(
            endpoints=(Endpoint("wss://contract.mexc.com/edge", frozenset(_KINDS)),),
            rest_url="https://contract.mexc.com",
            limits=Limits(
                streams_per_connection=100,
                streams_per_subscribe=1,
                connects_per_s=1.0,
                connects_burst=5,
                requests_per_s=10.0,
                rest=RestLimit(weight_per_s=8.0, weight_burst=15),  # 20 in 2 s
                ping_interval_s=15.0,
            ),
            book=BookRule(Continuity.RANGE, SnapshotSource.REST, quotes_from_book=True),
            trade_numbers=TradeNumbers.NONE,
        ),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)
        self._asked: dict[str, None] = {}  # futures' streams, until they are answered

    def stream(self, channel: str, symbol: str) -> str:
        if self._market == "spot":
            return f"{_SPOT_STREAMS[channel]}@{symbol}"
        return f"{_KINDS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        if self._market == "futures":
            self._asked.update(dict.fromkeys(streams))
            return _operations("sub", streams)
        return self._spot_requests("SUBSCRIPTION", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        if self._market == "futures":
            return _operations("unsub", streams)
        return self._spot_requests("UNSUBSCRIPTION", streams)

    def _spot_requests(self, method: str, streams: Sequence[str]) -> Iterator[bytes]:
        for _, part in self._requests.parts(streams, keep=False):
            yield orjson.dumps({"method": method, "params": part})

    def ping(self) -> bytes | None:
        return b'{"method":"PING"}' if self._market == "spot" else b'{"method":"ping"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if self._market == "futures":
            return self._push(_parse_push(payload), ts_recv, out)
        if payload[:1] == b"{":
            return _spot_answer(_parse_spot_answer(payload))
        return spot.append(payload, self._symbols, ts_recv, out)

    def _push(self, push: _Push, ts_recv: int, out: ColumnBuffer) -> Control | None:
        match push.channel:
            case "push.deal":
                self._deals(push, ts_recv, out)
            case "push.depth":
                depth = _parse_depth(push.data)
                first, last = depth.begin or depth.version, depth.end or depth.version
                self._levels(push.symbol, depth, (first, last, 0), push.ts, ts_recv, out)
            case "push.ticker":
                self._ticker(push.symbol, _parse_ticker(push.data), ts_recv, out)
            case "pong":
                return Notice.HEARTBEAT
            case channel if channel in _LEFT_OUT:
                return _LEFT_OUT[channel]
            case channel if channel.startswith(("rs.", "clientId")):
                return self._answer(channel, push)
            case channel:
                raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        return None

    def _answer(self, channel: str, push: _Push) -> Control:
        text = msgspec.json.decode(push.data)
        if channel == "rs.error":
            named = [item for item in self._asked if f"[{item.partition(':')[2]}]" in str(text)]
            for item in named:
                del self._asked[item]
            return Refused(str(text), tuple(named))
        verb, _, kind = channel.removeprefix("rs.").partition(".")
        if verb != "sub":
            return Notice.INFO
        stream = next((item for item in self._asked if item.partition(":")[0] == kind), "")
        if not stream:
            return Notice.INFO
        del self._asked[stream]  # answers come in order, and name the kind alone
        return Ack((stream,))

    def _deals(self, push: _Push, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[push.symbol]
        is_list = bytes(push.data)[:1] == b"["
        for deal in _parse_deals(push.data) if is_list else [_parse_deal(push.data)]:
            identifier = whole_number(deal.i)
            out.add_trade(
                number,
                deal.t * MILLISECOND,
                ts_recv,
                identifier,
                deal.p,
                deal.v,
                _SIDES[deal.T],
                identifier,
            )

    def _ticker(self, symbol: str, ticker: _Ticker, ts_recv: int, out: ColumnBuffer) -> None:
        number, time = self._symbols[symbol], ticker.timestamp * MILLISECOND
        if ticker.funding_rate is not None:
            add_funding(out, number, ts_recv, rate=ticker.funding_rate, ts_event=time)
        mark, index = ticker.fair_price, ticker.index_price
        if mark is not None or index is not None:
            add_mark_price(out, number, ts_recv, mark_price=mark, index_price=index, ts_event=time)
        if ticker.hold_vol is not None:
            unit, value = InterestUnit.CONTRACT, ticker.hold_vol
            add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)

    def _levels(
        self,
        symbol: str,
        depth: _Depth,
        numbers: tuple[int, int, int],
        ts_ms: int | None,
        ts_recv: int,
        out: ColumnBuffer,
    ) -> None:
        first, last, flags = numbers
        time = ts_recv if ts_ms is None else ts_ms * MILLISECOND
        out.add_book_update(
            self._symbols[symbol],
            time,
            ts_recv,
            pairs_of(depth.bids),
            pairs_of(depth.asks),
            first=first,
            last=last,
            flags=flags | (Flag.NO_VENUE_TIME if ts_ms is None else 0),
            are_pairs=True,
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        if self._market == "spot":
            stream = spot.stream_of(payload)
            return (stream,) if stream.startswith(_OURS) else ()
        push = orjson.loads(payload)
        kind = push["channel"].removeprefix("push.")
        return (f"{kind}:{push['symbol']}",) if kind in _KINDS.values() else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest(instruments.PATHS[market], weight=10)]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        return instruments.entries(market, body)

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return instruments.listing(market, entry)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return instruments.parse(market, entry)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        if self._market == "futures":
            return RestRequest(f"/api/v1/contract/depth/{symbol}")
        return RestRequest("/api/v3/depth", {"symbol": symbol, "limit": str(_IMAGE_LEVELS)})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if self._market == "futures":
            depth = _parse_depth_answer(body).data
            last, time = depth.version, depth.timestamp
            flags = int(Flag.SNAPSHOT)
        else:
            image = _parse_spot_image(body)
            last, time = image.last_update_id, image.timestamp
            depth = _Depth(last, image.asks, image.bids)
            is_cut = max(len(image.asks), len(image.bids)) >= _IMAGE_LEVELS
            flags = _IMAGE if is_cut else int(Flag.SNAPSHOT)
        self._levels(symbol, depth, (last, last, flags), time, ts_recv, out)


def _operations(verb: str, streams: Sequence[str]) -> Iterator[bytes]:
    for stream in streams:
        kind, _, symbol = stream.partition(":")
        yield orjson.dumps({"method": f"{verb}.{kind}", "param": {"symbol": symbol}})


def _spot_answer(answer: _SpotAnswer) -> Control:
    if answer.msg == "PONG":
        return Notice.HEARTBEAT
    streams = tuple(dict.fromkeys(_NAMED.findall(answer.msg)))
    if answer.code or any(word in answer.msg.lower() for word in _REFUSED):
        return Refused(answer.msg, streams)
    if not streams:
        raise UnknownMessage("mexc", f"answer {answer.msg!r:.60}")
    return Ack(streams)


adapter: type[FeedAdapter] = Mexc
