"""Kraken spot, websocket API v2: trades, best bid and ask, book deltas with checksum.

Reference: Kraken "Spot WebSocket API v2" (trade, ticker, book, ping, status) and "Book checksum
(v2)", REST "Get Tradable Asset Pairs", read 2026-11-21.
Units: prices and sizes are bare JSON numbers, read with their digits kept; times are RFC 3339.
Traps:
- `side` of a trade is the taker's.
- The checksum covers the ten best levels a side as the instrument's own precision prints them, so
  exponents are `pair_decimals` and `lot_decimals`, not the (sometimes coarser) tick size. It proves
  the whole of a book of ten levels, and no more of deeper ones (25 to 1,000, where that is chosen).
- Levels that fall out of the subscribed depth are not removed by the venue: BookRule.depth_max.
- Bitcoin and Dogecoin are XBT and XDG in REST, BTC and DOGE here; the venue's symbols of this
  adapter are those of the websocket, as BTC/USD.
- A refused symbol shows only in its own answer to the subscribe request; heartbeats go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Final, Literal
from zlib import crc32

import msgspec
import orjson
from msgspec import Meta

from ingestor.adapter import (
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    LostTrades,
    Market,
    Notice,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    RowClass,
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    iso_event_ns,
    shape,
)

from . import history, instruments, market_data

BOOK_DEPTH: Final = 10  # levels a side, unless another is chosen
_BOOKS: Final = tuple(BookOffer(depth) for depth in (BOOK_DEPTH, 25, 100, 500, 1_000))

_UNTIMED: Final = int(Flag.NO_VENUE_TIME)
_LAST_UNTIMED: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_NO_TIME: Final = "1970-01-01T00:00:00"
_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_AGGRESSOR: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)

# About 150 connects in 10 minutes; neither streams nor requests have a stated limit.
_LIMITS: Final = Limits(
    connects_per_s=0.15,
    connects_burst=30,
    requests_per_s=5.0,
    rest=RestLimit(weight_per_s=0.8, weight_burst=1),  # public calls: about one a second
    ping_interval_s=30.0,  # the venue closes what is silent for a minute
)


def level_digits(price: int, size: int) -> str:
    """Return what one level, as scaled integers, contributes to the checksum."""
    return f"{price}{size}"


def book_checksum(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
    """Return the CRC32 of a book's ten best levels a side."""
    return crc32("".join(level_digits(*level) for level in (*asks[:10], *bids[:10])).encode())


# The texts of frequent frames. Resent trades, snapshots and tickers without time go to `decode`.
_PAIR: Final = '{"price":<price>,"qty":<size>}'
_SHAPES: Final = (
    shape(
        RowClass.LEVEL,
        '{"channel":"book","type":"update","data":<[>{"symbol":"<symbol>",'
        f'"bids":<[*>{_PAIR}<level:bids><]>,"asks":<[*>{_PAIR}<level:asks><]>,'
        '"checksum":<int:check_value>,"timestamp":"<iso:ts_event>"}<row><]>}',
        flags=int(Flag.CHECKSUM),
    ),
    shape(
        RowClass.TRADE,
        '{"channel":"trade","type":"update","data":<[>{"symbol":"<symbol>",'
        '"side":"<side:buy=1|sell=2>","price":<price:price>,"qty":<size:size>,"ord_type":"<text>",'
        '"trade_id":<int:sequence,trade_id_low>,"timestamp":"<iso:ts_event>"}<row><]>}',
    ),
    shape(
        RowClass.QUOTE,
        '{"channel":"ticker","type":"update","data":<[>{"symbol":"<symbol>",'
        '"bid":<price:bid_price>,"bid_qty":<size:bid_size>,'
        '"ask":<price:ask_price>,"ask_qty":<size:ask_size>,'
        '"last":<number>,"volume":<number>,"vwap":<number>,"low":<number>,"high":<number>,'
        '"change":<number>,"change_pct":<number>,"timestamp":"<iso:ts_event>"}<row><]>}',
    ),
)


class _Trade(msgspec.Struct, gc=False):
    """Numbers whose digits matter are untyped, here and below: `float_hook` leaves them text."""

    symbol: str
    side: str  # buy or sell: the taker's
    price: Any
    qty: Any
    trade_id: Sequential
    timestamp: str


class _Ticker(msgspec.Struct, gc=False):
    symbol: str
    bid: Any
    bid_qty: Any
    ask: Any
    ask_qty: Any
    timestamp: str | None = None  # not in frames recorded before 2025


class _Level(msgspec.Struct, gc=False):
    price: Any
    qty: Any


