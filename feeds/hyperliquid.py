"""Hyperliquid, perpetuals and spot: trades, best bid and ask, the book of 20 levels.

Reference: Hyperliquid docs, "For developers / API": Websocket (Subscriptions, Timeouts and
heartbeats), Info endpoint (Perpetuals, Spot), Tick and lot size, Rate limits.
Units: prices and sizes are decimal text, times are milliseconds. Sizes are in base.
Traps:
- Both markets share one address. A coin's name is unique over them: BTC is the perpetual, @107 and
  PURR/USDC are spot, xyz:GOLD is a perpetual of another dex. kPEPE counts thousands of PEPE.
- The whole book comes each time, 20 levels a side, without number and checksum.
- `side` of a trade is the aggressor's: B bought, A sold. `tid` is a hash of the two orders.
- The first message of trades after a subscription repeats past ones.
- A refusal is a text that ends with the subscription as JSON.
- A price has at most 5 significant digits, and 6 - szDecimals decimals (spot: 8 - szDecimals).
- `activeAssetCtx` has funding (of an hour), mark and oracle price and open interest in base, and
  no time.
- A candle does not say whether it is closed.
- Lists are POSTs. Perpetuals of other dexes are not in the list of `meta`.
- Before anything else the server sends a line of text that is no JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    SECOND,
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
    Instrument,
    InterestUnit,
    Limits,
    Listing,
    Market,
    Milliseconds,
    Notice,
    PlainFeed,
    Refused,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    Side,
    UnknownMessage,
    add_candle,
    add_funding,
    add_mark_price,
    add_open_interest,
    instrument,
    shape,
    span_ns,
)

_CONTEXT: Final = "activeAssetCtx"
_TYPES: Final = {
    "trades": "trades",
    "quotes": "bbo",
    "book": "l2Book",
    "funding": _CONTEXT,
    "mark_price": _CONTEXT,
    "open_interest": _CONTEXT,
    "candles": "candle",
}
_STANDARD: Final = frozenset({"trades", "quotes", "book", "candles"})
_INTERVAL: Final = "1m"  # of candles
_CHANNELS: Final = {"perp": frozenset(_TYPES), "spot": _STANDARD}
_SIDES: Final = {"B": int(Side.BID), "A": int(Side.ASK)}
_GREETING: Final = b"Websocket connection established."
_LEFT_OUT: Final = {
    name: Filtered(name) for name in ("allMids", "activeSpotAssetCtx", "notification")
}
_LISTS: Final = {"perp": "meta", "spot": "spotMeta"}
_DECIMALS: Final = {"perp": 6, "spot": 8}  # of a price, minus those of sizes
_SIZE_DECIMALS_MAX: Final = 8
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)
_HOUR: Final = 3_600 * SECOND
_EMPTY: Final = ("0", "0")


class _Message(msgspec.Struct, gc=False):
    channel: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Trade(msgspec.Struct, gc=False):
    coin: str
    side: str
    px: Any  # as text or bare: `float_hook` keeps the digits
    sz: Any
    time: Milliseconds
    tid: Sequential


class _Level(msgspec.Struct, gc=False):
    px: Any
    sz: Any


class _Best(msgspec.Struct, gc=False):
    coin: str
    time: Milliseconds
    bbo: tuple[_Level | None, _Level | None]


class _Book(msgspec.Struct, gc=False):
    coin: str
    time: Milliseconds
    levels: tuple[list[_Level], list[_Level]]


class _Candle(msgspec.Struct, gc=False):
    t: Milliseconds
    s: str
    i: str
    o: Any
    h: Any
    l: Any  # noqa: E741  # the venue's name
    c: Any
    v: Any
    n: Sequential = 0


class _Context(msgspec.Struct, rename="camel", gc=False):
    funding: Any
    open_interest: Any
    mark_px: Any
    oracle_px: Any = None


class _AssetContext(msgspec.Struct, gc=False):
    coin: str
    ctx: _Context


class _Subscription(msgspec.Struct, gc=False):
    type: str
    coin: str = ""


class _Answer(msgspec.Struct, gc=False):
    method: str
    subscription: _Subscription


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trades: Final = msgspec.json.Decoder(list[_Trade], float_hook=str).decode
_parse_best: Final = msgspec.json.Decoder(_Best, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_parse_candles: Final = msgspec.json.Decoder(_Candle | list[_Candle], float_hook=str).decode
_parse_context: Final = msgspec.json.Decoder(_AssetContext, float_hook=str).decode
_parse_answer: Final = msgspec.json.Decoder(_Answer).decode
_parse_subscription: Final = msgspec.json.Decoder(_Subscription).decode
_parse_text: Final = msgspec.json.Decoder(str).decode


def _market(name: str) -> Market:
    return Market(
        endpoints=(Endpoint("wss://api.hyperliquid.xyz/ws", _CHANNELS[name]),),
        rest_url="https://api.hyperliquid.xyz",
        limits=Limits(
            # An address may have 1,000 subscriptions; connections were 100 and became 10.
            streams_per_connection=100,
            streams_per_subscribe=1,
            connects_per_s=0.4,  # 30 a minute
            connects_burst=5,
            requests_per_s=20.0,
            address_requests_per_s=25.0,  # 2,000 a minute
            connections_per_address=10,
            rest=RestLimit("info", weight_per_s=10.0, weight_burst=100),  # 1,200 a minute
            ping_interval_s=30.0,  # the server closes what was silent for 60 s
        ),
        book=BookRule(Continuity.NONE, depth_max=20, images_only=True),
    )


# The text of books. What a trade means depends on the ones before.
_SHAPES: Final = (
    shape(
        RowClass.LEVEL,
        '{"channel":"l2Book","data":{"coin":"<symbol>","time":<ms:ts_event>,"levels":['
        '<[*>{"px":"<price>","sz":"<size>","n":<n>}<level:bids><]>,'
        '<[*>{"px":"<price>","sz":"<size>","n":<n>}<level:asks><]>]}}',
        flags=_IMAGE,
    ),
)


class Hyperliquid(PlainFeed):
    venue: ClassVar[str] = "hyperliquid"
    reference: ClassVar[str] = "Hyperliquid API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(name) for name in _LISTS}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._fresh: set[str] = set()  # coins whose next trades are a repetition

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_TYPES[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        for stream in streams:
            kind, _, coin = stream.partition(":")
            if kind == "trades":
                self._fresh.add(coin)
        return _requests("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _requests("unsubscribe", streams)

    def ping(self) -> bytes | None:
        return b'{"method":"ping"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if payload == _GREETING:
            return Notice.INFO
        message = _parse(payload)
        match message.channel:
            case "trades":
                self._trades(_parse_trades(message.data), ts_recv, out)
            case "bbo":
                best = _parse_best(message.data)
                bid, ask = ((item.px, item.sz) if item else _EMPTY for item in best.bbo)
                number = self._symbols[best.coin]
                out.add_quote(number, best.time * MILLISECOND, ts_recv, 0, *bid, *ask)
            case "l2Book":
                book = _parse_book(message.data)
                bids, asks = ([(level.px, level.sz) for level in side] for side in book.levels)
                number, time = self._symbols[book.coin], book.time * MILLISECOND
                out.add_book_update(number, time, ts_recv, bids, asks, flags=_IMAGE, are_pairs=True)
            case "activeAssetCtx":
                self._context(_parse_context(message.data), ts_recv, out)
            case "candle":
                candles = _parse_candles(message.data)
                for candle in candles if isinstance(candles, list) else [candles]:
                    self._candle(candle, ts_recv, out)
            case "subscriptionResponse":
                return _answered(_parse_answer(message.data))
            case "error":
                return _refused(_parse_text(message.data))
            case "pong":
                return Notice.HEARTBEAT
            case channel if channel in _LEFT_OUT:
                return _LEFT_OUT[channel]
            case channel:
                raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        return None

    def _candle(self, candle: _Candle, ts_recv: int, out: ColumnBuffer) -> None:
        add_candle(
            out,
            self._symbols[candle.s],
            ts_recv,
            start_ns=candle.t * MILLISECOND,
            interval_ns=span_ns(candle.i),
            prices=(candle.o, candle.h, candle.l, candle.c),
            volume=candle.v,
            trades=candle.n,
        )

    def _context(self, asset: _AssetContext, ts_recv: int, out: ColumnBuffer) -> None:
        number, context = self._symbols[asset.coin], asset.ctx
        add_funding(out, number, ts_recv, rate=context.funding, interval_ns=_HOUR)
        add_mark_price(
            out, number, ts_recv, mark_price=context.mark_px, index_price=context.oracle_px
        )
        unit = InterestUnit.BASE
        add_open_interest(out, number, ts_recv, value=context.open_interest, unit=unit)

    def _trades(self, trades: list[_Trade], ts_recv: int, out: ColumnBuffer) -> None:
        fresh = self._fresh
        for trade in trades:
            out.add_trade(
                self._symbols[trade.coin],
                trade.time * MILLISECOND,
                ts_recv,
                trade.tid,
                trade.px,
                trade.sz,
                _SIDES[trade.side],
                trade.tid,
                flags=int(Flag.LAST | Flag.SNAPSHOT if trade.coin in fresh else Flag.LAST),
            )
        if fresh:
            fresh.difference_update([trade.coin for trade in trades])

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        kind, data = message["channel"], message["data"]
        if kind not in _TYPES.values():
            return ()
        items = data if isinstance(data, list) else [data]
        coins = [item["s"] if kind == _TYPES["candles"] else item["coin"] for item in items]
        return [f"{kind}:{coin}" for coin in coins]

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return (symbol.startswith("@") or "/" in symbol) == (market == "spot")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        body = orjson.dumps({"type": _LISTS[market]})
        return [RestRequest("/info", weight=20, body=body)]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if market == "perp":
            found: Iterable[Any] = answer["universe"]
            return found
        tokens = {token["index"]: token for token in answer["tokens"]}
        return [
            pair | {"legs": [tokens.get(index) for index in pair["tokens"]]}
            for pair in answer["universe"]
        ]

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        is_delisted = bool(entry.get("isDelisted"))
        return Listing(entry["name"], not is_delisted, "delisted" if is_delisted else "listed")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        if market == "perp":
            symbol, quote, settlement = entry["name"], "USD", "USDC"
            base = symbol.rpartition(":")[2]
            size_decimals = entry["szDecimals"]
        else:
            symbol = entry["name"]
            base, quote = (token["name"] for token in entry["legs"])
            settlement = quote
            size_decimals = entry["legs"][0]["szDecimals"]
        if type(size_decimals) is not int or not 0 <= size_decimals <= _SIZE_DECIMALS_MAX:
            raise ValueError(f"szDecimals is {size_decimals!r:.40}")
        price_decimals = max(0, _DECIMALS[market] - size_decimals)
        is_perpetual = market == "perp"
        return instrument(
            cls.venue,
            market,
            symbol,
            f"{base}-{quote}{'-PERP' if is_perpetual else ''}".upper(),
            base,
            quote,
            *(
                f"0.{'1':0>{places}}" if places else "1"
                for places in (price_decimals, size_decimals)
            ),
            contract=Contract.PERPETUAL if is_perpetual else Contract.SPOT,
            settlement=settlement,
        )


def _requests(method: str, streams: Sequence[str]) -> Iterator[bytes]:
    for stream in streams:
        kind, _, coin = stream.partition(":")
        wanted = {"type": kind, "coin": coin}
        if kind == _TYPES["candles"]:
            wanted["interval"] = _INTERVAL
        yield orjson.dumps({"method": method, "subscription": wanted})


def _answered(answer: _Answer) -> Control:
    if answer.method != "subscribe":
        return Notice.INFO
    return Ack((f"{answer.subscription.type}:{answer.subscription.coin}",))


def _refused(text: str) -> Control:
    """Read the subscription at the end of a refusal; one that is repeated stands."""
    words, begin, rest = text.partition("{")
    try:
        named = _parse_subscription(begin + rest)
    except msgspec.MsgspecError:
        return Refused(text)
    streams = (f"{named.type}:{named.coin}",)
    return Ack(streams) if words.startswith("Already subscribed") else Refused(text, streams)


adapter: type[FeedAdapter] = Hyperliquid
