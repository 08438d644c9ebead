"""Phemex, spot, inverse and linear perpetuals: trades and books; quotes are their best levels.

Reference: Phemex API docs: "Public Spot API", "Coin-margined perpetual", "Hedged contract"
(Subscribe OrderBook, Subscribe Trade, Heartbeat), REST "Query product information".
Units: spot and inverse have scaled integers: prices of spot and sizes of spot times 10^8, prices
of inverse times 10^4, its sizes are contracts of a dollar. Linear has decimal text. Times are
nanoseconds.
Traps:
- Symbols of spot begin with s (sBTCUSDT); BTCUSD is inverse, BTCUSDT linear. All share one
  address.
- A book begins with `type` snapshot and is repeated whole each minute; `sequence` rises, but not
  by one. Depth is 30 levels a side: deeper ones are not told of any more.
- Trades are time, taker's side, price, size, newest first, without id. The first message is a
  snapshot of past ones.
- `perp_market24h_pack_p` is one stream of all linear contracts, with mark and index price, funding
  rates and open interest, in places that `fields` names.
- An answer has the request's id and names nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    OTHER_MARKET,
    Ack,
    BookRule,
    ColumnBuffer,
    CompiledShape,
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
    Nanoseconds,
    Notice,
    PlainFeed,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    Side,
    SizeUnit,
    UnknownMessage,
    VenueError,
    add_funding,
    add_mark_price,
    add_open_interest,
    instrument,
    scaled_text,
    shape,
)

_PACK: Final = "perp_market24h_pack_p"
_KINDS: Final = {"trades": "trade", "quotes": "orderbook", "book": "orderbook"}
_PACKED: Final = frozenset({"funding", "mark_price", "open_interest"})
_CHANNELS: Final = dict.fromkeys(("spot", "inverse"), frozenset(_KINDS)) | {
    "linear": frozenset(_KINDS) | _PACKED
}
_SIDES: Final = {"Buy": int(Side.BID), "Sell": int(Side.ASK)}
_TRADE_FLAGS: Final = {
    "snapshot": int(Flag.LAST | Flag.SNAPSHOT),
    "incremental": int(Flag.LAST),
}
_BOOK_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT | Flag.PARTIAL), "incremental": 0}
_PLACES: Final = {"spot": (8, 8), "inverse": (4, 0)}  # of scaled prices and sizes
_RATES: Final = {
    "fundingRateRr": FundingState.SETTLED,
    "predFundingRateRr": FundingState.PREDICTED,
}
_DEPTH: Final = 30
_TYPES: Final = {"spot": "Spot", "inverse": "Perpetual", "linear": "PerpetualV2"}
_TEMPORARY: Final = frozenset({"6002", "30000", "30018", "429"})
_Type = Literal["snapshot", "incremental"]


class _Sides(msgspec.Struct, gc=False):
    asks: list[tuple[Any, Any]]
    bids: list[tuple[Any, Any]]


class _Message(msgspec.Struct, gc=False):
    """Any message: what it has tells its kind."""

    symbol: str = ""
    type: _Type = "incremental"
    sequence: Sequential = 0
    timestamp: Nanoseconds | None = None
    book: _Sides | None = None
    orderbook_p: _Sides | None = None
    trades: list[tuple[Nanoseconds, str, Any, Any]] | None = None
    trades_p: list[tuple[Nanoseconds, str, Any, Any]] | None = None
    method: str = ""
    id: Any = None
    error: Any = None
    result: Any = None
    tick: Any = None
    tick_p: Any = None
    kline: Any = None
    kline_p: Any = None
    market24h: Any = None
    data: list[list[Any]] | None = None
    fields: list[str] | None = None
    spot_market24h: Any = None


_parse: Final = msgspec.json.Decoder(_Message, float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(float_hook=str).decode
_Read = Callable[[Any], Any]


def _market(name: str) -> Market:
    return Market(
        endpoints=(Endpoint("wss://ws.phemex.com", _CHANNELS[name]),),
        rest_url="https://api.phemex.com",
        limits=Limits(
            streams_per_connection=20,
            streams_per_subscribe=1,
            connects_per_s=0.5,
            connects_burst=3,
            requests_per_s=5.0,
            rest=RestLimit("public", weight_per_s=1.0, weight_burst=20),
            ping_interval_s=10.0,
        ),
        book=BookRule(Continuity.NONE, depth_max=_DEPTH, quotes_from_book=True),
    )


# The text of linear contracts' trades; other markets' numbers are scaled.
_SHAPES: Final = (
    shape(
        RowClass.TRADE,
        '{"sequence":<n>,"symbol":"<symbol>","trades_p":<[>[<ns:ts_event>,"<side:Buy=1|Sell=2>",'
        '"<price:price>","<size:size>"]<row><]>,"type":"incremental","dts":<n>,"mts":<n>}',
        newest_first=True,
    ),
)


class Phemex(PlainFeed):
    venue: ClassVar[str] = "phemex"
    reference: ClassVar[str] = "Phemex API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(name) for name in _TYPES}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._suffix = "_p" if market == "linear" else ""
        self._requests = Requests(1)
        self._price, self._size = map(_reader, _PLACES.get(market, (None, None)))

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES if market == "linear" else ()

    def stream(self, channel: str, symbol: str) -> str:
        if channel in _PACKED:
            return f"{_PACK}:"
        return f"{_KINDS[channel]}{self._suffix}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams):
            yield _request("subscribe", stream, number)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams, keep=False):
            yield _request("unsubscribe", stream, number)

    def ping(self) -> bytes | None:
        return b'{"id":0,"method":"server.ping","params":[]}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        message = _parse(payload)
        is_linear = bool(self._suffix)
        book = message.orderbook_p if is_linear else message.book
        trades = message.trades_p if is_linear else message.trades
        # Spot and inverse speak alike, but scale their numbers differently.
        if message.symbol and not self.is_of_market(self._market, message.symbol):
            return OTHER_MARKET
        if book is not None:
            self._levels(message, book, ts_recv, out)
        elif trades is not None:
            self._trades(message, trades, ts_recv, out)
        elif message.method == f"{_PACK}.update" and is_linear:
            self._pack(message, ts_recv, out)
        else:
            return self._other(payload, message)
        return None

    def _pack(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        """Append what is told of all contracts at once, as far as they are known here."""
        time = message.timestamp
        for row in message.data or ():
            told = dict(zip(message.fields or (), row, strict=True))
            symbol = told["symbol"]
            if symbol in self._symbols:
                _append_facts(self._symbols[symbol], told, time, ts_recv, out)

    def _other(self, payload: bytes, message: _Message) -> Control:
        for name in ("tick", "kline", "tick_p", "kline_p", "market24h", "spot_market24h"):
            if getattr(message, name) is not None:
                return Filtered(name)
        if message.method.endswith(".update"):
            return Filtered(message.method.removesuffix(".update"))
        if message.symbol:
            return OTHER_MARKET
        if message.result == "pong":
            return Notice.HEARTBEAT
        if message.id is None or (message.result is None and message.error is None):
            raise UnknownMessage(self.venue, f"{payload[:60]!r}")
        streams = self._requests.answered(message.id)
        if message.error is None:
            return Ack(streams) if streams else Notice.INFO
        error = message.error
        return Refused(f"{error['code']} {error.get('message', '')}".strip(), streams)

    def _trades(
        self,
        message: _Message,
        trades: list[tuple[int, str, Any, Any]],
        ts_recv: int,
        out: ColumnBuffer,
    ) -> None:
        number, flags = self._symbols[message.symbol], _TRADE_FLAGS[message.type]
        for time, side, price, size in reversed(trades):
            out.add_trade(
                number,
                time,
                ts_recv,
                0,
                self._price(price),
                self._size(size),
                _SIDES[side],
                flags=flags,
            )

    def _levels(self, message: _Message, book: _Sides, ts_recv: int, out: ColumnBuffer) -> None:
        read_price, read_size = self._price, self._size
        bids, asks = (
            [(read_price(price), read_size(size)) for price, size in side]
            for side in (book.bids, book.asks)
        )
        number, last, time = self._symbols[message.symbol], message.sequence, message.timestamp
        flags = _BOOK_FLAGS[message.type]
        if time is None:
            time, flags = ts_recv, flags | Flag.NO_VENUE_TIME
        out.add_book_update(
            number, time, ts_recv, bids, asks, first=last, last=last, flags=flags, are_pairs=True
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        if message.get("method") == f"{_PACK}.update":
            return (f"{_PACK}:",)
        has = next(
            name for name in ("book", "orderbook_p", "trades", "trades_p") if name in message
        )
        kind = "trade" if has.startswith("trades") else "orderbook"
        return (f"{kind}{self._suffix}:{message['symbol']}",)

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return symbol.startswith("s") == (market == "spot")  # frames say whether it is linear

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/public/products")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer: Any = _parse_list(body)
        code = str(answer["code"])
        if code != "0":
            text = str(answer.get("msg", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["data"][
            "perpProductsV2" if market == "linear" else "products"
        ]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry["type"] != _TYPES[market]:
            return None
        return Listing(entry["symbol"], entry["status"] == "Listed", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["baseCurrency"], entry["quoteCurrency"]
        more: dict[str, Any] = {"contract": Contract.PERPETUAL}
        if market == "spot":
            more = {"settlement": quote}
            tick, lot = (
                scaled_text(entry[name], _PLACES["spot"][0])
                for name in ("quoteTickSizeEv", "baseTickSizeEv")
            )
        elif market == "inverse":
            if entry["priceScale"] != _PLACES["inverse"][0]:
                raise ValueError(f"priceScale is {entry['priceScale']!r:.40}")
            more |= {"settlement": entry["settleCurrency"], "size_unit": SizeUnit.CONTRACT}
            more["multiplier"] = str(entry["contractSize"])
            tick, lot = str(entry["tickSize"]), "1"
        else:
            more["settlement"] = entry["settleCurrency"]
            tick, lot = str(entry["tickSize"]), str(entry["qtyStepSize"])
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}{'' if market == 'spot' else '-PERP'}".upper(),
            base,
            quote,
            tick,
            lot,
            **more,
        )


def _reader(places: int | None) -> _Read:
    """Return what makes decimal text of a number; None: it is that already."""
    return (lambda value: value) if places is None else (lambda value: scaled_text(value, places))


def _append_facts(
    number: int, told: dict[str, Any], time: int | None, ts_recv: int, out: ColumnBuffer
) -> None:
    mark, index = told.get("markRp"), told.get("indexRp")
    if mark is not None or index is not None:
        add_mark_price(out, number, ts_recv, mark_price=mark, index_price=index, ts_event=time)
    for name, state in _RATES.items():
        if told.get(name) is not None:
            add_funding(out, number, ts_recv, rate=told[name], state=state, ts_event=time)
    if told.get("openInterestRv") is not None:
        value, unit = told["openInterestRv"], InterestUnit.BASE
        add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)


def _request(operation: str, stream: str, number: int) -> bytes:
    kind, _, symbol = stream.partition(":")
    parameters = [symbol] if symbol else []
    return orjson.dumps({"id": number, "method": f"{kind}.{operation}", "params": parameters})


adapter: type[FeedAdapter] = Phemex
