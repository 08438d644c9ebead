"""Kraken spot, websocket API v2: trades, best bid and ask, book deltas with checksum.

Reference: Kraken "Spot WebSocket API v2" (trade, ticker, book, ping, status) and "Book checksum
(v2)", REST "Get Tradable Asset Pairs", read 2026-11-21.
Units: prices and sizes are bare JSON numbers, read with their digits kept; times are RFC 3339.
Traps:
- `side` of a trade is the taker's.
- The checksum covers the ten best levels a side as the instrument's own precision prints them, so
  exponents are `pair_decimals` and `lot_decimals`, not the (sometimes coarser) tick size. The depth
  of ten that we subscribe to is the whole of what it proves.
- Levels that fall out of the subscribed depth are not removed by the venue: BookRule.depth_max.
- Bitcoin and Dogecoin are XBT and XDG in REST, BTC and DOGE here; the venue's symbols of this
  adapter are those of the websocket, as BTC/USD.
- A refused symbol shows only in its own answer to the subscribe request; heartbeats go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal
from zlib import crc32

import msgspec
import orjson

from ingestor.adapter import (
    Ack,
    BookRule,
    Continuity,
    Control,
    Endpoint,
    FeedAdapter,
    Filtered,
    Limits,
    Market,
    Notice,
    Refused,
    RestRequest,
)
from ingestor.batch import Reader, TickBuffer, fill
from ingestor.errors import DecodeError, UnknownMessage
from ingestor.instruments import Instrument, instrument
from ingestor.rows import Flag, Rows, Side
from ingestor.timestamps import iso_column_ns, iso_ns

BOOK_DEPTH: Final = 10  # levels a side; the venue offers 10, 25, 100, 500 and 1000

_LAST: Final = int(Flag.LAST)
_UNTIMED: Final = int(Flag.NO_VENUE_TIME)
_LAST_UNTIMED: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_AGGRESSOR: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}

_CHANNEL: Final = {"trades": "trade", "quotes": "ticker", "book": "book"}
_PARAMETERS: Final[Mapping[str, Mapping[str, object]]] = {
    "trade": {"snapshot": True},  # the last 50, which fill what a reconnect missed
    "ticker": {"snapshot": True, "event_trigger": "bbo"},
    "book": {"snapshot": True, "depth": BOOK_DEPTH},
}
# About 150 connects in 10 minutes; neither streams nor requests have a stated limit.
_LIMITS: Final = Limits(
    connects_per_s=0.2,
    connects_burst=30,
    requests_per_s=5.0,
    ping_interval_s=30.0,  # the venue closes what is silent for a minute
)
_TRADING: Final = {"online", "post_only", "limit_only", "reduce_only"}
_ASSETS: Final = {"XBT": "BTC", "XDG": "DOGE"}  # REST name -> websocket name


def level_digits(price: int, size: int) -> str:
    """Return what one level, as scaled integers, contributes to the checksum."""
    return f"{price}{size}"


def book_checksum(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
    """Return the CRC32 of a book's ten best levels a side."""
    return crc32("".join(level_digits(*level) for level in (*asks[:10], *bids[:10])).encode())


class _Level(msgspec.Struct, gc=False):
    price: Any
    qty: Any


class _Entry(msgspec.Struct, gc=False):
    """What we read of a ticker or a book: parsing into it is faster than into dicts.

    Numbers whose digits matter are untyped: `float_hook` leaves them their text.
    """

    symbol: str
    timestamp: str | None = None
    bid: Any = None
    bid_qty: Any = None
    ask: Any = None
    ask_qty: Any = None
    bids: list[_Level] | None = None
    asks: list[_Level] | None = None
    checksum: int = -1  # absent: no CRC32


class _Frame(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None
    data: list[_Entry] | None = None


class _Book(msgspec.Struct, gc=False):
    """A book alone: the fewer members, the faster."""

    symbol: str
    bids: list[_Level]
    asks: list[_Level]
    checksum: int = -1
    timestamp: str | None = None


class _BookFrame(msgspec.Struct, gc=False):
    channel: str
    type: str
    data: list[_Book]


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]  # the taker's
    price: Any
    qty: Any
    trade_id: int
    timestamp: str


class _TradeFrame(msgspec.Struct, gc=False):
    channel: str
    type: Literal["snapshot", "update"]
    data: list[_Trade]


_parse: Final = msgspec.json.Decoder(_Frame, float_hook=str).decode
_parse_trades: Final = msgspec.json.Decoder(_TradeFrame, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_BookFrame, float_hook=str).decode
# Books and trades are told by how Kraken begins them: {"channel":"book", {"channel":"trade". Should
# that change, books are still read the general way, and trades by their channel.
_NAME_AT, _BOOK = 12, ord("b")
_TRADES_BEGIN: Final = b'{"channel":"trade"'


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[Any]]:
    rows["ts_event"] = iso_column_ns([one.timestamp for one in trades])
    fill(rows, "sequence", [one.trade_id for one in trades])
    fill(rows, "side", [_AGGRESSOR[one.side] for one in trades])
    rows["trade_id_low"] = rows["sequence"]
    return [one.price for one in trades], [one.qty for one in trades]


def _read_resent(trades: list[_Trade], rows: Rows) -> Sequence[list[Any]]:
    rows["flags"] = Flag.LAST | Flag.SNAPSHOT
    return _read_trades(trades, rows)


_TRADE_READERS: Final[dict[str, Reader]] = {"update": _read_trades, "snapshot": _read_resent}


