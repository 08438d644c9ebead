"""OKX v5, spot, swap and futures: trades, quotes (`bbo-tbt`) and the book of 400 levels a side.

Reference: "OKX API v5": WebSocket, Order Book Trading / Market Data (with GET / Order book), Public
Data / Instruments.
Units: price, size are decimal text, times millisecond text. Sizes of swaps and futures count
contracts; the instrument's multiplier says what one is.
Traps:
- All markets share one address, and an instId is unique over them: an adapter of any market reads
  frames of all, given a mapping of their symbols joined.
- The client's `ping` and its `pong` are bare text, no JSON. 30 s without traffic end a connection.
- `prevSeqId` names the update before, -1 in a snapshot. It equals `seqId` in a keep-alive of a
  quiet book, and may exceed it once after maintenance: the chain holds in both cases.
- Frames from before 2023 have no `seqId` but a checksum; today's checksum is always 0. Neither is
  read: without numbers a book is unverifiable, and that is what zeros say.
- Levels have four members: price, size, one that is deprecated, number of orders.
- In pre-open and call auctions "the best ask may be lower than the best bid" (Order book channel).
- `trades` joins the fills of one taker order at one price; its side is the taker's. On subscribe
  it repeats the latest trade.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
import orjson
from msgspec import Meta

from ingestor.adapter import (
    INT64_MAX,
    MILLISECOND,
    TIME_MAX,
    TIME_MIN,
    Ack,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Contract,
    Control,
    DecodeMany,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Notice,
    Reconnect,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    RowClass,
    Rows,
    Sequential,
    Side,
    SizeUnit,
    UnknownMessage,
    VenueError,
    by_kind,
    flat,
    instrument,
    iso_text,
    milliseconds_ns,
    plain_integers,
    set_column,
    shape,
)

_CHANNELS: Final = {"trades": "trades", "quotes": "bbo-tbt", "book": "books"}
_DEPTH: Final = 400
_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)
_LAST: Final = int(Flag.LAST)
_RPI: Final = "1"  # the source of a trade: against a retail price improvement order
_RPI_FLAGS: Final = {_RPI: int(Flag.LAST | Flag.RPI)}
_LEVEL: Final = '["<price>","<size>","<text>","<text>"]'
_BEST: Final = '[["<price:{side}_price>","<size:{side}_size>","<text>","<text>"]]'
_BOOK_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        "tickers",
        "books5",
        "trades-all",
        "mark-price",
        "index-tickers",
        "funding-rate",
        "open-interest",
        "price-limit",
        "instruments",
        "status",
        "liquidation-orders",
        *("books50-l2-tbt", "books-l2-tbt", "books-elp", "books-elp-all", "books-rpi"),
        *("adl-warning", "estimated-price", "opt-summary", "economic-calendar"),
        *("event-contract-markets", "block-tickers", "public-struc-block-trades"),
        *("public-block-trades", "sprd-public-trades", "sprd-tickers", "sprd-bbo-tbt"),
        *("sprd-books5", "sprd-books-l2-tbt", "call-auction-details"),
    )
}
_CANDLES: Final = Filtered("candles")
_UPGRADE: Final = "64008"  # the connection will be closed for an upgrade of the service
_REFUSED: Final = re.compile(r"channel:([\w-]+),instId:([\w-]+)")
# Errors of the list that the venue calls temporary: service unavailable, timeout, too many
# requests, systems busy, system error.
_TEMPORARY: Final = frozenset({"50001", "50004", "50011", "50013", "50026"})
_MAGNITUDE_MAX: Final = 18  # powers of ten between a contract and its unit
_TYPES: Final = {"spot": "SPOT", "swap": "SWAP", "futures": "FUTURES"}
_MARKET: Final = Market(
    endpoints=(Endpoint("wss://ws.okx.com:8443/ws/v5/public"),),
    rest_url="https://www.okx.com",
    limits=Limits(
        streams_per_connection=240,
        streams_of_channel={"book": 25},  # "less than 30 channels" of 50 or 400 levels
        streams_per_subscribe=30,  # a request is at most 64 KB
        connects_per_s=2.0,  # 3 are allowed
        connects_burst=1,
        requests_per_s=3.0,
        requests_per_hour=480,
        # 40 books in 2 s and 20 instrument lists in 2 s, each counted for itself.
        rest=RestLimit(weight_per_s=5.0, weight_burst=10),
        ping_interval_s=20.0,
    ),
    book=BookRule(continuity=Continuity.PREVIOUS, may_cross=True),
)

# How frames begin as OKX sends them, which tells them apart; others are read too.
_BEGINS: Final = 27
_CHANNEL_OF: Final = {
    b'{"arg":{"channel":"trades",': "trades",
    b'{"arg":{"channel":"bbo-tbt"': "bbo-tbt",
    b'{"arg":{"channel":"books","': "books",
}
_beginning: Final = itemgetter(slice(_BEGINS))


# The texts of frequent frames. A quote with an empty side goes to `decode`.
_TRADE: Final = (
    '{"instId":"<text>","tradeId":"<int:sequence,trade_id_low>","px":"<price:price>",'
    '"sz":"<size:size>","side":"<side:buy=1|sell=2>","ts":"<ms:ts_event>","count":"<text>"'
)
_SHAPES: Final = (
    *(
        shape(
            RowClass.TRADE,
            '{"arg":{"channel":"trades","instId":"<symbol>"},"data":<[>'
            + _TRADE
            + more
            + "<row><]>}",
        )
        for more in (',"source":"0","seqId":<n>}', ',"source":"0"}', "}")
    ),
    shape(
        RowClass.QUOTE,
        '{"arg":{"channel":"bbo-tbt","instId":"<symbol>"},"data":<[>{"asks":'
        + _BEST.format(side="ask")
        + ',"bids":'
        + _BEST.format(side="bid")
        + ',"ts":"<ms:ts_event>","seqId":<int:sequence>}<row><]>}',
    ),
    shape(
        RowClass.LEVEL,
        '{"arg":{"channel":"books","instId":"<symbol>"},"action":"update","data":<[>{"asks":<[*>'
        + _LEVEL
        + '<level:asks><]>,"bids":<[*>'
        + _LEVEL
        + '<level:bids><]>,"ts":"<ms:ts_event>","checksum":<n>,"seqId":<int:first,last>,'
        '"prevSeqId":<int:previous>}<row><]>}',
    ),
)


class _Argument(msgspec.Struct, gc=False):
    instId: str  # noqa: N815  # the venue's name


class _Trade(msgspec.Struct, gc=False):
    tradeId: str  # noqa: N815  # the venue's name
    px: Any  # as text or bare: `float_hook` keeps the digits
    sz: Any
    side: str  # buy or sell
    ts: str  # ms
    source: str = "0"


class _Trades(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[_Trade]


class _Level(msgspec.Struct, array_like=True, gc=False):
    """Its other members are not read."""

    price: Any
    size: Any


class _Quote(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: str  # ms
    seqId: Sequential = 0  # noqa: N815  # the venue's name


class _Quotes(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[_Quote]


class _Update(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: str  # ms
    seqId: Sequential = 0  # noqa: N815  # the venue's name
    prevSeqId: Annotated[int, Meta(ge=-1, le=INT64_MAX)] = 0  # noqa: N815  # the venue's name


class _Book(msgspec.Struct, gc=False):
    arg: _Argument
    action: Literal["snapshot", "update"]
    data: list[_Update]


_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode
_NONE: Final = [_Level("0", "0")]


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = milliseconds_ns(plain_integers([one.ts for one in trades]))
    set_column(rows, "sequence", plain_integers([one.tradeId for one in trades]))
    set_column(rows, "side", [_SIDES.get(one.side, _NO_SIDE) for one in trades])
    rows["trade_id_low"] = rows["sequence"]
    sources = [one.source for one in trades]
    if _RPI in sources:
        set_column(rows, "flags", [_RPI_FLAGS.get(source, _LAST) for source in sources])
    return [one.px for one in trades], [one.sz for one in trades]


def _read_quotes(quotes: list[_Quote], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = milliseconds_ns(plain_integers([one.ts for one in quotes]))
    set_column(rows, "sequence", [one.seqId for one in quotes])
    bids = [(one.bids or _NONE)[0] for one in quotes]
    asks = [(one.asks or _NONE)[0] for one in quotes]
    return (
        [one.price for one in bids],
        [one.size for one in bids],
        [one.price for one in asks],
        [one.size for one in asks],
    )


def _spread(
    parsed: Sequence[_Trades] | Sequence[_Quotes],
    symbols: Mapping[str, int],
    ts_recv: Sequence[int],
    frames: Sequence[int],
) -> tuple[Sequence[Any], ...]:
    """Return the events of frames, with the columns that `ColumnBuffer.add_trades` takes."""
    numbers = [symbols[one.arg.instId] for one in parsed]
    return flat([one.data for one in parsed], numbers, ts_recv, frames)


def _append_book(
    payload: bytes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> None:
    book = _parse_book(payload)
    instrument = symbols[book.arg.instId]
    flags = _BOOK_FLAGS[book.action]
    for update in book.data:
        bids, asks = update.bids, update.asks
        is_cut = flags and max(len(bids), len(asks)) >= _DEPTH
        previous = update.prevSeqId
        out.levels(
            instrument,
            _time_ns(update.ts),
            ts_recv,
            update.seqId,
            update.seqId,
            [(one.price, one.size) for one in bids],
            [(one.price, one.size) for one in asks],
            0 if previous == -1 else previous,
            flags | Flag.PARTIAL if is_cut else flags,
            are_pairs=True,
        )


def _time_ns(text: str) -> int:
    [time] = plain_integers([text])
    if not TIME_MIN <= time * MILLISECOND <= TIME_MAX:
        raise ValueError(f"{text!r:.40} ms is no time between 2010 and 2100")
    return time * MILLISECOND


class Okx:
    venue: ClassVar[str] = "okx"
    reference: ClassVar[str] = "OKX API v5, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(_TYPES, _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("unsubscribe", streams)

    def ping(self) -> bytes | None:
        return b"ping"

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        channel = _CHANNEL_OF.get(_beginning(payload))
        if channel is None:
            try:
                message = orjson.loads(payload)
            except ValueError:
                if payload == b"pong":
                    return Notice.HEARTBEAT
                raise
            if "data" not in message:
                return self._event(message)
            channel = message["arg"]["channel"]
        symbols = self._symbols
        match channel:
            case "trades":
                trades = _parse_trades(payload)
                number = symbols[trades.arg.instId]
                for trade in trades.data:
                    out.add_trade(_read_trades, trade, number, ts_recv)
            case "bbo-tbt":
                quotes = _parse_quotes(payload)
                number = symbols[quotes.arg.instId]
                for quote in quotes.data:
                    out.add_quote(_read_quotes, quote, number, ts_recv)
            case "books":
                _append_book(payload, symbols, ts_recv, out)
            case _:
                return self._left_out(channel)
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        named = orjson.loads(payload)["arg"]
        channel, symbol = named["channel"], named["instId"]
        return (f"{channel}:{symbol}",) if channel in _CHANNELS.values() else ()

    @classmethod
    def decoder_of_many(cls, market: str, symbols: Mapping[str, int]) -> DecodeMany:
        def decode(
            payloads: list[bytes], ts_recv: list[int], frames: Sequence[int], out: ColumnBuffer
        ) -> Sequence[Control]:
            channels = [_CHANNEL_OF[_beginning(one)] for one in payloads]
            for channel, (some, *columns) in by_kind(channels, payloads, ts_recv, frames):
                if channel == "trades":
                    trades = list(map(_parse_trades, some))
                    out.add_trades(_read_trades, *_spread(trades, symbols, *columns))
                elif channel == "bbo-tbt":
                    quotes = list(map(_parse_quotes, some))
                    out.add_quotes(_read_quotes, *_spread(quotes, symbols, *columns))
                else:
                    for payload, received, out.frame in zip(some, *columns, strict=True):
                        _append_book(payload, symbols, received, out)
            return ()

        return decode

    def _left_out(self, channel: str) -> Control:
        if channel.startswith("candle"):
            return _CANDLES
        if channel not in _LEFT_OUT:
            raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        return _LEFT_OUT[channel]

    def _event(self, message: Any) -> Control:
        match message:
            case {"event": "subscribe", "arg": {"channel": channel, "instId": symbol}}:
                return Ack((f"{channel}:{symbol}",))
            case {"event": "notice", "code": code, "msg": str(text)}:
                return Reconnect(text) if code == _UPGRADE else Notice.INFO
            case {"event": "error", "code": code, "msg": str(text)}:
                named = tuple(":".join(found) for found in _REFUSED.findall(text))
                return Refused(f"{code} {text}", named)
            case {"event": "unsubscribe" | "channel-conn-count" | "channel-conn-count-error"}:
                return Notice.INFO
        raise UnknownMessage(self.venue, f"{message!r:.60}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v5/public/instruments", {"instType": _TYPES[market]})]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        code = str(answer["code"])
        if code != "0":
            text = str(answer.get("msg", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["data"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry["instType"] != _TYPES[market]:
            return None
        return Listing(entry["instId"], entry["state"] == "live", entry["state"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return _spot(entry) if market == "spot" else _contract(market, entry)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        raise UnknownMessage(self.venue, "books are seeded on the socket")

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        return RestRequest("/api/v5/market/books", {"instId": symbol, "sz": str(depth)})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """Images have no number: the document shows none."""
        [image] = orjson.loads(body)["data"]
        bids, asks = ([(level[0], level[1]) for level in image[side]] for side in ("bids", "asks"))
        return RestSnapshot(0, bids, asks)


def _operations(operation: str, streams: Sequence[str]) -> Iterator[bytes]:
    size = _MARKET.limits.streams_per_subscribe
    for start in range(0, len(streams), size):
        pairs = [stream.partition(":") for stream in streams[start : start + size]]
        arguments = [{"channel": channel, "instId": symbol} for channel, _, symbol in pairs]
        yield orjson.dumps({"op": operation, "args": arguments})


def _spot(one: Any) -> Instrument:
    base, quote = one["baseCcy"], one["quoteCcy"]
    return instrument(
        Okx.venue,
        "spot",
        one["instId"],
        f"{base}-{quote}".upper(),
        base,
        quote,
        one["tickSz"],
        one["lotSz"],
        settlement=quote,
    )


def _contract(market: str, one: Any) -> Instrument:
    """The underlying names the pair. A family may differ from it (BTC-USD_UM beside BTC-USD), and
    then it keeps the canonical names apart."""
    base, _, quote = one["uly"].partition("-")
    family = one.get("instFamily") or one["uly"]
    is_future = market == "futures"
    expiry_ns = int(one["expTime"]) * MILLISECOND if is_future else 0
    suffix = iso_text(expiry_ns)[:10].replace("-", "") if is_future else "PERP"
    try:
        multiplier = Decimal(one["ctVal"]) * Decimal(one["ctMult"] or "1")
    except ArithmeticError:
        numbers = f"ctVal {one['ctVal']!r:.40}, ctMult {one['ctMult']!r:.40}"
        raise ValueError(f"{numbers} are no numbers") from None
    if abs(multiplier.adjusted()) > _MAGNITUDE_MAX:  # 1e999999999 would become a gigabyte of text
        raise ValueError(f"one contract is {multiplier} units")
    return instrument(
        Okx.venue,
        market,
        one["instId"],
        f"{family}-{suffix}".upper(),
        base,
        quote,
        one["tickSz"],
        one["lotSz"],
        contract=Contract.FUTURE if is_future else Contract.PERPETUAL,
        settlement=one["settleCcy"],
        size_unit=SizeUnit.CONTRACT,
        multiplier=f"{multiplier.normalize():f}",
        expiry_ns=expiry_ns,
    )


adapter: type[FeedAdapter] = Okx
