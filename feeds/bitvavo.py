"""Bitvavo, spot: trades, best bid and ask, the book in increments of nonces.

Reference: Bitvavo API docs: WebSocket "Subscribe" (ticker, trades, book), "Get order book", REST
"Markets", Errors.
Units: prices and sizes are decimal text. Times are milliseconds of trades (`timestampNs` has
more), and of tickers none.
Traps:
- A book's `nonce` rises by one with each message. Its image is asked for on the same socket with
  `getBook`; updates are held until it comes.
- `ticker` names what changed alone: a missing side is as it was. A price without size changes both
  rarely; a side that is not known yet makes no quote.
- `side` of a trade is the taker's. Its id is a UUID.
- An answer repeats all subscriptions of the connection, by channel. An error names no market but
  in its text.
- The price of a market has `pricePrecision` significant digits, or since 2025 a tickSize.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    TAKER_SIDES,
    Ack,
    BadNumber,
    BookRule,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Control,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Milliseconds,
    Nanoseconds,
    Notice,
    PlainFeed,
    Refused,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    SnapshotSource,
    UnknownMessage,
    VenueError,
    instrument,
    level_pairs,
    plain_number,
    shape,
    uuid_halves,
)

_CHANNELS: Final = {"trades": "trades", "quotes": "ticker", "book": "book"}
_LEFT_OUT: Final = {"candle": Filtered("candle"), "ticker24h": Filtered("ticker24h")}
_PARTIAL_QUOTE: Final = Filtered("one side of a quote")
_UNCHANGED: Final = Filtered("unchanged quote", duplicate=True)
_NO_TIME: Final = int(Flag.NO_VENUE_TIME)
# Rate limit, and the service is busy or closed for a while.
_TEMPORARY: Final = frozenset({"101", "103", "105", "107", "108", "109", "110", "111"})
_FINEST: Final = "0.000000000001"  # of prices of significant digits alone
_PLACES_MAX: Final = 18


class _Trade(msgspec.Struct, rename="camel", gc=False):
    market: str
    id: str
    price: Any  # as text or bare: `float_hook` keeps the digits
    amount: Any
    side: str
    timestamp: Milliseconds
    timestamp_ns: Nanoseconds | None = None


class _Ticker(msgspec.Struct, rename="camel", gc=False):
    market: str
    best_bid: Any = None
    best_bid_size: Any = None
    best_ask: Any = None
    best_ask_size: Any = None


class _Book(msgspec.Struct, gc=False):
    market: str
    nonce: Sequential
    bids: list[list[Any]]
    asks: list[list[Any]]
    timestamp: Nanoseconds | None = None


class _Message(msgspec.Struct, rename="camel", gc=False):
    event: str = ""
    action: str = ""
    response: msgspec.Raw = msgspec.Raw(b"null")
    subscriptions: dict[str, Any] | None = None
    error_code: Any = None
    error: Any = ""


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trade: Final = msgspec.json.Decoder(_Trade, float_hook=str).decode
_parse_ticker: Final = msgspec.json.Decoder(_Ticker, float_hook=str).decode
_parse_book: Final = msgspec.json.Decoder(_Book, float_hook=str).decode

_Best = tuple[Any, Any, Any, Any]  # bid and its size, ask and its size


# The texts of frequent frames.
_SHAPES: Final = (
    shape(
        RowClass.LEVEL,
        '{"event":"book","market":"<symbol>","nonce":<int:first,last>=1>,'
        f'"bids":{level_pairs("bids")},"asks":{level_pairs("asks")}}}',
        flags=_NO_TIME,
    ),
    shape(
        RowClass.TRADE,
        '{"event":"trade","timestamp":<ms:ts_event>,"market":"<symbol>","id":"<uuid>",'
        '"amount":"<size:size>","price":"<price:price>","side":"<side:buy=1|sell=2>"}',
    ),
)


class Bitvavo(PlainFeed):
    venue: ClassVar[str] = "bitvavo"
    reference: ClassVar[str] = "Bitvavo API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("wss://ws.bitvavo.com/v2/"),),
            rest_url="https://api.bitvavo.com",
            limits=Limits(
                streams_per_connection=200,
                streams_per_subscribe=20,
                connects_per_s=1.0,
                connects_burst=5,
                requests_per_s=5.0,
                address_requests_per_s=10.0,  # 1,000 weight a minute
                rest=RestLimit("weight", weight_per_s=5.0, weight_burst=50),
                frame_bytes_max=8 << 20,
            ),
            book=BookRule(Continuity.INCREMENT, SnapshotSource.REQUEST),
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._quotes: dict[str, _Best] = {}  # by market; None where a part is not known
        self._asked: dict[str, None] = {}  # streams without an answer

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for stream in streams:
            channel, _, symbol = stream.partition(":")
            self._asked[stream] = None
            if channel == "ticker":
                self._quotes.pop(symbol, None)
        yield from self._operations("subscribe", streams)
        for stream in streams:
            channel, _, symbol = stream.partition(":")
            if channel == "book":
                yield orjson.dumps({"action": "getBook", "market": symbol})

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, action: str, streams: Sequence[str]) -> Iterator[bytes]:
        size = self.markets["spot"].limits.streams_per_subscribe
        for start in range(0, len(streams), size):
            markets: dict[str, list[str]] = {}
            for stream in streams[start : start + size]:
                channel, _, symbol = stream.partition(":")
                markets.setdefault(channel, []).append(symbol)
            channels = [{"name": name, "markets": some} for name, some in markets.items()]
            yield orjson.dumps({"action": action, "channels": channels})

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        message = _parse(payload)
        match message.event or message.action:
            case "trade":
                self._trade(_parse_trade(payload), ts_recv, out)
            case "ticker":
                return self._ticker(_parse_ticker(payload), ts_recv, out)
            case "book":
                self._book(_parse_book(payload), 0, ts_recv, out)
            case "getBook" if message.error_code is None:
                self._book(_parse_book(message.response), int(Flag.SNAPSHOT), ts_recv, out)
            case "subscribed":
                return self._acked(message.subscriptions or {})
            case "unsubscribed":
                return Notice.INFO
            case kind if kind in _LEFT_OUT:
                return _LEFT_OUT[kind]
            case kind:
                if message.error_code is None:
                    raise UnknownMessage(self.venue, f"event {kind!r:.60}")
                return self._refused(message)
        return None

    def _acked(self, subscriptions: dict[str, Any]) -> Control:
        streams = tuple(
            f"{channel}:{symbol}"
            for channel, symbols in subscriptions.items()
            if channel in _CHANNELS.values()
            for symbol in symbols
        )
        for stream in streams:
            self._asked.pop(stream, None)
        return Ack(streams) if streams else Notice.INFO

    def _refused(self, message: _Message) -> Control:
        text = f"{message.error_code} {message.error}"
        named = [item for item in self._asked if item.partition(":")[2] in text]
        for item in named:
            del self._asked[item]
        return Refused(text, tuple(named))

    def _trade(self, trade: _Trade, ts_recv: int, out: ColumnBuffer) -> None:
        high, low = uuid_halves(trade.id)
        time = trade.timestamp_ns
        out.add_trade(
            self._symbols[trade.market],
            trade.timestamp * MILLISECOND if time is None else time,
            ts_recv,
            0,
            trade.price,
            trade.amount,
            TAKER_SIDES.get(trade.side, NO_SIDE),
            low,
            trade_id_high=high,
        )

    def _ticker(self, ticker: _Ticker, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append a quote. What a ticker leaves out is as before, so nothing is known but what is
        sure to become a row.
        """
        number = self._symbols[ticker.market]
        before = self._quotes.get(ticker.market, (None,) * 4)
        told = ticker.best_bid, ticker.best_bid_size, ticker.best_ask, ticker.best_ask_size
        exponents = (out.exponents(number) or (None, None)) * 2
        try:
            bid, bid_size, ask, ask_size = (
                old if new is None else plain_number(new, exponent)
                for old, new, exponent in zip(before, told, exponents, strict=True)
            )
        except (TypeError, ValueError) as failure:
            raise BadNumber(self.venue, str(failure)) from None
        best: _Best = bid, bid_size, ask, ask_size
        if None in best:
            self._quotes[ticker.market] = best
            return _PARTIAL_QUOTE
        if best == before:
            return _UNCHANGED
        for price, size in (best[:2], best[2:]):
            if not price.strip("0.") and size.strip("0."):
                raise BadNumber(self.venue, f"{price!r:.60} is no price")
        flags = _NO_TIME | int(Flag.LAST)
        out.add_quote(number, ts_recv, ts_recv, 0, bid, bid_size, ask, ask_size, flags=flags)
        self._quotes[ticker.market] = best
        return None

    def _book(self, book: _Book, flags: int, ts_recv: int, out: ColumnBuffer) -> None:
        time = ts_recv if book.timestamp is None else book.timestamp
        flags |= _NO_TIME if book.timestamp is None else 0
        number, nonce = self._symbols[book.market], book.nonce
        out.add_book_update(
            number, time, ts_recv, book.bids, book.asks, first=nonce, last=nonce, flags=flags
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        kind = {"trade": "trades", "ticker": "ticker", "book": "book"}.get(message.get("event"))
        return (f"{kind}:{message['market']}",) if kind else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v2/markets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict):
            code = str(answer["errorCode"])
            text = str(answer.get("error", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of markets")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry["market"], entry["status"] == "trading", entry["status"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["base"], entry["quote"]
        places = entry.get("quantityDecimals", 8)
        if type(places) is not int or not 0 <= places <= _PLACES_MAX:
            raise ValueError(f"{places!r:.40} decimals")
        return instrument(
            cls.venue,
            market,
            entry["market"],
            f"{base}-{quote}".upper(),
            base,
            quote,
            entry.get("tickSize") or _FINEST,
            f"0.{'1':0>{places}}" if places else "1",
            settlement=quote,
        )


adapter: type[FeedAdapter] = Bitvavo
