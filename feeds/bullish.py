"""Bullish, spot, perpetuals and dated futures: trades, quotes, and books of all levels.

Reference: Bullish Trading API: Websocket Channels (Unified Anonymous Trades, Multi-Orderbook),
"Get Markets", read 2026-11-30.
Units: prices and sizes are decimal text in base; times are ms as text.
Traps:
- Each kind of data has an address: trades one, books and quotes another.
- Levels are flat arrays: price, size, price, size. A book's first message is `snapshot`;
  afterwards the first number of `sequenceNumberRange` is the last one of the message before + 1.
- `side` of a trade is the taker's where `isTaker`, else the maker's.
- `tick` has mark price, open interest in base and, of perpetuals, the funding rate as it stands.
- A topic is confirmed by its name in the text of the answer, and by the id of the request.
- Requests of JSON-RPC have a `type`, and ids are text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    NO_SIDE,
    Ack,
    BookRule,
    ColumnBuffer,
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
    Notice,
    PlainFeed,
    Refused,
    Requests,
    RestLimit,
    RestRequest,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_mark_price,
    add_open_interest,
    instrument,
    iso_event_ns,
    iso_text,
    said,
    time_ns,
    whole_number,
)

_TOPICS: Final = {
    "trades": "anonymousTrades",
    "quotes": "l1Orderbook",
    "book": "l2Orderbook",
    "funding": "tick",
    "mark_price": "tick",
    "open_interest": "tick",
}
_STREAM_OF: Final = {
    "V1TAAnonymousTradeUpdate": "anonymousTrades",
    "V1TALevel1": "l1Orderbook",
    "V1TALevel2": "l2Orderbook",
    "V1TATickerResponse": "tick",
}
_SIDES: Final = {"BUY": int(Side.BID), "SELL": int(Side.ASK)}
_OTHER_SIDE: Final = {"BUY": int(Side.ASK), "SELL": int(Side.BID)}
_LEFT_OUT: Final = {
    name: Filtered(name) for name in ("V1TATickerResponse", "V1TATicker", "V1TAIndexPrice")
}
_LAST: Final = int(Flag.LAST)
_OK: Final = "200"
_TYPES: Final = {
    "SPOT": ("spot", Contract.SPOT),
    "PERPETUAL": ("perpetual", Contract.PERPETUAL),
    "DATED_FUTURE": ("future", Contract.FUTURE),
}
_ROOT: Final = "wss://api.exchange.bullish.com/trading-api/v1/market-data"
_TEMPORARY: Final = frozenset({"96000", "8301", "8327", "429", "503"})


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    tradeId: Any  # noqa: N815  # the venue's name
    price: Any  # as text or bare: `float_hook` keeps the digits
    quantity: Any
    side: str
    createdAtTimestamp: Any  # noqa: N815  # the venue's name
    isTaker: bool = True  # noqa: N815  # the venue's name


class _TradeList(msgspec.Struct, gc=False):
    trades: list[_Trade]


class _Trades(msgspec.Struct, gc=False):
    type: str
    data: _TradeList


class _Best(msgspec.Struct, gc=False):
    symbol: str
    timestamp: Any
    bid: list[Any]
    ask: list[Any]
    sequenceNumber: Any = 0  # noqa: N815  # the venue's name


class _Quotes(msgspec.Struct, gc=False):
    data: _Best


class _Levels(msgspec.Struct, gc=False):
    symbol: str
    timestamp: Any
    bids: list[Any]
    asks: list[Any]
    sequenceNumberRange: tuple[Any, Any]  # noqa: N815  # the venue's name


class _Books(msgspec.Struct, gc=False):
    type: str
    data: _Levels


class _Ticker(msgspec.Struct, rename="camel", gc=False):
    symbol: str
    created_at_timestamp: Any
    mark_price: Any = None
    funding_rate: Any = None
    open_interest: Any = None


class _Tickers(msgspec.Struct, gc=False):
    data: _Ticker


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    type: str = ""
    dataType: str = ""  # noqa: N815  # the venue's name
    data: msgspec.Raw = msgspec.Raw(b"")
    id: Any = None
    result: Any = None
    error: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_tickers: Final = msgspec.json.Decoder(_Tickers, float_hook=str).decode
_parse_books: Final = msgspec.json.Decoder(_Books, float_hook=str).decode

_ENDPOINTS: Final = (
    Endpoint(f"{_ROOT}/trades", frozenset({"trades"})),
    Endpoint(f"{_ROOT}/orderbook", frozenset({"quotes", "book"})),
)
_TICKS: Final = {
    "spot": frozenset[str](),
    "perpetual": frozenset({"funding", "mark_price", "open_interest"}),
    "future": frozenset({"mark_price", "open_interest"}),
}
_MARKET: Final = Market(
    endpoints=_ENDPOINTS,
    rest_url="https://api.exchange.bullish.com",
    limits=Limits(
        streams_per_connection=100,
        streams_per_subscribe=1,
        connects_per_s=0.5,
        requests_per_s=10.0,  # 50 a second
        rest=RestLimit(weight_per_s=5.0, weight_burst=10),  # 50 a second
        frame_bytes_max=4 << 20,
        ping_interval_s=60.0,  # five minutes without one end a connection
    ),
    book=BookRule(Continuity.RANGE),
    trade_numbers=TradeNumbers.ASCENDING,
)


class Bullish(PlainFeed):
    venue: ClassVar[str] = "bullish"
    reference: ClassVar[str] = "Bullish Trading API, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        name: replace(_MARKET, endpoints=(*_ENDPOINTS, Endpoint(f"{_ROOT}/tick", channels)))
        if channels
        else _MARKET
        for name, channels in _TICKS.items()
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(1)

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_TOPICS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams):
            yield _command(str(number), "subscribe", stream)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams, keep=False):
            yield _command(str(number), "unsubscribe", stream)

    def ping(self) -> bytes | None:
        return _command("0", "keepalivePing", "")

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        match head.dataType:
            case "V1TAAnonymousTradeUpdate":
                message = _parse_trades(payload)
                flags = _LAST | (Flag.SNAPSHOT if message.type == "snapshot" else 0)
                for trade in message.data.trades:
                    self._trade(trade, flags, ts_recv, out)
            case "V1TALevel1":
                best = _parse_quotes(payload).data
                time, sequence = time_ns(best.timestamp), whole_number(best.sequenceNumber)
                sides = (*_best(best.bid), *_best(best.ask))
                out.add_quote(self._symbols[best.symbol], time, ts_recv, sequence, *sides)
            case "V1TALevel2":
                books = _parse_books(payload)
                self._book(books.data, books.type == "snapshot", ts_recv, out)
            case "V1TAHeartbeat" | "V1TAHeartbeatResponse":
                return Notice.HEARTBEAT
            case "V1TATickerResponse" if self._market != "spot":
                self._ticker(_parse_tickers(payload).data, ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case _:
                return self._other(payload, head)
        return None

    def _trade(self, trade: _Trade, flags: int, ts_recv: int, out: ColumnBuffer) -> None:
        identifier = whole_number(trade.tradeId)
        out.add_trade(
            self._symbols[trade.symbol],
            time_ns(trade.createdAtTimestamp),
            ts_recv,
            identifier,
            trade.price,
            trade.quantity,
            (_SIDES if trade.isTaker else _OTHER_SIDE).get(trade.side, NO_SIDE),
            identifier,
            flags=flags,
        )

    def _ticker(self, one: _Ticker, ts_recv: int, out: ColumnBuffer) -> None:
        number, time = self._symbols[one.symbol], time_ns(one.created_at_timestamp)
        rate, price, interest = map(said, (one.funding_rate, one.mark_price, one.open_interest))
        if rate is not None:
            state = FundingState.PREDICTED
            add_funding(out, number, ts_recv, rate=rate, ts_event=time, state=state)
        if price is not None:
            add_mark_price(out, number, ts_recv, mark_price=price, ts_event=time)
        if interest is not None:
            unit = InterestUnit.BASE
            add_open_interest(out, number, ts_recv, value=interest, unit=unit, ts_event=time)

    def _book(self, book: _Levels, is_image: bool, ts_recv: int, out: ColumnBuffer) -> None:
        first, last = map(whole_number, book.sequenceNumberRange)
        out.add_book_update(
            self._symbols[book.symbol],
            time_ns(book.timestamp),
            ts_recv,
            _pairs(book.bids),
            _pairs(book.asks),
            first=last if is_image else first,
            last=last,
            flags=Flag.SNAPSHOT if is_image else 0,
            are_pairs=True,
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        topic, data = _STREAM_OF.get(message["dataType"]), message["data"]
        if topic is None:
            return ()
        return [f"{topic}:{item['symbol']}" for item in data.get("trades") or [data]]

    def _other(self, payload: bytes, head: _Head) -> Control:
        if head.type == "error" or head.dataType == "V1TAErrorResponse":
            error = orjson.loads(bytes(head.data))
            text = f"{error.get('errorCode', '')} {error['message']}".strip()
            return Refused(text, self._requests.named(text, ":"))
        streams = self._requests.answered(head.id)
        if head.error is not None:
            code = head.error.get("errorCode") or head.error.get("code", "")
            return Refused(f"{code} {head.error['message']}", streams)
        match head.result:
            case {"responseCode": code}:
                if str(code) != _OK:
                    return Refused(f"{code} {head.result.get('message', '')}", streams)
                return Ack(streams) if streams else Notice.INFO
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        end = symbol.rpartition("-")[2] if "-" in symbol else ""
        return market == {"": "spot", "PERP": "perpetual"}.get(end, "future")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/trading-api/v1/markets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict) and "errorCode" in answer:
            code, text = str(answer["errorCode"]), str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _TYPES.get(entry["marketType"], ("",))[0] != market:
            return None
        is_trading = entry["marketEnabled"] is True
        return Listing(entry["symbol"], is_trading, "enabled" if is_trading else "disabled")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote = entry["baseSymbol"], entry["quoteSymbol"]
        contract = _TYPES[entry["marketType"]][1]
        expiry_ns, suffix = 0, "-PERP" if contract is Contract.PERPETUAL else ""
        if contract is Contract.FUTURE:
            expiry_ns = iso_event_ns(entry["expiryDatetime"])
            suffix = f"-{iso_text(expiry_ns)[:10].replace('-', '')}"
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}{suffix}".upper(),
            base,
            quote,
            entry["tickSize"],
            _increment(entry["quantityPrecision"]),
            contract=contract,
            settlement=entry.get("settlementAssetSymbol") or quote,
            multiplier=str(entry.get("contractMultiplier") or "1"),
            expiry_ns=expiry_ns,
        )


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return levels of a flat array. Raises ValueError for half a level."""
    return list(zip(flat[0::2], flat[1::2], strict=True))


def _best(side: Sequence[Any]) -> tuple[Any, Any]:
    """Return price and size of a side of a quote; zeros where it is empty."""
    if not side or not side[0]:
        return "0", "0"
    price, size = side
    return price, size


def _increment(digits: Any) -> str:
    """Return the increment of so many decimals."""
    count = whole_number(digits)
    if count > 18:
        raise ValueError(f"{digits!r:.40} decimals")
    return f"0.{'1'.rjust(count, '0')}" if count else "1"


def _command(identifier: str, method: str, stream: str) -> bytes:
    topic, _, symbol = stream.partition(":")
    parameters = {"topic": topic, "symbol": symbol} if topic else {}
    request = {"jsonrpc": "2.0", "type": "command", "method": method, "params": parameters}
    return orjson.dumps(request | {"id": identifier})


adapter: type[FeedAdapter] = Bullish
