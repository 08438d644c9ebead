"""CoinEx v2, spot and futures: trades, best bid and ask, books of 50 levels.

Reference: CoinEx API v2 docs: WebSocket "Market Depth", "Market Transaction", "Market Best Offer",
"Server Ping", HTTP "Market Status" of spot and futures.
Units: prices and sizes are decimal text, times milliseconds (older best offers: seconds). Sizes
are in base, those of inverse futures in dollars.
Traps:
- Frames are compressed: gzip, zlib or raw deflate.
- Books are asked for in full: each message is the whole book of 50 levels. `checksum` is the CRC32
  of its texts, bids then asks, joined by colons, as a signed number; it is checked. Increments
  (`is_full` false) are applied too.
- Trades come newest first. The first message after a subscription repeats past ones.
- An answer has the request's id and code 0, and names no market.
- `state` of futures has mark and index price, the coming and the latest funding rate, and open
  interest in base, without a time.
- A side of a trade is the taker's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar, Final
from zlib import crc32

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
    Counted,
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
    Milliseconds,
    Notice,
    PlainFeed,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    SizeUnit,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_mark_price,
    add_open_interest,
    inflated,
    instrument,
    optional_ns,
    time_ns,
)

_KINDS: Final = {
    "trades": "deals",
    "quotes": "bbo",
    "book": "depth",
    "funding": "state",
    "mark_price": "state",
    "open_interest": "state",
}
_CHANNELS: Final = {"spot": frozenset({"trades", "quotes", "book"}), "futures": frozenset(_KINDS)}
_LEFT_OUT: Final = {f"{name}.update": Filtered(name) for name in ("index", "kline")}
_STATE: Final = Filtered("state")
_DEPTH: Final = 50
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)
_CRC_BITS: Final = 0xFFFFFFFF  # a checksum is signed
_SECONDS_MAX: Final = 10**11
_FRAME_BYTES_MAX: Final = 2 << 20
_PLACES_MAX: Final = 18
# Service busy, timeout, too frequent.
_TEMPORARY: Final = frozenset({"3008", "4001", "4003", "4213"})
_number_of: Final = attrgetter("deal_id")


class _Deal(msgspec.Struct, gc=False):
    deal_id: Counted
    created_at: Milliseconds
    side: str
    price: Any  # as text or bare: `float_hook` keeps the digits
    amount: Any


class _Deals(msgspec.Struct, gc=False):
    market: str
    deal_list: list[_Deal]


class _Best(msgspec.Struct, gc=False):
    market: str
    updated_at: Any
    best_bid_price: Any
    best_bid_size: Any
    best_ask_price: Any
    best_ask_size: Any


class _Levels(msgspec.Struct, gc=False):
    asks: list[tuple[Any, Any]]
    bids: list[tuple[Any, Any]]
    updated_at: Milliseconds
    checksum: Any = None


class _Depth(msgspec.Struct, gc=False):
    market: str
    is_full: bool
    depth: _Levels


class _State(msgspec.Struct, gc=False):
    market: str
    mark_price: Any = None
    index_price: Any = None
    latest_funding_rate: Any = None
    latest_funding_time: Any = None
    next_funding_rate: Any = None
    next_funding_time: Any = None
    open_interest_size: Any = None


class _States(msgspec.Struct, gc=False):
    state_list: list[_State]


class _Message(msgspec.Struct, gc=False):
    method: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: Any = None
    code: Any = None
    message: Any = ""


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_deals: Final = msgspec.json.Decoder(_Deals, float_hook=str).decode
_parse_best: Final = msgspec.json.Decoder(_Best, float_hook=str).decode
_parse_states: Final = msgspec.json.Decoder(_States, float_hook=str).decode
_parse_depth: Final = msgspec.json.Decoder(_Depth, float_hook=str).decode


def _market(name: str) -> Market:
    return Market(
        endpoints=(Endpoint(f"wss://socket.coinex.com/v2/{name}", _CHANNELS[name]),),
        rest_url="https://api.coinex.com",
        limits=Limits(
            streams_per_connection=200,
            streams_per_subscribe=20,
            connects_per_s=1.0,
            connects_burst=5,
            requests_per_s=5.0,
            rest=RestLimit("market", weight_per_s=10.0, weight_burst=20),
            ping_interval_s=20.0,
            frame_bytes_max=_FRAME_BYTES_MAX,
        ),
        book=BookRule(Continuity.NONE, depth_max=_DEPTH, images_only=True),
        trade_numbers=TradeNumbers.ASCENDING,
    )


class Coinex(PlainFeed):
    venue: ClassVar[str] = "coinex"
    reference: ClassVar[str] = "CoinEx API v2 docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(name) for name in ("spot", "futures")}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._is_futures = market == "futures"
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)
        self._fresh: set[str] = set()  # markets whose next trades are a repetition

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_KINDS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        named = [stream.partition(":") for stream in streams]
        self._fresh.update(symbol for kind, _, symbol in named if kind == "deals")
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, operation: str, streams: Sequence[str]) -> Iterator[bytes]:
        by_kind: dict[str, list[str]] = {}
        for stream in streams:
            by_kind.setdefault(stream.partition(":")[0], []).append(stream)
        is_asked = operation == "subscribe"
        for kind, some in by_kind.items():
            for number, part in self._requests.parts(some, keep=is_asked):
                wanted: list[object] = [stream.partition(":")[2] for stream in part]
                if kind == "depth" and is_asked:
                    wanted = [[symbol, _DEPTH, "0", True] for symbol in wanted]
                parameters = {"market_list": wanted}
                method = f"{kind}.{operation}"
                yield orjson.dumps({"method": method, "params": parameters, "id": number})

    def ping(self) -> bytes | None:
        return b'{"method":"server.ping","params":{},"id":0}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        text = inflated(payload, _FRAME_BYTES_MAX)
        message = _parse(text)
        match message.method:
            case "deals.update":
                self._deals(_parse_deals(message.data), ts_recv, out)
            case "bbo.update":
                self._best(_parse_best(message.data), ts_recv, out)
            case "depth.update":
                self._depth(_parse_depth(message.data), ts_recv, out)
            case "state.update" if self._is_futures:
                for state in _parse_states(message.data).state_list:
                    self._state(state, ts_recv, out)
            case "state.update":
                return _STATE
            case "":
                return self._answer(text, message)
            case method if method in _LEFT_OUT:
                return _LEFT_OUT[method]
            case method:
                raise UnknownMessage(self.venue, f"method {method!r:.60}")
        return None

    def _answer(self, text: bytes, message: _Message) -> Control:
        if message.code is None:
            raise UnknownMessage(self.venue, f"{text[:60]!r}")
        if b'"pong"' in bytes(message.data):
            return Notice.HEARTBEAT
        streams = self._requests.answered(message.id)
        if message.code == 0:
            return Ack(streams) if streams else Notice.INFO
        return Refused(f"{message.code} {message.message}", streams)

    def _deals(self, deals: _Deals, ts_recv: int, out: ColumnBuffer) -> None:
        number, fresh = self._symbols[deals.market], deals.market in self._fresh
        flags = int(Flag.LAST | Flag.SNAPSHOT if fresh else Flag.LAST)
        for deal in sorted(deals.deal_list, key=_number_of):
            out.add_trade(
                number,
                deal.created_at * MILLISECOND,
                ts_recv,
                deal.deal_id,
                deal.price,
                deal.amount,
                TAKER_SIDES.get(deal.side, NO_SIDE),
                deal.deal_id,
                flags=flags,
            )
        if fresh:
            self._fresh.discard(deals.market)

    def _best(self, best: _Best, ts_recv: int, out: ColumnBuffer) -> None:
        time = best.updated_at
        unit = SECOND if type(time) is int and time < _SECONDS_MAX else MILLISECOND
        number = self._symbols[best.market]
        bid = _side(best.best_bid_price, best.best_bid_size)
        ask = _side(best.best_ask_price, best.best_ask_size)
        out.add_quote(number, time_ns(time, unit), ts_recv, 0, *bid, *ask)

    def _state(self, state: _State, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[state.market]
        mark, index = state.mark_price, state.index_price
        if mark is not None or index is not None:
            add_mark_price(out, number, ts_recv, mark_price=mark, index_price=index)
        if state.next_funding_rate is not None:
            due_ns = optional_ns(state.next_funding_time)
            add_funding(out, number, ts_recv, rate=state.next_funding_rate, due_ns=due_ns)
        if state.latest_funding_rate is not None:
            due_ns = optional_ns(state.latest_funding_time)
            settled = FundingState.SETTLED
            rate = state.latest_funding_rate
            add_funding(out, number, ts_recv, rate=rate, due_ns=due_ns, state=settled)
        if state.open_interest_size is not None:
            value = state.open_interest_size
            add_open_interest(out, number, ts_recv, value=value, unit=InterestUnit.BASE)

    def _depth(self, update: _Depth, ts_recv: int, out: ColumnBuffer) -> None:
        levels = update.depth
        if update.is_full:
            _check(levels)
        number, time = self._symbols[update.market], levels.updated_at * MILLISECOND
        flags = _IMAGE if update.is_full else 0
        out.add_book_update(
            number, time, ts_recv, levels.bids, levels.asks, flags=flags, are_pairs=True
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(inflated(payload, _FRAME_BYTES_MAX))
        kind, data = message["method"].removesuffix(".update"), message["data"]
        if kind == "state":
            return [f"{kind}:{state['market']}" for state in data["state_list"]]
        return (f"{kind}:{data['market']}",) if kind in _KINDS.values() else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest(f"/v2/{market}/market")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        code = str(answer["code"])
        if code != "0":
            text = str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["data"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        status = entry.get("status", "online")
        return Listing(entry["market"], status == "online", status)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["base_ccy"], entry["quote_ccy"]
        places = entry["quote_ccy_precision"], entry["base_ccy_precision"]
        tick_size, lot_size = map(_increment, places)
        more: dict[str, Any] = {"settlement": quote}
        if market == "futures":
            tick_size = entry["tick_size"]
            more["contract"] = Contract.PERPETUAL
            if entry["contract_type"] == "inverse":
                more |= {"settlement": base, "size_unit": SizeUnit.CONTRACT}
        return instrument(
            cls.venue,
            market,
            entry["market"],
            f"{base}-{quote}{'-PERP' if market == 'futures' else ''}".upper(),
            base,
            quote,
            tick_size,
            lot_size,
            **more,
        )


def _side(price: Any, size: Any) -> tuple[Any, Any]:
    return (price, size) if price not in {"", "0"} else ("0", "0")


def _check(levels: _Levels) -> None:
    """Raise DecodeError for levels that are not those of their checksum."""
    if levels.checksum is None:
        return
    texts = chain.from_iterable(chain(levels.bids, levels.asks))
    found = crc32(":".join(map(str, texts)).encode())
    if found != int(levels.checksum) & _CRC_BITS:
        raise DecodeError("coinex", f"levels of the checksum {found}, not {levels.checksum!r:.40}")


def _increment(places: object) -> str:
    if type(places) is not int or not 0 <= places <= _PLACES_MAX:
        raise ValueError(f"{places!r:.40} decimals")
    return f"0.{'1':0>{places}}" if places else "1"


adapter: type[FeedAdapter] = Coinex
