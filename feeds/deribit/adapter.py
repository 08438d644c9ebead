"""Deribit: futures and perpetuals, options, spot: trades, quotes, and books of all levels.

Reference: Deribit API v2: public/subscribe, trades.{instrument_name}.{interval},
quote.{instrument_name}, book.{instrument_name}.{interval}, public/set_heartbeat,
public/get_instruments, read 2026-11-30.
Units: numbers are bare JSON, read with their digits kept; times are ms. Sizes are in base, those of
inverse ("reversed") futures in USD.
Traps:
- Intervals are 100 ms without a login.
- The first message of a book is `snapshot`; afterwards `prev_change_id` is `change_id` of the
  message before. Levels say "new", "change" or "delete", then price and size, absolute.
- `direction` of a trade is the taker's. `trade_seq` counts an instrument's trades; `trade_id` of a
  currency's trades may begin with its name ("ETH-3124"). `liquidation` says which side was
  liquidated, `block_trade_id` that it was negotiated.
- The answer to a subscription lists the channels that stand; one that doesn't exist is missing.
- Heartbeats must be asked for, and then `test_request` answered.
- `ticker` has mark, index and estimated delivery price, open interest in the unit of sizes, and of
  perpetuals the funding rate of eight hours as it stands.
- Of a trade that liquidates, "M" is the maker's position, "T" the taker's, "MT" both.
- Ticks of options grow with the price: the finest one gives the digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    OTHER_BOOK,
    SECOND,
    TAKER_SIDES,
    Ack,
    BookRule,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    Counted,
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
    Milliseconds,
    Notice,
    PlainFeed,
    Position,
    PriceKind,
    Refused,
    Reply,
    Requests,
    RestLimit,
    RestRequest,
    Sequential,
    SizeUnit,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_liquidation,
    add_mark_price,
    add_open_interest,
    instrument,
    iso_text,
    time_ns,
    whole_number,
)

_STREAMS: Final = {
    "trades": "trades.{}.100ms",
    "quotes": "quote.{}",
    "book": "book.{}.100ms",
    "funding": "ticker.{}.100ms",
    "mark_price": "ticker.{}.100ms",
    "open_interest": "ticker.{}.100ms",
    "liquidations": "trades.{}.100ms",
}
_CHANNELS: Final = {
    "future": frozenset(_STREAMS),
    "option": frozenset(_STREAMS) - {"funding", "liquidations"},
    "spot": frozenset({"trades", "quotes", "book"}),
}
_NAMED: Final = frozenset({"trades", "quote", "book", "ticker"})
_FUNDING_NS: Final = 8 * 3_600 * SECOND
_LONG_TAKERS: Final = {"sell": Position.LONG, "buy": Position.SHORT}
_LONG_MAKERS: Final = {"buy": Position.LONG, "sell": Position.SHORT}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("ticker", "incremental_ticker", "deribit_price_index", "deribit_price_ranking"),
        *("deribit_price_statistics", "deribit_volatility_index", "estimated_expiration_price"),
        *("markprice", "perpetual", "chart", "instrument", "platform_state", "block_rfq"),
        *("block_trade_confirmations", "rfq"),
    )
}
_KINDS: Final = ("future", "option", "spot")
_PERPETUAL: Final = "perpetual"
_OPTION_TYPES: Final = {"call": "C", "put": "P"}
_OPTION_ENDS: Final = ("-C", "-P")
_BOOK_DOTS: Final = 2  # in book.BTC-PERPETUAL.100ms
_LAST: Final = int(Flag.LAST)
_ACTIONS: Final = frozenset({"new", "change", "delete"})
_HEARTBEAT_S: Final = 30
_TEST: Final = b'{"jsonrpc":"2.0","id":0,"method":"public/test","params":{}}'
# Rate limits, a server that is too busy or unavailable, an internal error.
_TEMPORARY: Final = frozenset({10028, 10040, 10041, 10047, 10048, 11051, 13028})


class _Trade(msgspec.Struct, gc=False):
    instrument_name: str
    trade_id: str
    trade_seq: Sequential
    timestamp: Milliseconds
    price: Any  # `float_hook` keeps the digits
    amount: Any
    direction: str
    liquidation: str | None = None
    block_trade_id: Any = None


class _Quote(msgspec.Struct, gc=False):
    instrument_name: str
    timestamp: Milliseconds
    best_bid_price: Any = None
    best_bid_amount: Any = None
    best_ask_price: Any = None
    best_ask_amount: Any = None


class _Level(msgspec.Struct, array_like=True, gc=False):
    action: str
    price: Any
    size: Any


class _Book(msgspec.Struct, gc=False):
    instrument_name: str
    timestamp: Milliseconds
    change_id: Counted
    bids: list[_Level]
    asks: list[_Level]
    type: Literal["snapshot", "change"] = "change"
    prev_change_id: Sequential = 0


class _TradeParameters(msgspec.Struct, gc=False):
    data: list[_Trade]


class _QuoteParameters(msgspec.Struct, gc=False):
    data: _Quote


class _BookParameters(msgspec.Struct, gc=False):
    data: _Book


class _Trades(msgspec.Struct, gc=False):
    params: _TradeParameters


class _Quotes(msgspec.Struct, gc=False):
    params: _QuoteParameters


class _Books(msgspec.Struct, gc=False):
    params: _BookParameters


class _Ticker(msgspec.Struct, gc=False):
    instrument_name: str
    timestamp: Milliseconds
    mark_price: Any = None
    index_price: Any = None
    estimated_delivery_price: Any = None
    open_interest: Any = None
    current_funding: Any = None


class _TickerParameters(msgspec.Struct, gc=False):
    data: _Ticker


class _Tickers(msgspec.Struct, gc=False):
    params: _TickerParameters


class _Parameters(msgspec.Struct, gc=False):
    channel: str = ""
    type: str = ""


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    method: str = ""
    params: _Parameters | None = None
    id: Any = None
    error: Any = None
    result: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_quotes: Final = msgspec.json.Decoder(_Quotes, float_hook=str).decode
_parse_tickers: Final = msgspec.json.Decoder(_Tickers, float_hook=str).decode
_parse_books: Final = msgspec.json.Decoder(_Books, float_hook=str).decode
_parse_list: Final = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


def _endpoint(kind: str) -> Endpoint:
    return Endpoint("wss://streams.deribit.com/ws/api/v2", _CHANNELS[kind])


_MARKET: Final = Market(
    endpoints=(_endpoint("future"),),
    rest_url="https://www.deribit.com",
    limits=Limits(
        streams_per_connection=500,
        streams_per_subscribe=50,  # 500 are allowed
        connects_per_s=1.0,  # 32 connections of an address
        requests_per_s=3.0,
        address_requests_per_s=3.0,  # 3.3 a second, ten at once
        rest=RestLimit(weight_per_s=1.0, weight_burst=4),  # lists: one in 10 s, 50 at once
        frame_bytes_max=4 << 20,
    ),
    book=BookRule(Continuity.PREVIOUS),
    trade_numbers=TradeNumbers.CONSECUTIVE,
)


class Deribit(PlainFeed):
    venue: ClassVar[str] = "deribit"
    reference: ClassVar[str] = "Deribit API v2, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        kind: replace(_MARKET, endpoints=(_endpoint(kind),)) for kind in _KINDS
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)

    def stream(self, channel: str, symbol: str) -> str:
        return _STREAMS[channel].format(symbol)

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        parameters = {"interval": _HEARTBEAT_S}
        yield _request(0, "public/set_heartbeat", parameters)
        for number, part in self._requests.parts(streams):
            yield _request(number, "public/subscribe", {"channels": part})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams, keep=False):
            yield _request(number, "public/unsubscribe", {"channels": part})

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        if head.method != "subscription" or head.params is None:
            return self._other(head)
        match head.params.channel.partition(".")[0]:
            case "trades":
                trades = _parse_trades(payload).params.data
                for trade in sorted(trades, key=lambda one: one.trade_seq):
                    self._trade(trade, ts_recv, out)
            case "quote":
                self._quote(_parse_quotes(payload).params.data, ts_recv, out)
            case "book" if head.params.channel.count(".") > _BOOK_DOTS:
                return OTHER_BOOK  # grouped, with a depth
            case "book":
                self._book(_parse_books(payload).params.data, ts_recv, out)
            case "ticker" if self._market != "spot":
                self._ticker(_parse_tickers(payload).params.data, ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"channel {name!r:.60}")
        return None

    def _trade(self, trade: _Trade, ts_recv: int, out: ColumnBuffer) -> None:
        is_liquidation = trade.liquidation not in {None, "none"}
        if is_liquidation and self._market == "future":
            self._liquidations(trade, ts_recv, out)
        flags = _LAST | (Flag.LIQUIDATION if is_liquidation else 0)
        out.add_trade(
            self._symbols[trade.instrument_name],
            trade.timestamp * MILLISECOND,
            ts_recv,
            trade.trade_seq,
            trade.price,
            trade.amount,
            TAKER_SIDES.get(trade.direction, NO_SIDE),
            whole_number(trade.trade_id.rpartition("-")[2]),
            flags=flags | Flag.BLOCK if trade.block_trade_id is not None else flags,
        )

    def _liquidations(self, trade: _Trade, ts_recv: int, out: ColumnBuffer) -> None:
        for letter, positions in (("M", _LONG_MAKERS), ("T", _LONG_TAKERS)):
            if letter in (trade.liquidation or ""):
                add_liquidation(
                    out,
                    self._symbols[trade.instrument_name],
                    ts_recv,
                    position=positions.get(trade.direction, Position.UNKNOWN),
                    size=trade.amount,
                    price=trade.price,
                    price_kind=PriceKind.FILL,
                    ts_event=trade.timestamp * MILLISECOND,
                    sequence=trade.trade_seq,
                )

    def _ticker(self, one: _Ticker, ts_recv: int, out: ColumnBuffer) -> None:
        number, time = self._symbols[one.instrument_name], one.timestamp * MILLISECOND
        if one.current_funding is not None and self._market == "future":
            add_funding(
                out,
                number,
                ts_recv,
                rate=one.current_funding,
                ts_event=time,
                interval_ns=_FUNDING_NS,
                state=FundingState.PREDICTED,
            )
        prices = (one.mark_price, one.index_price, one.estimated_delivery_price)
        if prices != (None, None, None):
            add_mark_price(
                out,
                number,
                ts_recv,
                mark_price=prices[0],
                index_price=prices[1],
                settle_price=prices[2],
                ts_event=time,
            )
        if one.open_interest is not None:
            is_inverse = self._market == "future" and "_" not in one.instrument_name
            unit = InterestUnit.USD if is_inverse else InterestUnit.BASE
            value = one.open_interest
            add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)

    def _quote(self, quote: _Quote, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[quote.instrument_name]
        sides = (
            *_side(quote.best_bid_price, quote.best_bid_amount),
            *_side(quote.best_ask_price, quote.best_ask_amount),
        )
        out.add_quote(number, quote.timestamp * MILLISECOND, ts_recv, 0, *sides)

    def _book(self, book: _Book, ts_recv: int, out: ColumnBuffer) -> None:
        is_snapshot = book.type == "snapshot"
        out.add_book_update(
            self._symbols[book.instrument_name],
            book.timestamp * MILLISECOND,
            ts_recv,
            [_level(level) for level in book.bids],
            [_level(level) for level in book.asks],
            first=book.change_id,
            last=book.change_id,
            previous=0 if is_snapshot else book.prev_change_id,
            flags=Flag.SNAPSHOT if is_snapshot else 0,
            are_pairs=True,
        )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        head = _parse_head(payload)
        if head.params is None or head.params.channel.partition(".")[0] not in _NAMED:
            return ()
        return (head.params.channel,)

    def _other(self, head: _Head) -> Control:
        if head.method == "heartbeat" and head.params is not None:
            return Reply(_TEST) if head.params.type == "test_request" else Notice.HEARTBEAT
        if head.method:
            raise UnknownMessage(self.venue, f"method {head.method!r:.60}")
        asked = self._requests.answered(head.id)
        if head.error is not None:
            error = head.error
            return Refused(f"{error['code']} {error['message']}", asked)
        if not asked:
            if head.result is None:
                raise UnknownMessage(self.venue, "an answer without a result")
            return Notice.INFO
        if not isinstance(head.result, list):
            raise UnknownMessage(self.venue, f"a result {head.result!r:.60}")
        standing = tuple(stream for stream in asked if stream in head.result)
        return Ack(standing) if standing else Refused("no such channel", asked)

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        if symbol.endswith(_OPTION_ENDS):
            return market == "option"
        return market == ("future" if "-" in symbol else "spot")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        query = {"currency": "any", "kind": market, "expired": "false"}
        return [RestRequest("/api/v2/public/get_instruments", query)]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = _parse_list(body)
        if "result" not in answer and "error" in answer:
            code, text = answer["error"]["code"], str(answer["error"]["message"])
            raise VenueError(cls.venue, str(code), text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["result"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if entry["kind"] != market:
            return None
        is_active = entry["is_active"] is True
        status = entry.get("state") or ("open" if is_active else "closed")
        return Listing(entry["instrument_name"], is_active and status == "open", status)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        base, settlement = entry["base_currency"], entry.get("settlement_currency") or ""
        is_reversed = entry.get("instrument_type") == "reversed"
        quote = entry["counter_currency"] if market == "option" else entry["quote_currency"]
        contract, suffix, expiry_ns = _terms(market, entry)
        return instrument(
            cls.venue,
            market,
            entry["instrument_name"],
            f"{base}-{quote}{suffix}".upper(),
            base,
            quote,
            _plain(entry["tick_size"]),
            _plain(entry["min_trade_amount"]),
            contract=contract,
            settlement=settlement or quote,
            size_unit=SizeUnit.QUOTE if is_reversed and market == "future" else SizeUnit.BASE,
            expiry_ns=expiry_ns,
        )


def _terms(market: str, entry: Any) -> tuple[Contract, str, int]:
    """Return the contract, the end of its canonical name, and when it expires, ns."""
    if market == "spot":
        return Contract.SPOT, "", 0
    if market == "future" and entry["settlement_period"] == _PERPETUAL:
        return Contract.PERPETUAL, "-PERP", 0
    expiry_ns = time_ns(entry["expiration_timestamp"])
    day = iso_text(expiry_ns)[:10].replace("-", "")
    if market == "future":
        return Contract.FUTURE, f"-{day}", expiry_ns
    strike = _plain(entry["strike"])
    return Contract.OPTION, f"-{day}-{strike}-{_OPTION_TYPES[entry['option_type']]}", expiry_ns


def _plain(number: Any) -> str:
    """Return a number without an idle decimal: "10.0" is "10"."""
    return str(number).removesuffix(".0")


def _side(price: Any, size: Any) -> tuple[Any, Any]:
    """Return price and size of a side of a quote; zeros where nobody bids or asks."""
    return ("0", "0") if price is None or not size else (price, size)


def _level(level: _Level) -> tuple[Any, Any]:
    if level.action not in _ACTIONS:
        raise ValueError(f"an action {level.action!r:.40}")
    return level.price, "0" if level.action == "delete" else level.size


def _request(number: int, method: str, parameters: Mapping[str, object]) -> bytes:
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
    return orjson.dumps(request)


adapter: type[FeedAdapter] = Deribit