class Kraken:
    """One connection to Kraken's public websocket API v2."""

    venue: ClassVar[str] = "kraken"
    reference: ClassVar[str] = "Kraken Spot WebSocket API v2, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            (Endpoint("wss://ws.kraken.com/v2"),),
            "https://api.kraken.com",
            _LIMITS,
            BookRule(
                Continuity.NONE,
                depth_max=BOOK_DEPTH,
                checksum=book_checksum,
                checksum_depth=10,
                checksum_text=level_digits,
            ),
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._requests = 0
        self._channels: dict[int, str] = {}  # request id -> the channel subscribed to
        self._decoders = {"ticker": self._quotes, "book": self._book}

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNEL[channel]}:{symbol}"

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
        parameters = {"channel": channel, "symbol": symbols, **_PARAMETERS[channel]}
        if method == "unsubscribe":
            del parameters["snapshot"]
        return orjson.dumps({"method": method, "params": parameters, "req_id": self._requests})

    def ping(self) -> bytes | None:
        return b'{"method":"ping"}'

    def decode(self, payload: bytes, ts_recv: int, out: TickBuffer) -> Control | None:
        try:
            if payload[_NAME_AT] == _BOOK:
                book = _parse_book(payload)
                if book.channel == "book":
                    self._book(book, ts_recv, out)
                    return None
            elif payload.startswith(_TRADES_BEGIN):
                self._trades(payload, ts_recv, out)
                return None
        except (msgspec.ValidationError, IndexError):
            pass
        try:
            frame = _parse(payload)
        except msgspec.ValidationError as failure:
            return self._other(payload, failure)
        if frame.channel == "trade":
            self._trades(payload, ts_recv, out)
            return None
        decoder = self._decoders.get(frame.channel or "")
        if decoder is None:
            return self._other(payload, None)
        decoder(frame, ts_recv, out)
        return None

    def _trades(self, payload: bytes, ts_recv: int, out: TickBuffer) -> None:
        frame = _parse_trades(payload)
        reader = _TRADE_READERS[frame.type]
        for trade in frame.data:
            out.keep_trade(reader, trade, self._symbols[trade.symbol], ts_recv)

    def _quotes(self, frame: Any, ts_recv: int, out: TickBuffer) -> None:
        for ticker in frame.data:
            time = ticker.timestamp  # not in frames recorded before 2025
            out.quote(
                self._symbols[ticker.symbol],
                ts_recv if time is None else iso_ns(time),
                ts_recv,
                0,
                ticker.bid,
                ticker.bid_qty,
                ticker.ask,
                ticker.ask_qty,
                _LAST_UNTIMED if time is None else _LAST,
            )

    def _book(self, frame: Any, ts_recv: int, out: TickBuffer) -> None:
        flags = _FLAGS[frame.type]
        for book in frame.data:
            time = book.timestamp  # not in older snapshots
            bids, asks = book.bids, book.asks
            out.levels(
                self._symbols[book.symbol],
                ts_recv if time is None else iso_ns(time),
                ts_recv,
                0,
                0,
                [(level.price, level.qty) for level in bids] if bids else bids,
                [(level.price, level.qty) for level in asks] if asks else asks,
                0,
                flags if time is not None else flags | _UNTIMED,
                book.checksum,
                are_pairs=True,
            )

    def _other(self, payload: bytes, failure: msgspec.ValidationError | None) -> Control:
        """What brings no rows: answers to requests (one for each symbol) and other channels."""
        message = orjson.loads(payload)
        match message:
            case {"channel": "heartbeat"} | {"method": "pong"}:
                return Notice.HEARTBEAT
            case {"channel": "status"}:
                return Notice.INFO
            case {"channel": "ohlc" | "level3" | "instrument"}:
                return Filtered("not_subscribed")
            case {"channel": "trade" | "ticker" | "book"}:
                raise DecodeError(self.venue, str(failure))
            case {"method": "subscribe", "success": True, "result": result}:
                return Ack((f"{result['channel']}:{result['symbol']}",))
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
        return Ack(streams) if text.startswith("Already subscribed") else Refused(text, streams)

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return (RestRequest("/0/public/AssetPairs"),)

    @classmethod
    def parse_instruments(cls, market: str, bodies: Sequence[bytes]) -> list[Instrument]:
        found = []
        for body in bodies:
            answer = orjson.loads(body)
            if answer["error"]:
                raise DecodeError(cls.venue, f"{answer['error']!r:.200}")
            found += [
                _instrument(entry) for entry in answer["result"].values() if _is_trading(entry)
            ]
        return found

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: TickBuffer) -> None:
        raise UnknownMessage(self.venue, "book snapshots come on the socket")


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


def _is_trading(entry: Any) -> bool:
    """Dark pools have no websocket name."""
    return entry["status"] in _TRADING and bool(entry.get("wsname"))


def _instrument(entry: Any) -> Instrument:
    base, quote = (_ASSETS.get(asset, asset) for asset in entry["wsname"].split("/"))
    decimals = entry["pair_decimals"]
    one = instrument(
        "kraken",
        "spot",
        f"{base}/{quote}",
        f"{base}-{quote}".upper(),
        base,
        quote,
        entry.get("tick_size") or f"1e-{decimals}",
        f"1e-{entry['lot_decimals']}",
        settlement=quote,
    )
    return replace(one, price_exponent=decimals)


adapter: type[FeedAdapter] = Kraken
