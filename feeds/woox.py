"""WOO X v3, spot and perpetuals: trades, quotes, and books of 50 levels that a REST image begins.

Reference: WOO X "Websocket API V3": Subscribe, Trade, BBO, Orderbook update; REST "Orderbook
snapshot", "Available symbols", read 2026-11-30.
Units: prices and sizes are decimal text in base; times are ms.
Traps:
- Updates of a book are numbered by their times: `prevTs` is `ts` of the update before. The image's
  `timestamp` is the time of the last update in it.
- At most ten topics in a request and a hundred on a connection. An answer lists the topics that
  stand; one that doesn't exist is missing from it, and no error.
- Index prices are of spot symbols, so a mark price comes alone; `estfundingrate` once a minute.
- Trades have no number. `src` 1 is a liquidation.
- The client sends {"cmd":"PING"}; 60 seconds of silence end a connection.
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
    RowClass,
    Side,
    SnapshotSource,
    UnknownMessage,
    VenueError,
    add_funding,
    add_mark_price,
    append_pairs,
    instrument,
    optional_ns,
    shape,
)

DEPTH: Final = 50
_STREAMS: Final = {
    "trades": "trade@{}",
    "quotes": "bbo@{}",
    "book": f"orderbookupdate@{{}}@{DEPTH}",
    "funding": "estfundingrate@{}",
    "mark_price": "markprice@{}",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book"})
_NAMED: Final = frozenset(stream.partition("@")[0] for stream in _STREAMS.values())
_SIDES: Final = {"BUY": int(Side.BID), "SELL": int(Side.ASK)}
_LIQUIDATION: Final = 1
_LAST: Final = int(Flag.LAST)
_PREFIXES: Final = {"SPOT": "spot", "PERP": "perp"}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("ticker", "tickers", "bbos", "kline", "indexprice", "markprice", "openinterest"),
        *("estfundingrate", "orderbook", "orderbook10", "orderbook100", "orderbookupdaterpi"),
        *("bborpi", "indexprices", "markprices", "openinterests", "liquidation"),
    )
}
_TEMPORARY: Final = frozenset({"-1000", "-1003", "-1011", "317136"})


class _Trade(msgspec.Struct, gc=False):
    s: str
    px: Any  # as text or bare: `float_hook` keeps the digits
    sx: Any
    ts: Milliseconds | None = None
    sd: str = ""
    src: int = 0
    rpi: bool = False


class _Trades(msgspec.Struct, gc=False):
    data: _Trade
    ts: Milliseconds


class _Quote(msgspec.Struct, gc=False):
    s: str
    bp: Any = None
    bq: Any = None
    ap: Any = None
    aq: Any = None
    ts: Milliseconds | None = None


class _Quotes(msgspec.Struct, gc=False):
    data: _Quote
    ts: Milliseconds


class _Depth(msgspec.Struct, gc=False):
    s: str
    ts: Milliseconds
    prevTs: Milliseconds  # noqa: N815  # the venue's name
    bids: msgspec.Raw
    asks: msgspec.Raw


class _Depths(msgspec.Struct, gc=False):
    data: _Depth


class _Value(msgspec.Struct, gc=False):
    s: str
    ts: Milliseconds | None = None
    px: Any = None
    r: Any = None
    ft: Any = None


class _Values(msgspec.Struct, gc=False):
    data: _Value
    ts: Milliseconds


class _Level(msgspec.Struct, gc=False):
    price: Any
    quantity: Any


class _Sides(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]


class _Image(msgspec.Struct, gc=False):
    """The answer to a request for a book."""

    data: _Sides
    timestamp: Milliseconds


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    topic: str = ""
    cmd: str = ""
    id: Any = None
    success: bool = True
    data: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_depths: Final = msgspec.json.Decoder(_Depths).decode
_parse_values: Final = msgspec.json.Decoder(_Values, float_hook=str).decode
_parse_image: Final = msgspec.json.Decoder(_Image, float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode

_URL: Final = "wss://wss.woox.io/v3/public"
_MARKET: Final = Market(
    endpoints=(Endpoint(_URL, _SPOT_CHANNELS),),
    rest_url="https://api.woox.io",
    limits=Limits(
        streams_per_connection=100,
        streams_per_subscribe=10,
        connects_per_s=0.5,
        requests_per_s=5.0,
        rest=RestLimit(weight_per_s=5.0, weight_burst=5),  # 10 a second
        ping_interval_s=20.0,
        lifetime_s=86_400.0,
    ),
    book=BookRule(Continuity.PREVIOUS, SnapshotSource.REST, depth_max=DEPTH),
)


# The text of plain trades.
_SHAPES: Final = (
    shape(
        RowClass.TRADE,
        '{"topic":"trade@<text>","ts":<ms:ts_event>,"data":{"s":"<symbol>","px":"<price:price>",'
        '"sx":"<size:size>","sd":"<side:BUY=1|SELL=2>","ts":<ms:ts_event>,"src":0,"rpi":false}}',
    ),
)


class WooX(PlainFeed):
    venue: ClassVar[str] = "woox"
    reference: ClassVar[str] = "WOO X Websocket API V3, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": _MARKET,
        "perp": replace(_MARKET, endpoints=(Endpoint(_URL, frozenset(_STREAMS)),)),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return _STREAMS[channel].format(symbol)

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams):
            yield orjson.dumps({"id": str(number), "cmd": "SUBSCRIBE", "params": part})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams, keep=False):
            yield orjson.dumps({"id": str(number), "cmd": "UN_SUBSCRIBE", "params": part})

    def ping(self) -> bytes | None:
        return b'{"cmd":"PING"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        match head.topic.partition("@")[0]:
            case "":
                return self._answer(head)
            case "trade":
                self._trade(_parse_trades(payload), ts_recv, out)
            case "bbo":
                message = _parse_quotes(payload)
                quote = message.data
                time = (message.ts if quote.ts is None else quote.ts) * MILLISECOND
                sides = quote.bp or "0", quote.bq or "0", quote.ap or "0", quote.aq or "0"
                out.add_quote(self._symbols[quote.s], time, ts_recv, 0, *sides)
            case "orderbookupdate":
                depth = _parse_depths(payload).data
                times, numbers = (
                    (depth.ts * MILLISECOND, ts_recv),
                    (depth.ts, depth.ts, depth.prevTs),
                )
                append_pairs(out, self._symbols[depth.s], times, numbers, (depth.bids, depth.asks))
            case "estfundingrate" | "markprice" if self._market == "perp":
                self._value(_parse_values(payload), ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"topic {name!r:.60}")
        return None

    def _trade(self, message: _Trades, ts_recv: int, out: ColumnBuffer) -> None:
        trade = message.data
        flags = _LAST | (Flag.LIQUIDATION if trade.src == _LIQUIDATION else 0)
        out.add_trade(
            self._symbols[trade.s],
            (message.ts if trade.ts is None else trade.ts) * MILLISECOND,
            ts_recv,
            0,
            trade.px,
            trade.sx,
            _SIDES.get(trade.sd, NO_SIDE),
            flags=flags | Flag.RPI if trade.rpi else flags,
        )

    def _value(self, message: _Values, ts_recv: int, out: ColumnBuffer) -> None:
        one = message.data
        number = self._symbols[one.s]
        time = (message.ts if one.ts is None else one.ts) * MILLISECOND
        if one.r is None:
            add_mark_price(out, number, ts_recv, mark_price=one.px, ts_event=time)
            return
        due_ns = optional_ns(one.ft)
        state = FundingState.PREDICTED
        add_funding(out, number, ts_recv, rate=one.r, ts_event=time, due_ns=due_ns, state=state)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        topic = _parse_head(payload).topic
        return (topic,) if topic.partition("@")[0] in _NAMED else ()

    def _answer(self, head: _Head) -> Control:
        match head.cmd:
            case "PONG":
                return Notice.HEARTBEAT
            case "SUBSCRIBE":
                asked = self._requests.answered(head.id)
                if not head.success:
                    return Refused(str(head.data), asked)
                if not isinstance(head.data, list):
                    raise UnknownMessage(self.venue, f"data {head.data!r:.60}")
                standing = tuple(stream for stream in asked if stream in head.data)
                if standing or not asked:
                    return Ack(standing) if standing else Notice.INFO
                return Refused("no such topic", asked)
            case "UN_SUBSCRIBE":
                return Notice.INFO
            case "ERROR":
                return Refused(str(head.data), self._requests.answered(head.id))
        raise UnknownMessage(self.venue, f"cmd {head.cmd!r:.60}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return _PREFIXES.get(symbol.partition("_")[0]) == market

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v3/public/instruments")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = _parse_list(body)
        if answer["success"] is not True:
            code, text = str(answer["code"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["data"]["rows"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _PREFIXES.get(entry["symbol"].partition("_")[0]) != market:
            return None
        return Listing(entry["symbol"], entry["status"] == "TRADING", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["baseAsset"], entry["quoteAsset"]
        is_perpetual = market == "perp"
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}{'-PERP' if is_perpetual else ''}".upper(),
            base,
            quote,
            str(entry["quoteTick"]),
            str(entry["baseTick"]),
            contract=Contract.PERPETUAL if is_perpetual else Contract.SPOT,
            settlement=quote,
        )

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return RestRequest("/v3/public/orderbook", {"symbol": symbol, "maxLevel": str(DEPTH)})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        image = _parse_image(body)
        bids, asks = (
            [(level.price, level.quantity) for level in side]
            for side in (image.data.bids, image.data.asks)
        )
        is_cut = max(len(bids), len(asks)) >= DEPTH
        out.add_book_update(
            self._symbols[symbol],
            image.timestamp * MILLISECOND,
            ts_recv,
            bids,
            asks,
            first=image.timestamp,
            last=image.timestamp,
            flags=Flag.SNAPSHOT | Flag.PARTIAL if is_cut else Flag.SNAPSHOT,
            are_pairs=True,
        )


adapter: type[FeedAdapter] = WooX