class _Book(msgspec.Struct, gc=False):
    symbol: str
    bids: list[_Level]
    asks: list[_Level]
    checksum: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    timestamp: str | None = None  # not in older snapshots


class _Trades(msgspec.Struct, gc=False, tag_field="channel", tag="trade"):
    type: Literal["snapshot", "update"]
    data: list[_Trade]


class _Tickers(msgspec.Struct, gc=False, tag_field="channel", tag="ticker"):
    type: str
    data: list[_Ticker]


class _Books(msgspec.Struct, gc=False, tag_field="channel", tag="book"):
    type: Literal["snapshot", "update"]
    data: list[_Book]


class _Heartbeat(msgspec.Struct, gc=False, tag_field="channel", tag="heartbeat"):
    """Each connection has one a second."""


_Data = _Trades | _Tickers | _Books

_parse: Final = msgspec.json.Decoder(_Data | _Heartbeat, float_hook=str).decode
_pair: Final = attrgetter("price", "qty")


def _append(frame: _Data, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer) -> None:
    match frame:
        case _Trades():
            flags = int(Flag.LAST) | _FLAGS[frame.type]
            for trade in frame.data:
                number, side = trade.trade_id, _AGGRESSOR.get(trade.side, _NO_SIDE)
                out.add_trade(
                    symbols[trade.symbol],
                    iso_event_ns(trade.timestamp),
                    ts_recv,
                    number,
                    trade.price,
                    trade.qty,
                    side,
                    number,
                    flags=flags,
                )
        case _Tickers():
            for ticker in frame.data:
                time = ticker.timestamp
                is_untimed = time is None or time.startswith(_NO_TIME)  # before the first quote
                out.add_quote(
                    symbols[ticker.symbol],
                    ts_recv if is_untimed else iso_event_ns(time or ""),
                    ts_recv,
                    0,
                    ticker.bid,
                    ticker.bid_qty,
                    ticker.ask,
                    ticker.ask_qty,
                    flags=_LAST_UNTIMED if is_untimed else int(Flag.LAST),
                )
        case _Books():
            flags = _FLAGS[frame.type]
            for book in frame.data:
                time = book.timestamp
                out.add_book_update(
                    symbols[book.symbol],
                    ts_recv if time is None else iso_event_ns(time),
                    ts_recv,
                    list(map(_pair, book.bids)),
                    list(map(_pair, book.asks)),
                    flags=flags if time is not None else flags | _UNTIMED,
                    checksum=book.checksum,
                    are_pairs=True,
                )


