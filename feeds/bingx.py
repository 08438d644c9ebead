"""BingX, spot and USDT perpetual swaps: trades, best bid and ask, books by increments or images.

Reference: BingX API docs: Swap "WebSocket Market Data" (Latest Trade Detail, Book Ticker Streams,
Incremental Depth, Partial Order Book Depth), Spot "Websocket Market Data", REST "USDT-M Perp
Futures symbols", "Spot trading symbols".
Units: prices and sizes are decimal text, in lists bare numbers; times are milliseconds. Sizes are
in base, those of swaps too.
Traps:
- Every frame is gzip. The swap's server sends the text Ping and wants Pong; spot's sends JSON with
  an id that is to be repeated.
- `m` of a trade: the buyer was the maker, so the seller is the aggressor.
- Trades of swaps have no id.
- `incrDepth` begins with action `all`; `lastUpdateId` then rises by one. `depth<n>` is an image
  each time. Asks come from the highest down; a side may be an object of sizes by price.
- An answer to a request has its id, and code 0 where it was granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    OTHER_BOOK,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Milliseconds,
    Notice,
    PlainFeed,
    Refused,
    Reply,
    Requests,
    RestLimit,
    RestRequest,
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_mark_price,
    gunzipped,
    instrument,
    whole_number,
)

_INCREMENTS: Final = "incrDepth"
_FLAGS: Final = {"all": int(Flag.SNAPSHOT), "update": 0}
_IMAGE: Final = int(Flag.SNAPSHOT | Flag.PARTIAL)
_DEPTH: Final = re.compile(r"depth(\d{1,4})(@\d+ms)?")
_LEFT_OUT: Final = {"kline", "ticker", "lastPrice"}
_STREAMS: Final = {"trades": "trade", "quotes": "bookTicker", "mark_price": "markPrice"}
_STANDARD: Final = frozenset({"trades", "quotes", "book"})
_CHANNELS: Final = {"market": _STANDARD, "swap-market": _STANDARD | {"mark_price"}}
_PATHS: Final = {
    "spot": "/openApi/spot/v1/common/symbols",
    "swap": "/openApi/swap/v2/quote/contracts",
}
_ONLINE: Final = 1
# Too frequent, network, service busy.
_TEMPORARY: Final = frozenset({"100410", "100500", "1006", "403", "80012"})
_DUPLICATE: Final = "duplicate"  # what a refusal says of a stream that is subscribed to
_FRAME_BYTES_MAX: Final = 4 << 20
_PLACES_MAX: Final = 18


class _Trade(msgspec.Struct, gc=False):
    p: Any  # as text or bare: `float_hook` keeps the digits
    q: Any
    T: Milliseconds
    m: bool
    s: str = ""
    t: Any = 0  # of spot


class _Quote(msgspec.Struct, gc=False):
    b: Any
    B: Any
    a: Any
    A: Any
    s: str
    T: Milliseconds | None = None
    E: Milliseconds | None = None
    u: Sequential = 0


class _Mark(msgspec.Struct, gc=False):
    p: Any
    E: Milliseconds


_Side = list[tuple[Any, Any]] | dict[str, Any]


class _Levels(msgspec.Struct, rename="camel", gc=False):
    bids: _Side
    asks: _Side
    action: Literal["all", "update"] = "update"
    last_update_id: Sequential = 0
    time: Milliseconds | None = None


class _Message(msgspec.Struct, rename="camel", gc=False):
    code: Any = None
    data_type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: Any = None
    msg: Any = ""
    ping: Any = None
    time: Any = None
    ts: Milliseconds | None = None  # of swaps
    timestamp: Milliseconds | None = None  # of spot


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_trades: Final = msgspec.json.Decoder(list[_Trade], float_hook=str).decode
_parse_quote: Final = msgspec.json.Decoder(_Quote, float_hook=str).decode
_parse_mark: Final = msgspec.json.Decoder(_Mark, float_hook=str).decode
_parse_levels: Final = msgspec.json.Decoder(_Levels, float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(float_hook=str).decode

_IMAGES: Final = BookRule(Continuity.NONE, images_only=True)


def _market(host: str, path: str, numbers: TradeNumbers, depths: Sequence[int]) -> Market:
    return Market(
        endpoints=(Endpoint(f"wss://{host}/{path}", _CHANNELS[path]),),
        rest_url="https://open-api.bingx.com",
        limits=Limits(
            streams_per_connection=150,  # 200 are allowed
            streams_per_subscribe=1,
            connects_per_s=1.0,
            connects_burst=5,
            requests_per_s=10.0,
            rest=RestLimit("market", weight_per_s=10.0, weight_burst=50),  # 500 in 10 s
            frame_bytes_max=_FRAME_BYTES_MAX,
        ),
        book=BookRule(Continuity.INCREMENT, depth_max=1_000),
        books=(
            BookOffer(1_000, 200),
            *(
                BookOffer(depth, 500, replace(_IMAGES, depth_max=depth), is_plain=True)
                for depth in depths
            ),
        ),
        trade_numbers=numbers,
    )


class Bingx(PlainFeed):
    venue: ClassVar[str] = "bingx"
    reference: ClassVar[str] = "BingX API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": _market(
            "open-api-ws.bingx.com", "market", TradeNumbers.ASCENDING, (100, 50, 20, 10, 5)
        ),
        "swap": _market(
            "open-api-swap.bingx.com", "swap-market", TradeNumbers.NONE, (100, 50, 20, 10, 5)
        ),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(1)
        self._depth = 0  # of images; 0 = increments

    def choose_book(self, offer: BookOffer) -> None:
        self._depth = offer.depth if offer.rule is not None else 0

    def stream(self, channel: str, symbol: str) -> str:
        if channel == "book":
            interval = "" if self._market == "spot" else "@500ms"
            return f"{symbol}@{f'depth{self._depth}{interval}' if self._depth else _INCREMENTS}"
        return f"{symbol}@{_STREAMS[channel]}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams):
            yield orjson.dumps({"id": str(number), "reqType": "sub", "dataType": stream})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams, keep=False):
            yield orjson.dumps({"id": str(number), "reqType": "unsub", "dataType": stream})

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        text = gunzipped(payload, _FRAME_BYTES_MAX)
        if text == b"Ping":
            return Reply(b"Pong")
        message = _parse(text)
        if message.ping is not None:
            return Reply(orjson.dumps({"pong": message.ping, "time": message.time}))
        if message.data_type and message.data != b"null":
            return self._data(message, ts_recv, out)
        if message.id is None:
            raise UnknownMessage(self.venue, f"{text[:60]!r}")
        streams = self._requests.answered(message.id)
        if message.code == 0:
            return Ack(streams) if streams else Notice.INFO
        words = f"{message.code} {message.msg}"
        return Ack(streams) if _DUPLICATE in words and streams else Refused(words, streams)

    def _data(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> Control | None:
        symbol, _, kind = message.data_type.partition("@")
        match kind:
            case "trade":
                self._trades(symbol, message.data, ts_recv, out)
            case "bookTicker":
                self._quote(_parse_quote(message.data), ts_recv, out)
            case "markPrice":
                mark = _parse_mark(message.data)
                number, time = self._symbols[symbol], mark.E * MILLISECOND
                add_mark_price(out, number, ts_recv, mark_price=mark.p, ts_event=time)
            case "incrDepth":
                if self._depth:
                    return OTHER_BOOK
                levels = _parse_levels(message.data)
                flags = _FLAGS[levels.action]
                self._levels(symbol, message, levels, flags, ts_recv, out)
            case _ if (found := _DEPTH.fullmatch(kind)) is not None:
                if int(found[1]) != self._depth:
                    return OTHER_BOOK
                levels = _parse_levels(message.data)
                self._levels(symbol, message, levels, _IMAGE, ts_recv, out)
            case _:
                name = kind.partition("_")[0]
                if name not in _LEFT_OUT:
                    raise UnknownMessage(self.venue, f"stream {message.data_type!r:.60}")
                return Filtered(name)
        return None

    def _trades(self, symbol: str, data: msgspec.Raw, ts_recv: int, out: ColumnBuffer) -> None:
        is_list = bytes(data)[:1] == b"["
        number = self._symbols[symbol]
        for trade in _parse_trades(data) if is_list else [_parse_trade(data)]:
            if trade.s not in {symbol, ""}:
                raise DecodeError(self.venue, f"a trade of {trade.s!r:.40} of {symbol!r:.40}")
            identifier = whole_number(trade.t)
            out.add_trade(
                number,
                trade.T * MILLISECOND,
                ts_recv,
                identifier,
                trade.p,
                trade.q,
                int(Side.ASK if trade.m else Side.BID),
                identifier,
            )

    def _quote(self, quote: _Quote, ts_recv: int, out: ColumnBuffer) -> None:
        bid, ask = _best(quote.b, quote.B), _best(quote.a, quote.A)
        time, flags = _time_of((quote.T, quote.E), ts_recv)
        number = self._symbols[quote.s]
        out.add_quote(number, time, ts_recv, quote.u, *bid, *ask, flags=flags | Flag.LAST)

    def _levels(
        self,
        symbol: str,
        message: _Message,
        levels: _Levels,
        flags: int,
        ts_recv: int,
        out: ColumnBuffer,
    ) -> None:
        time, no_time = _time_of((levels.time, message.ts, message.timestamp), ts_recv)
        bids, asks = (
            list(side.items()) if isinstance(side, dict) else side
            for side in (levels.bids, levels.asks)
        )
        last = levels.last_update_id
        instrument = self._symbols[symbol]
        out.add_book_update(
            instrument,
            time,
            ts_recv,
            bids,
            asks,
            first=last,
            last=last,
            flags=flags | no_time,
            are_pairs=True,
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        stream = orjson.loads(gunzipped(payload, _FRAME_BYTES_MAX))["dataType"]
        kind = stream.partition("@")[2]
        found = _DEPTH.fullmatch(kind)
        if found is not None:  # whatever its interval: symbols differ in what they have
            interval = "" if self._market == "spot" else "@500ms"
            return (f"{stream.partition('@')[0]}@depth{found[1]}{interval}",)
        return (stream,) if kind in {*_STREAMS.values(), _INCREMENTS} else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest(_PATHS[market])]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer: Any = _parse_list(body)
        code = str(answer["code"])
        if code != "0":
            text = str(answer.get("msg", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["data"]["symbols"] if market == "spot" else answer["data"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        status = entry["status"]
        return Listing(entry["symbol"], status == _ONLINE, f"status {status}")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, _, quote = entry["symbol"].partition("-")
        if market == "spot":
            increments = str(entry["tickSize"]), str(entry["stepSize"])
        else:
            increments = _increment(entry["pricePrecision"]), _increment(entry["quantityPrecision"])
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}{'' if market == 'spot' else '-PERP'}".upper(),
            base,
            quote,
            *increments,
            contract=Contract.SPOT if market == "spot" else Contract.PERPETUAL,
            settlement=quote,
        )


def _time_of(times: Iterable[int | None], ts_recv: int) -> tuple[int, int]:
    """Return the first time that a message has, in ns, and a flag where it has none."""
    for time in times:
        if time is not None:
            return time * MILLISECOND, 0
    return ts_recv, int(Flag.NO_VENUE_TIME)


def _best(price: Any, size: Any) -> tuple[Any, Any]:
    return (price, size) if price else ("0", "0")


def _increment(places: object) -> str:
    if type(places) is not int or not 0 <= places <= _PLACES_MAX:
        raise ValueError(f"{places!r:.40} decimals")
    return f"0.{'1':0>{places}}" if places else "1"


adapter: type[FeedAdapter] = Bingx
