"""Crypto.com Exchange v1, spot and derivatives: trades, and books of 50 levels with quotes of them.

Reference: "Crypto.com Exchange API v1": Websocket Heartbeats, book.{instrument_name}.{depth},
trade.{instrument_name}, public/get-instruments, read 2026-11-30.
Units: prices and sizes are decimal text in base, times ms, some of them ns as text besides.
Traps:
- A heartbeat wants an answer with its id within five seconds.
- A subscribe request waits a second after connecting, or its rate counts for the part of a second.
- `book` is an image, `book.update` changes it: `pu` is `u` of the update before. An update without
  levels says that the book is quiet, and goes on with the chain.
- A depth of 10 or 150 is the whole book each time, twice a second.
- Levels have three members: price, size, number of orders. `cs` is not documented and not read.
- `tt` is the time of the book's last change, `t` that of the message.
- Trades are newest first. The first message holds past ones: it has the id of the request, later
  ones have -1.
- A candle does not say whether it is closed; `ut` is when it changed.
- `s` of a trade is the taker's side.
- `funding` is the hour's rate, fixed; `mark` the mark price. Index prices are of instruments of
  their own. Open interest comes with `ticker`, in contracts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from ingestor.adapter import (
    MILLISECOND,
    NO_SIDE,
    OTHER_BOOK,
    SECOND,
    Ack,
    BookOffer,
    BookRule,
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
    Refused,
    Reply,
    Requests,
    RestLimit,
    RestRequest,
    RowClass,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_candle,
    add_funding,
    add_mark_price,
    add_open_interest,
    instrument,
    iso_text,
    optional_ns,
    pairs_of,
    said,
    shape,
    span_ns,
    time_ns,
    whole_number,
)

from .messages import (
    UPDATES,
    CandleResult,
    Head,
    Image,
    Trades,
    Update,
    parse_candles,
    parse_head,
    parse_images,
    parse_tickers,
    parse_trades,
    parse_updates,
    parse_values,
)

DEPTH: Final = 50
_STREAMS: Final = {
    "trades": "trade.{}",
    "funding": "funding.{}",
    "mark_price": "mark.{}",
    "open_interest": "ticker.{}",
    "candles": "candlestick.1m.{}",
}
_SPOT_CHANNELS: Final = frozenset({"trades", "quotes", "book", "candles"})
_HOUR_NS: Final = 3_600 * SECOND
_SIDES: Final = {"BUY": int(Side.BID), "SELL": int(Side.ASK)}
_TYPES: Final = {
    "CCY_PAIR": ("spot", Contract.SPOT),
    "PERPETUAL_SWAP": ("derivatives", Contract.PERPETUAL),
    "FUTURE": ("derivatives", Contract.FUTURE),
}
_LEFT_OUT: Final = {
    name: Filtered(name)
    for name in (
        *("ticker", "otc_book", "index", "mark", "settlement", "funding"),
        *("estimatedfunding", "liquidation"),
    )
}
# Too many requests, internal error, service not available, timeout.
_TEMPORARY: Final = frozenset({"42901", "50001", "10001", "40801", "50301"})


def _images(depth: int) -> BookOffer:
    """Return the form in which the whole book comes each time."""
    rule = BookRule(Continuity.NONE, depth_max=depth, images_only=True, quotes_from_book=True)
    return BookOffer(depth, 500, rule, is_plain=True)


def _market(name: str) -> Market:
    channels = _SPOT_CHANNELS if name == "spot" else _SPOT_CHANNELS | frozenset(_STREAMS)
    return Market(
        endpoints=(Endpoint("wss://stream.crypto.com/exchange/v1/market", channels),),
        rest_url="https://api.crypto.com",
        limits=Limits(
            streams_per_connection=200,
            streams_per_subscribe=20,
            connects_per_s=1.0,
            requests_per_s=10.0,  # 100 a second
            rest=RestLimit("http", weight_per_s=10.0, weight_burst=10),  # 100 a second
        ),
        book=BookRule(Continuity.PREVIOUS, depth_max=DEPTH, quotes_from_book=True),
        books=(BookOffer(DEPTH, 10), *map(_images, (150, 10))),
        trade_numbers=TradeNumbers.ASCENDING,
    )


_UPDATED: Final = (
    '{{"id":-1,{names},"result":{{"instrument_name":"<symbol>","subscription":"<text>",'
    '"channel":"trade","data":<[>{{"d":"<int:sequence,trade_id_low>",{times}}}<row><]>}}}}'
)
_NUMBERS: Final = '"p":"<price:price>","q":"<size:size>","s":"<side:SELL=2|BUY=1>","i":"<text>"'
_LEVEL: Final = '["<price>","<size>","<n>"]'
# The texts of frequent frames.
_SHAPES: Final = (
    shape(
        RowClass.LEVEL,
        '{"id":-1,"method":"subscribe","code":0,"result":{"channel":"book.update",'
        '"subscription":"<text>","instrument_name":"<symbol>","depth":50,"data":<[>{"update":{'
        f'"asks":<[*>{_LEVEL}<level:asks><]>,"bids":<[*>{_LEVEL}<level:bids><]>}},"t":<ms:ts_event>,'
        '"tt":<ms:ts_event>,"u":<int:first,last>=1>,"pu":<int:previous>,"cs":<number>}<row><]>}}',
    ),
    *(
        shape(RowClass.TRADE, _UPDATED.format(names=names, times=times), newest_first=True)
        for names in ('"method":"subscribe","code":0', '"code":0,"method":"subscribe"')
        for times in (
            f'"t":<ms:ts_event>,{_NUMBERS},"tn":"<ns:ts_event>","m":"<text>"',
            f'"t":<ms:ts_event>,{_NUMBERS},"m":"<text>"',
            f'"t":<ms:ts_event>,{_NUMBERS}',
        )
    ),
)


class CryptoCom(PlainFeed):
    venue: ClassVar[str] = "cryptocom"
    reference: ClassVar[str] = "Crypto.com Exchange API v1, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        name: _market(name) for name in ("spot", "derivatives")
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._market = market
        self._symbols = symbols
        self._requests = Requests(self.markets[market].limits.streams_per_subscribe)
        self._depth = DEPTH
        self._form: dict[str, object] = {
            "book_subscription_type": "SNAPSHOT_AND_UPDATE",
            "book_update_frequency": 10,
        }

    def choose_book(self, offer: BookOffer) -> None:
        self._depth = offer.depth
        if offer.rule is not None:
            self._form = {"book_subscription_type": "SNAPSHOT"}

    @classmethod
    def shapes(cls, market: str) -> Sequence[CompiledShape]:
        return _SHAPES

    def stream(self, channel: str, symbol: str) -> str:
        if channel in {"book", "quotes"}:
            return f"book.{symbol}.{self._depth}"
        return _STREAMS[channel].format(symbol)

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams):
            parameters = {"channels": part, **self._form}
            yield orjson.dumps({"id": number, "method": "subscribe", "params": parameters})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, part in self._requests.parts(streams, keep=False):
            request = {"id": number, "method": "unsubscribe", "params": {"channels": part}}
            yield orjson.dumps(request)

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = parse_head(payload)
        if head.result is None or head.code != 0:
            return self._answer(head)
        match head.result.channel:
            case "trade":
                self._trades(parse_trades(payload), ts_recv, out)
            case "book" | "book.update" if not self._is_ours(head.result.subscription):
                return OTHER_BOOK
            case "book":
                result = parse_images(payload).result
                for image in result.data:
                    sides = image.bids, image.asks
                    self._levels(result.instrument_name, image, 0, sides, ts_recv, out)
            case "book.update":
                changes = parse_updates(payload).result
                for item in changes.data:
                    sides = item.update.bids, item.update.asks
                    self._levels(changes.instrument_name, item, item.pu, sides, ts_recv, out)
            case "candlestick":
                self._candles(parse_candles(payload).result, ts_recv, out)
            case "funding" | "mark" | "ticker" as name if self._market != "spot":
                self._derivative(name, payload, ts_recv, out)
            case name if name in _LEFT_OUT:
                return _LEFT_OUT[name]
            case name:
                raise UnknownMessage(self.venue, f"channel {name!r:.60}")
        return None

    def _is_ours(self, subscription: str) -> bool:
        depth = subscription.rpartition(".")[2]
        return not depth.isdecimal() or int(depth) == self._depth

    def _trades(self, message: Trades, ts_recv: int, out: ColumnBuffer) -> None:
        number = self._symbols[message.result.instrument_name]
        flags = Flag.LAST if message.id == UPDATES else Flag.LAST | Flag.SNAPSHOT
        for trade in reversed(message.result.data):
            identifier = whole_number(trade.d)
            time = trade.t * MILLISECOND if trade.tn is None else time_ns(trade.tn, 1)
            side = _SIDES.get(trade.s, NO_SIDE)
            row = (identifier, trade.p, trade.q, side, identifier)
            out.add_trade(number, time, ts_recv, *row, flags=flags)

    def _candles(self, result: CandleResult, ts_recv: int, out: ColumnBuffer) -> None:
        number, interval_ns = self._symbols[result.instrument_name], span_ns(result.interval)
        for candle in result.data:
            add_candle(
                out,
                number,
                ts_recv,
                start_ns=candle.t * MILLISECOND,
                interval_ns=interval_ns,
                prices=(candle.o, candle.h, candle.l, candle.c),
                volume=candle.v,
                ts_event=optional_ns(candle.ut),
            )

    def _levels(
        self,
        symbol: str,
        one: Image | Update,
        previous: int,
        sides: tuple[list[list[Any]], list[list[Any]]],
        ts_recv: int,
        out: ColumnBuffer,
    ) -> None:
        is_image = isinstance(one, Image)
        bids, asks = pairs_of(sides[0]), pairs_of(sides[1])
        is_cut = is_image and max(len(bids), len(asks)) >= self._depth
        out.add_book_update(
            self._symbols[symbol],
            (one.t if one.tt is None else one.tt) * MILLISECOND,
            ts_recv,
            bids,
            asks,
            first=one.u,
            last=one.u,
            previous=previous,
            flags=(Flag.SNAPSHOT if is_image else 0) | (Flag.PARTIAL if is_cut else 0),
            are_pairs=True,
        )

    def _derivative(self, name: str, payload: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append what only derivatives have."""
        if name == "ticker":
            tickers = parse_tickers(payload).result
            number, unit = self._symbols[tickers.instrument_name], InterestUnit.CONTRACT
            for item in tickers.data:
                if (interest := said(item.oi)) is not None:
                    time = item.t * MILLISECOND
                    add_open_interest(
                        out, number, ts_recv, value=interest, unit=unit, ts_event=time
                    )
            return
        values = parse_values(payload).result
        number = self._symbols[values.instrument_name]
        for value in values.data:
            time, state = value.t * MILLISECOND, FundingState.SETTLED
            if name == "mark":
                add_mark_price(out, number, ts_recv, mark_price=value.v, ts_event=time)
            else:
                add_funding(
                    out,
                    number,
                    ts_recv,
                    rate=value.v,
                    ts_event=time,
                    interval_ns=_HOUR_NS,
                    state=state,
                )

    def streams_of(self, payload: bytes) -> Sequence[str]:
        head = parse_head(payload)
        return () if head.result is None else (head.result.subscription,)

    def _answer(self, head: Head) -> Control:
        match head.method:
            case "public/heartbeat":
                identifier = whole_number(head.id)
                answer = {"id": identifier, "method": "public/respond-heartbeat"}
                return Reply(orjson.dumps(answer))
            case "subscribe":
                streams = self._requests.answered(head.id)
                if head.code == 0:
                    return Ack(streams) if streams else Notice.INFO
                text = f"{head.code} {head.message or ''}".strip()
                named = tuple(
                    stream for stream in streams if _is_named(stream, f"{text} {head.channel}")
                )
                return Refused(text, named or streams)
            case "unsubscribe" if head.code == 0:
                return Notice.INFO
        if head.code != 0:
            raise DecodeError(self.venue, f"error {head.code!r:.20} of {head.method!r:.40}")
        raise UnknownMessage(self.venue, f"method {head.method!r:.60}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return ("-" in symbol) == (market == "derivatives")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/exchange/v1/public/get-instruments")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        code = str(answer["code"])
        if code != "0":
            text = str(answer.get("message", ""))
            raise VenueError(cls.venue, code, text, temporary=code in _TEMPORARY)
        found: Iterable[Any] = answer["result"]["data"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        kind = entry["inst_type"]
        if kind not in _TYPES or _TYPES[kind][0] != market:
            return None
        is_trading = entry["tradable"] is True
        return Listing(entry["symbol"], is_trading, "tradable" if is_trading else "halted")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        _, contract = _TYPES[entry["inst_type"]]
        base, quote = entry["base_ccy"], entry["quote_ccy"]
        canonical, expiry_ns = f"{base}-{quote}".upper(), 0
        if contract is Contract.FUTURE:
            expiry_ns = time_ns(entry["expiry_timestamp_ms"])
            canonical += f"-{iso_text(expiry_ns)[:10].replace('-', '')}"
        elif contract is Contract.PERPETUAL:
            canonical += "-PERP"
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            canonical,
            base,
            quote,
            entry["price_tick_size"],
            entry["qty_tick_size"],
            contract=contract,
            settlement=quote,
            multiplier=str(entry.get("contract_size") or "1"),
            expiry_ns=expiry_ns,
        )


def _is_named(stream: str, text: str) -> bool:
    """Return True if a refusal's text names a stream or its symbol."""
    return stream in text or stream.split(".")[1] in text


adapter: type[FeedAdapter] = CryptoCom
