"""BitMEX, perpetuals and futures: trades, best bid and ask, the book by ids of its levels.

Reference: BitMEX API docs: "Websocket API" (trade, quote, orderBookL2, Response Format,
Heartbeats, Rate limits), REST "Instrument / active", "OrderBook / L2".
Units: prices and sizes are bare JSON numbers, sizes count contracts; times are RFC 3339 text.
Traps:
- A level is named by its id: `partial` is the whole book, `insert` a new level, `update` another
  size, `delete` removes it. Newer messages repeat its price, older ones don't.
- There are no numbers. A change of an id that is not there, or a new one that is, says that
  something was lost: a hole is declared. What comes before `partial` means nothing.
- The first message of trades is a `partial` of past ones. Reference prices have no size.
- The side of a trade is the taker's. XBT is BTC, XBt and USDt are its and USDT's smallest units.
- `instrument` names what changed: a funding rate that is fixed for the next exchange, the
  indicative one after it, mark price, index, open interest in contracts. `liquidation` has orders
  that are in the book: what becomes of them is left out.
- The text ping is answered with pong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    OTHER_BOOK,
    Ack,
    BookOffer,
    BookRule,
    Cause,
    ColumnBuffer,
    CompiledShape,
    Continuity,
    Contract,
    Control,
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
    Notice,
    PlainFeed,
    Position,
    PriceKind,
    Refused,
    RestLimit,
    RestRequest,
    RestSnapshot,
    RowClass,
    Side,
    SizeUnit,
    UnknownMessage,
    VenueError,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    instrument,
    iso_event_ns,
    shape,
    uuid_halves,
)

_WHOLE: Final = "orderBookL2"
_BEST: Final = "orderBookL2_25"
_BOOKS: Final = frozenset({_WHOLE, _BEST})
_TABLES: Final = {
    "trades": "trade",
    "quotes": "quote",
    "book": _WHOLE,
    "funding": "instrument",
    "mark_price": "instrument",
    "open_interest": "instrument",
    "liquidations": "liquidation",
}
_POSITIONS: Final = {"Buy": Position.SHORT, "Sell": Position.LONG}  # by the order that closes them
_NO_ORDER: Final = Filtered("liquidation")  # a change or the end of an order that was told of
_SIDES: Final = {"Buy": int(Side.BID), "Sell": int(Side.ASK)}
_NO_SIDE: Final = int(Side.NONE)
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("funding", "settlement", "insurance", "orderBook10"),
        *("announcement", "chat", "connected", "publicNotifications"),
        *("tradeBin1m", "tradeBin5m", "tradeBin1h", "tradeBin1d", "quoteBin1m", "quoteBin5m"),
        *("quoteBin1h", "quoteBin1d"),
    )
}
_PERPETUAL: Final = frozenset({"FFWCSX", "FFWCSF"})
_FUTURE: Final = frozenset({"FFCCSX", "FFICSX"})
_ALIASES: Final = {"XBT": "BTC", "XBt": "BTC", "USDt": "USDT", "Gwei": "ETH", "LAMp": "SOL"}
_BLOCK: Final = int(Flag.LAST | Flag.BLOCK)
# Whether the id of a level must be known before.
_IS_THERE: Final = {"partial": False, "insert": False, "update": True, "delete": True}
_DAY_LENGTH: Final = 10  # of the day in a time
# Too many requests, overload.
_TEMPORARY: Final = frozenset({"HTTPError", "RateLimitError", "OverloadError"})


class _Trade(msgspec.Struct, rename="camel", gc=False):
    timestamp: str
    symbol: str
    side: str | None = ""
    size: Any = None
    price: Any = None
    trd_match_id: str = msgspec.field(name="trdMatchID", default="")
    trd_type: str = ""


class _Quote(msgspec.Struct, rename="camel", gc=False):
    timestamp: str
    symbol: str
    bid_size: Any = None
    bid_price: Any = None
    ask_price: Any = None
    ask_size: Any = None


class _Level(msgspec.Struct, gc=False):
    symbol: str
    id: int
    side: Literal["Buy", "Sell"]
    size: Any = 0
    price: Any = None
    timestamp: str = ""


class _Instrument(msgspec.Struct, rename="camel", gc=False):
    """Hold what changed of an instrument; `partial` has all of it."""

    symbol: str
    timestamp: str = ""
    mark_price: Any = None
    indicative_settle_price: Any = None
    funding_rate: Any = None
    funding_timestamp: str | None = None
    indicative_funding_rate: Any = None
    open_interest: Any = None


class _Liquidation(msgspec.Struct, rename="camel", gc=False):
    symbol: str
    side: str
    price: Any
    leaves_qty: Any


class _Message(msgspec.Struct, gc=False):
    table: str = ""
    action: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    subscribe: str = ""
    unsubscribe: str = ""
    success: Any = None
    error: Any = None
    info: Any = None
    request: Any = None


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_trades: Final = msgspec.json.Decoder(list[_Trade], float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(list[_Quote], float_hook=str).decode
_parse_levels: Final = msgspec.json.Decoder(list[_Level], float_hook=str).decode
_parse_instruments: Final = msgspec.json.Decoder(list[_Instrument], float_hook=str).decode
_parse_liquidations: Final = msgspec.json.Decoder(list[_Liquidation], float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(float_hook=str).decode

_Prices = dict[int, Any]  # of the levels of a book, by id


# The text of plain trades.
_SHAPES: Final = (
    shape(
        RowClass.TRADE,
        '{"table":"trade","action":"insert","data":<[>{"timestamp":"<iso:ts_event>",'
        '"symbol":"<symbol>","side":"<side:Buy=1|Sell=2>","size":<size:size>,'
        '"price":<price:price>,"tickDirection":"<text>","trdMatchID":"<uuid>",'
        '"grossValue":<number>,"homeNotional":<number>,"foreignNotional":<number>,'
        '"trdType":"Regular"}<row><]>}',
    ),
)


class Bitmex(PlainFeed):
    venue: ClassVar[str] = "bitmex"
    reference: ClassVar[str] = "BitMEX API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "derivatives": Market(
            endpoints=(Endpoint("wss://ws.bitmex.com/realtime", frozenset(_TABLES)),),
            rest_url="https://www.bitmex.com",
            limits=Limits(
                streams_per_connection=100,
                streams_per_subscribe=20,
                connects_per_s=0.2,  # 720 an hour
                connects_burst=10,  # 20 are allowed
                requests_per_s=2.0,
                rest=RestLimit(weight_per_s=0.4, weight_burst=10),  # 30 a minute
                frame_bytes_max=16 << 20,
                ping_interval_s=10.0,
            ),
            book=BookRule(Continuity.NONE),
            books=(
                BookOffer(10_000),
                BookOffer(25, rule=BookRule(Continuity.NONE, depth_max=25), is_plain=True),
            ),
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._book_table = _WHOLE
        self._prices: dict[str, _Prices] = {}  # of the books that began, by symbol

    def choose_book(self, offer: BookOffer) -> None:
        self._book_table = _WHOLE if offer.rule is None else _BEST

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        return f"{self._book_table if channel == 'book' else _TABLES[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, operation: str, streams: Sequence[str]) -> Iterator[bytes]:
        size = self.markets["derivatives"].limits.streams_per_subscribe
        for start in range(0, len(streams), size):
            yield orjson.dumps({"op": operation, "args": streams[start : start + size]})

    def ping(self) -> bytes | None:
        return b"ping"

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if payload == b"pong":
            return Notice.HEARTBEAT
        message = _parse(payload)
        match message.table:
            case "trade":
                self._trades(_parse_trades(message.data), message.action, ts_recv, out)
            case "quote":
                self._quotes(_parse_quotes(message.data), ts_recv, out)
            case table if table in _BOOKS:
                if table != self._book_table:
                    return OTHER_BOOK
                self._levels(_parse_levels(message.data), message.action, ts_recv, out)
            case "instrument":
                for told in _parse_instruments(message.data):
                    self._instrument(told, ts_recv, out)
            case "liquidation" if message.action in {"partial", "insert"}:
                self._liquidations(_parse_liquidations(message.data), ts_recv, out)
            case "liquidation":
                return _NO_ORDER
            case "":
                return self._event(payload, message)
            case table if table in _LEFT_OUT:
                return _LEFT_OUT[table]
            case table:
                raise UnknownMessage(self.venue, f"table {table!r:.60}")
        return None

    def _event(self, payload: bytes, message: _Message) -> Control:
        if message.subscribe and message.success is True:
            return Ack((message.subscribe,))
        if message.error is not None:
            arguments = (message.request or {}).get("args", [])
            named = [arguments] if isinstance(arguments, str) else arguments
            return Refused(str(message.error), tuple(item for item in named if type(item) is str))
        if message.info is None and not message.unsubscribe:
            raise UnknownMessage(self.venue, f"{payload[:60]!r}")
        return Notice.INFO

    def _trades(self, trades: list[_Trade], action: str, ts_recv: int, out: ColumnBuffer) -> None:
        past = {"partial": int(Flag.SNAPSHOT), "insert": 0}[action]
        for trade in trades:
            number = self._symbols[trade.symbol]
            if trade.size is None:  # the price of a reference
                continue
            high, low = uuid_halves(trade.trd_match_id) if trade.trd_match_id else (0, 0)
            out.add_trade(
                number,
                iso_event_ns(trade.timestamp),
                ts_recv,
                0,
                trade.price,
                trade.size,
                _SIDES.get(trade.side or "", _NO_SIDE),
                low,
                trade_id_high=high,
                flags=past | (_BLOCK if trade.trd_type == "Block" else int(Flag.LAST)),
            )

    def _quotes(self, quotes: list[_Quote], ts_recv: int, out: ColumnBuffer) -> None:
        for quote in quotes:
            number, time = self._symbols[quote.symbol], iso_event_ns(quote.timestamp)
            bid = _best(quote.bid_price, quote.bid_size)
            ask = _best(quote.ask_price, quote.ask_size)
            out.add_quote(number, time, ts_recv, 0, *bid, *ask)

    def _instrument(self, told: _Instrument, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[told.symbol]
        time = iso_event_ns(told.timestamp) if told.timestamp else None
        mark, index = told.mark_price, told.indicative_settle_price
        if mark is not None or index is not None:
            add_mark_price(out, number, ts_recv, mark_price=mark, index_price=index, ts_event=time)
        if told.funding_rate is not None:
            due = told.funding_timestamp
            due_ns = None if due is None else iso_event_ns(due)
            rate, state = told.funding_rate, FundingState.SETTLED
            add_funding(out, number, ts_recv, rate=rate, due_ns=due_ns, state=state, ts_event=time)
        if told.indicative_funding_rate is not None:
            add_funding(out, number, ts_recv, rate=told.indicative_funding_rate, ts_event=time)
        if told.open_interest is not None:
            value, unit = told.open_interest, InterestUnit.CONTRACT
            add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)

    def _liquidations(self, orders: list[_Liquidation], ts_recv: int, out: ColumnBuffer) -> None:
        for order in orders:
            add_liquidation(
                out,
                self._symbols[order.symbol],
                ts_recv,
                position=_POSITIONS[order.side],
                size=order.leaves_qty,
                price=order.price,
                price_kind=PriceKind.ORDER,
            )

    def _levels(self, levels: list[_Level], action: str, ts_recv: int, out: ColumnBuffer) -> None:
        by_symbol: dict[str, list[_Level]] = {}
        for level in levels:
            by_symbol.setdefault(level.symbol, []).append(level)
        changed = {
            symbol: self._book(symbol, some, action, ts_recv, out)
            for symbol, some in by_symbol.items()
        }
        for symbol, prices in changed.items():
            if prices is not None:
                self._prices[symbol] = prices

    def _book(
        self, symbol: str, levels: list[_Level], action: str, ts_recv: int, out: ColumnBuffer
    ) -> _Prices | None:
        """Append the levels of a book; return the prices of its levels by id after that, None for
        a book that did not begin.
        """
        number = self._symbols[symbol]
        before = {} if action == "partial" else self._prices.get(symbol)
        prices, fits = _applied(before, levels, action)
        if not fits:
            out.hole(Cause.SEQUENCE, ts_recv, instruments=[number], row_class=RowClass.LEVEL)
        sides: dict[str, list[tuple[Any, Any]]] = {"Buy": [], "Sell": []}
        for level in levels:
            price = level.price if level.price is not None else (before or {}).get(level.id)
            if price is not None:
                sides[level.side].append((price, 0 if action == "delete" else level.size))
        time = levels[-1].timestamp
        flags = int(Flag.SNAPSHOT) if action == "partial" else 0
        out.add_book_update(
            number,
            iso_event_ns(time) if time else ts_recv,
            ts_recv,
            sides["Buy"],
            sides["Sell"],
            flags=flags if time else flags | Flag.NO_VENUE_TIME,
            are_pairs=True,
        )
        return prices

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        table = message["table"]
        if table not in _TABLES.values() and table not in _BOOKS:
            return ()
        return list(dict.fromkeys(f"{table}:{row['symbol']}" for row in message["data"]))

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v1/instrument/active")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer: Any = _parse_list(body)
        if isinstance(answer, dict):
            error = answer["error"]
            code, text = str(error["name"]), str(error.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry["typ"] not in _PERPETUAL | _FUTURE:
            return None
        return Listing(entry["symbol"], entry["state"] == "Open", entry["state"])

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, quote, settlement = (
            _ALIASES.get(entry[name], entry[name])
            for name in ("underlying", "quoteCurrency", "settlCurrency")
        )
        is_future = entry["typ"] in _FUTURE
        expiry = entry["expiry"] if is_future else ""
        suffix = expiry[:_DAY_LENGTH].replace("-", "") if is_future else "PERP"
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{base}-{quote}-{suffix}".upper(),
            base,
            quote,
            str(entry["tickSize"]),
            "1",
            contract=Contract.FUTURE if is_future else Contract.PERPETUAL,
            settlement=settlement,
            size_unit=SizeUnit.CONTRACT,
            multiplier=_multiplier(entry),
            expiry_ns=iso_event_ns(expiry) if is_future else 0,
        )

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        return RestRequest("/api/v1/orderBook/L2", {"symbol": symbol, "depth": str(depth)})

    def decode_audit(self, symbol: str, body: bytes) -> RestSnapshot:
        """Read an image, which has no number. Sells come first, from the highest price down."""
        entries = _parse_levels(body)
        if any(entry.symbol != symbol for entry in entries):
            raise DecodeError(self.venue, f"a book of another contract than {symbol}")
        levels = [(entry.side, str(entry.price), str(entry.size)) for entry in entries]
        bids = [(price, size) for side, price, size in levels if side == "Buy"]
        asks = [(price, size) for side, price, size in levels if side == "Sell"]
        return RestSnapshot(0, bids, asks[::-1])


def _applied(
    before: _Prices | None, levels: list[_Level], action: str
) -> tuple[_Prices | None, bool]:
    """Return the prices by id after a message, and whether it fits to those before."""
    is_there = _IS_THERE[action]
    if before is None:
        return None, True
    prices, fits = dict(before) if action != "update" else before, True
    for level in levels:
        fits &= (level.id in prices) == is_there
        if action == "delete":
            prices.pop(level.id, None)
        elif action != "update":
            prices[level.id] = level.price
    return prices, fits


def _best(price: Any, size: Any) -> tuple[Any, Any]:
    return (price, size) if price is not None and size is not None else ("0", "0")


def _multiplier(entry: Any) -> str:
    """Return what a contract is: a dollar where it is inverse, else an amount of base."""
    units = entry.get("underlyingToPositionMultiplier")
    if entry["isInverse"] or not units:
        return "1"
    if type(units) not in {int, str}:
        raise ValueError(f"underlyingToPositionMultiplier is {units!r:.40}")
    return f"{(1 / Decimal(units)).normalize():f}"


adapter: type[FeedAdapter] = Bitmex