class Kraken:
    """One connection to Kraken's public websocket API v2."""

    venue: ClassVar[str] = "kraken"
    reference: ClassVar[str] = "Kraken Spot WebSocket API v2, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            (Endpoint("wss://ws.kraken.com/v2", frozenset(market_data.STREAMS)),),
            "https://api.kraken.com",
            _LIMITS,
            BookRule(
                Continuity.NONE,
                depth_max=BOOK_DEPTH,
                checksum=book_checksum,
                checksum_depth=10,
                checksum_text=level_digits,
            ),
            _BOOKS,
            TradeNumbers.CONSECUTIVE,
            recorded="2026-08",
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._requests = 0
        self._channels: dict[int, str] = {}  # request id -> the channel subscribed to
        self._depth = BOOK_DEPTH

    def choose_book(self, offer: BookOffer) -> None:
        self._depth = offer.depth

    def stream(self, channel: str, symbol: str) -> str:
        name = _book_name(self._depth) if channel == "book" else market_data.STREAMS[channel]
        return name if name == market_data.PAIRS else f"{name}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for channel, symbols in _by_channel(streams):
            frame = self._request("subscribe", channel, symbols)
            self._channels[self._requests] = channel
            yield frame

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for channel, symbols in _by_channel(streams):
            yield self._request("unsubscribe", channel, symbols)

    def _request(self, method: str, channel: str, symbols: Sequence[str]) -> bytes:
        self._requests += 1
        name, _, depth = channel.partition("-")
        parameters = {"channel": name, "symbol": symbols, **market_data.PARAMETERS[name]}
        if name == market_data.PAIRS:
            del parameters["symbol"]  # it has all
        if name == "book":
            parameters["depth"] = int(depth or BOOK_DEPTH)
        if method == "unsubscribe":
            del parameters["snapshot"]
        return orjson.dumps({"method": method, "params": parameters, "req_id": self._requests})

    def ping(self) -> bytes | None:
        return b'{"method":"ping"}'

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        try:
            frame = _parse(payload)
        except msgspec.ValidationError as failure:
            channel = market_data.channel_of(payload)
            if channel is not None:
                return market_data.append(channel, self._symbols, payload, ts_recv, out)
            return self._other(payload, failure)
        if isinstance(frame, _Heartbeat):
            return Notice.HEARTBEAT
        _append(frame, self._symbols, ts_recv, out)
        return None

    def history_request(self, symbol: str, lost: LostTrades) -> RestRequest | None:
        return history.request(symbol, lost)

    def decode_history(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the past trades of a REST answer, oldest first.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        history.append(self.venue, self._symbols[symbol], body, ts_recv, out)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        channel = message["channel"]
        if channel not in market_data.PARAMETERS:
            return ()
        channel = _book_name(self._depth) if channel == "book" else channel
        return (
            (channel,)
            if channel == market_data.PAIRS
            else [f"{channel}:{entry['symbol']}" for entry in message["data"]]
        )

    def streams_asked(self, payload: bytes) -> Sequence[str]:
        request = orjson.loads(payload)
        parameters = request["params"]
        if request["method"] != "subscribe" or parameters["channel"] != "book":
            return ()
        return [_stream_of(parameters, symbol) for symbol in parameters["symbol"]]

    def _other(self, payload: bytes, failure: msgspec.ValidationError) -> Control:
        """Read what brings no rows: answers (one for each symbol) and other channels."""
        message = orjson.loads(payload)
        match message:
            case {"method": "pong"}:
                return Notice.HEARTBEAT
            case {"channel": "status"}:
                return Notice.INFO
            case {"channel": "level3"}:
                return Filtered("not_subscribed")
            case {"channel": "trade" | "ticker" | "book"}:
                raise DecodeError(self.venue, str(failure))
            case {"method": "subscribe", "success": True, "result": {"channel": market_data.PAIRS}}:
                return Ack((market_data.PAIRS,))
            case {"method": "subscribe", "success": True, "result": result}:
                return Ack((_stream_of(result, result["symbol"]),))
            case {"method": "subscribe", "success": False, "error": str(text)}:
                return self._refused(text, message)
            case {"method": "unsubscribe", "success": bool()}:
                return Notice.INFO  # refused when it was not subscribed, which is what we want
            case {"error": str(text)} | {"Error": str(text)}:
                return Refused(text)
        raise UnknownMessage(self.venue, f"{payload[:120]!r}")

    def _refused(self, text: str, message: Any) -> Control:
        symbol, channel = message.get("symbol"), self._channels.get(message.get("req_id"))
        streams = () if symbol is None or channel is None else (f"{channel}:{symbol}",)
        streams = (market_data.PAIRS,) if channel == market_data.PAIRS else streams
        return Ack(streams) if text.startswith("Already subscribed") else Refused(text, streams)

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return (RestRequest("/0/public/AssetPairs"),)

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        return instruments.entries(body)

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return instruments.listing(entry)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return instruments.parse(entry)

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        base, _, quote = symbol.partition("/")
        rest = instruments.REST_ASSETS
        pair = f"{rest.get(base, base)}/{rest.get(quote, quote)}"
        return RestRequest("/0/public/Depth", {"pair": pair, "count": str(depth)})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """Images have no number. They name their pair as REST does, by a name of its own."""
        answer = orjson.loads(body)
        if answer["error"]:
            raise DecodeError(self.venue, f"{symbol}: {answer['error']!r:.80}")
        result = answer["result"]
        [pair] = result
        image = result[pair]
        bids, asks = (
            [(str(price), str(size)) for price, size, _ in image[side]] for side in ("bids", "asks")
        )
        return RestSnapshot(0, bids, asks)

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        raise UnknownMessage(self.venue, "book snapshots come on the socket")


def _book_name(depth: int) -> str:
    return "book" if depth == BOOK_DEPTH else f"book-{depth}"


def _stream_of(parameters: Any, symbol: object) -> str:
    """Return the stream that the parameters of a request, or of its answer, name."""
    channel = parameters["channel"]
    name = _book_name(parameters.get("depth", BOOK_DEPTH)) if channel == "book" else channel
    return f"{name}:{symbol}"


def _by_channel(streams: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Group streams into requests of one channel each."""
    size = _LIMITS.streams_per_subscribe
    symbols_of: dict[str, list[str]] = {}
    for stream in streams:
        channel, _, symbol = stream.partition(":")
        symbols_of.setdefault(channel, []).append(symbol)
    for channel, symbols in symbols_of.items():
        for start in range(0, len(symbols), size):
            yield channel, symbols[start : start + size]


adapter: type[FeedAdapter] = Kraken
