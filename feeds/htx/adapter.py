"""HTX (Huobi), spot, linear and inverse contracts: trades, best bid and ask, incremental books.

Reference: HTX API docs: Spot "Websocket Market Data" (Trade Detail, Best Bid/Offer, Market By
Price incremental), USDT-M and Coin-M futures "WebSocket Market Interface" (Trade Detail, BBO,
Incremental Market Depth), "Get all Supported Trading Symbol V2", "Query Contract Info".
Units: prices and sizes are bare JSON numbers, perhaps with an exponent; times are milliseconds.
Sizes of contracts count contracts.
Traps:
- Every frame is gzip. The server sends {"ping":n} and wants {"pong":n} within 5 s.
- Spot's book is on another address than its trades and quotes. Its image is asked for on the
  socket with `req`, apart from the subscription; updates are held until it comes. `prevSeqNum`
  names the update before.
- A contract's book begins with `event` snapshot; `version` then rises by one.
- `id` of a spot trade has more than 64 bits; `tradeId` is the number of the fill.
- The side of a trade is the taker's.
- Funding and liquidations of contracts are on addresses of their own, which speak otherwise: `op`,
  `cid`, `topic`. The direction of a liquidation is its order's.
- Symbols of spot are in lower case.
- A level of size 0 is removed.
- A candle (spot's are read) does not say whether it is closed.
- `depth.step0` and `mbp.refresh` are whole books, on spot's first address. Other steps are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    INT64_MAX,
    MILLISECOND,
    NO_SIDE,
    OTHER_BOOK,
    TAKER_SIDES,
    Ack,
    BookOffer,
    BookRule,
    ColumnBuffer,
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
    Notice,
    PlainFeed,
    Refused,
    Reply,
    Requests,
    RestLimit,
    RestRequest,
    Sequential,
    SnapshotSource,
    UnknownMessage,
    gunzipped,
)

from . import images, instruments, notifications

_ID_MASK: Final = (1 << 64) - 1
_LEVELS: Final = "mbp.400"
_CANDLES: Final = "kline.1min"
_DEPTH: Final = "depth.size_150.high_freq"
# A book of fewer levels, as recordings of others may have, is read as ours.
_DEPTHS: Final = re.compile(r"^(mbp\.(5|20|150|400)|depth\.size_(20|150)\.high_freq)$")
_TOPICS: Final = {
    "spot": {"trades": "trade.detail", "quotes": "bbo", "book": _LEVELS, "candles": _CANDLES},
    "linear": {"trades": "trade.detail", "quotes": "bbo", "book": _DEPTH},
    "inverse": {"trades": "trade.detail", "quotes": "bbo", "book": _DEPTH},
}
_OTHERS: Final = ("kline", "depth", "detail", "ticker", "mbp", "mark_price", "index", "basis")
_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT | Flag.PARTIAL), "update": 0}
_KNOWN_ALREADY: Final = "repeat"  # what a refusal says of a topic that is subscribed to
_Pair = tuple[Any, Any]  # price and size, bare: `float_hook` keeps the digits


class _Trade(msgspec.Struct, rename="camel", gc=False):
    ts: Milliseconds
    price: Any
    amount: Any
    direction: str
    id: int = 0
    trade_id: Sequential = 0


class _Trades(msgspec.Struct, gc=False):
    data: list[_Trade]


class _SpotQuote(msgspec.Struct, rename="camel", gc=False):
    ask: Any
    ask_size: Any
    bid: Any
    bid_size: Any
    quote_time: Milliseconds
    seq_id: Sequential = 0


class _ContractQuote(msgspec.Struct, gc=False):
    ts: Milliseconds
    bid: _Pair | None = None
    ask: _Pair | None = None
    version: Sequential = 0


class _SpotLevels(msgspec.Struct, rename="camel", gc=False):
    seq_num: Sequential
    bids: list[_Pair] = []
    asks: list[_Pair] = []
    prev_seq_num: Sequential = 0


class _ContractLevels(msgspec.Struct, gc=False):
    event: Literal["snapshot", "update"]
    ts: Milliseconds
    version: Sequential
    bids: list[_Pair] = []
    asks: list[_Pair] = []


class _Message(msgspec.Struct, gc=False):
    """Tell which message it is; `tick` and `data` are read when that is known."""

    ch: str = ""
    op: str = ""
    ts: Any = None
    tick: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw(b"null")
    rep: str = ""
    ping: int | None = None
    status: str = ""
    subbed: str = ""
    unsubbed: str = ""
    id: Any = None


_parse: Final = msgspec.json.Decoder(_Message).decode
_parse_notification: Final = msgspec.json.Decoder(notifications.Notification).decode
_parse_trades: Final = msgspec.json.Decoder(_Trades, float_hook=str).decode
_parse_spot_quote: Final = msgspec.json.Decoder(_SpotQuote, float_hook=str).decode
_parse_contract_quote: Final = msgspec.json.Decoder(_ContractQuote, float_hook=str).decode
_parse_spot_levels: Final = msgspec.json.Decoder(_SpotLevels, float_hook=str).decode
_parse_contract_levels: Final = msgspec.json.Decoder(_ContractLevels, float_hook=str).decode

_FRAME_BYTES_MAX: Final = 4 << 20
_LIMITS: Final = Limits(
    streams_per_connection=100,
    streams_per_subscribe=1,
    connects_per_s=2.0,
    connects_burst=5,
    requests_per_s=20.0,  # 50 requests a second on a connection of spot, 30 of contracts
    rest=RestLimit(weight_per_s=5.0, weight_burst=10),
    frame_bytes_max=_FRAME_BYTES_MAX,
)


_SPOT_RULE: Final = BookRule(Continuity.PREVIOUS, SnapshotSource.REQUEST, depth_max=400)
_CONTRACT_RULE: Final = BookRule(Continuity.INCREMENT, depth_max=150)
_SPOT_URL: Final = "wss://api.huobi.pro/ws"


def _contracts(path: str) -> Market:
    notes = f"wss://api.hbdm.com/{path.removesuffix('ws')}notification"
    return Market(
        endpoints=(
            Endpoint(f"wss://api.hbdm.com/{path}"),
            Endpoint(notes, frozenset(notifications.TOPICS)),
        ),
        rest_url="https://api.hbdm.com",
        limits=_LIMITS,
        book=_CONTRACT_RULE,
        books=(BookOffer(150, 30), images.offer(_CONTRACT_RULE, 150, 100)),
    )


class Htx(PlainFeed):
    venue: ClassVar[str] = "htx"
    reference: ClassVar[str] = "HTX API docs, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(
                Endpoint(_SPOT_URL, frozenset({"trades", "quotes", "candles"})),
                Endpoint("wss://api.huobi.pro/feed", frozenset({"book"})),
            ),
            rest_url="https://api.huobi.pro",
            other_hosts=("api.htx.com", "api-aws.huobi.pro"),
            limits=_LIMITS,
            book=_SPOT_RULE,
            books=(
                BookOffer(400, 100),
                images.offer(_SPOT_RULE, 150, 1_000, _SPOT_URL),
                images.offer(_SPOT_RULE, 20, 100, _SPOT_URL),
            ),
        ),
        "linear": _contracts("linear-swap-ws"),
        "inverse": _contracts("swap-ws"),
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._is_spot = market == "spot"
        self._topics = dict(_TOPICS[market])
        self._increments = self._topics["book"]
        self._kinds = {topic: channel for channel, topic in self._topics.items()}
        self._symbols = symbols
        self._requests = Requests(1)

    def choose_book(self, offer: BookOffer) -> None:
        self._topics["book"] = images.topic(offer) or self._increments
        self._kinds = {topic: channel for channel, topic in self._topics.items()}

    def stream(self, channel: str, symbol: str) -> str:
        topic = notifications.TOPICS.get(channel)
        if topic is not None:
            return f"{notifications.PREFIX}{symbol}.{topic}"
        return f"market.{symbol}.{self._topics[channel]}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams):
            yield _request("sub", stream, str(number))
            if stream.endswith(_LEVELS):
                yield orjson.dumps({"req": stream, "id": f"image {number}"})

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        for number, (stream,) in self._requests.parts(streams, keep=False):
            yield _request("unsub", stream, str(number))

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        text = gunzipped(payload, _FRAME_BYTES_MAX)
        message = _parse(text)
        if message.op:
            told = _parse_notification(text)
            return notifications.take(told, self._symbols, self._requests.answered, ts_recv, out)
        if message.ping is not None:
            return Reply(orjson.dumps({"pong": message.ping}))
        if message.ch:
            return self._data(message, ts_recv, out)
        if message.rep and message.status == "ok":
            self._image(message, ts_recv, out)
            return None
        if message.status == "ok" and (message.subbed or message.unsubbed):
            self._requests.answered(message.id)
            return Ack((message.subbed,)) if message.subbed else Notice.INFO
        if message.status == "error":
            return self._refused(text, message)
        raise UnknownMessage(self.venue, f"{text[:60]!r}")

    def _data(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> Control | None:
        symbol, topic = _parts(message.ch)
        topic = _DEPTHS.sub(self._increments, topic)
        match self._kinds.get(topic):
            case "candles":
                images.append_candle(self._symbols[symbol], topic, message, ts_recv, out)
            case "trades":
                self._trades(self._symbols[symbol], _parse_trades(message.tick), ts_recv, out)
            case "quotes":
                append = self._spot_quote if self._is_spot else self._contract_quote
                append(self._symbols[symbol], message.tick, ts_recv, out)
            case "book" if topic in images.TOPICS:
                images.append(self._symbols[symbol], message.tick, message.ts, ts_recv, out)
            case "book" if self._is_spot:
                levels = _parse_spot_levels(message.tick)
                self._levels(symbol, message, levels, levels.prev_seq_num, 0, ts_recv, out)
            case "book":
                self._contract_levels(symbol, message.tick, ts_recv, out)
            case None if topic == self._increments or topic in images.TOPICS:
                return OTHER_BOOK
            case _:
                kind = topic.partition(".")[0]
                if not message.ch.startswith("market.") or kind not in _OTHERS:
                    raise UnknownMessage(self.venue, f"topic {message.ch!r:.60}")
                return Filtered(kind)
        return None

    def _trades(self, number: int, trades: _Trades, ts_recv: int, out: ColumnBuffer) -> None:
        for trade in trades.data:
            identifier = trade.trade_id or trade.id
            if not 0 <= identifier < 1 << 127:
                raise ValueError(f"trade {identifier} has no number of 127 bits")
            out.add_trade(
                number,
                trade.ts * MILLISECOND,
                ts_recv,
                identifier if identifier <= INT64_MAX else 0,
                trade.price,
                trade.amount,
                TAKER_SIDES.get(trade.direction, NO_SIDE),
                identifier & _ID_MASK,
                trade_id_high=identifier >> 64,
            )

    def _spot_quote(self, number: int, tick: msgspec.Raw, ts_recv: int, out: ColumnBuffer) -> None:
        quote = _parse_spot_quote(tick)
        bid = (quote.bid, quote.bid_size) if quote.bid is not None else ("0", "0")
        ask = (quote.ask, quote.ask_size) if quote.ask is not None else ("0", "0")
        out.add_quote(number, quote.quote_time * MILLISECOND, ts_recv, quote.seq_id, *bid, *ask)

    def _contract_quote(
        self, number: int, tick: msgspec.Raw, ts_recv: int, out: ColumnBuffer
    ) -> None:
        quote = _parse_contract_quote(tick)
        bid, ask = quote.bid or ("0", "0"), quote.ask or ("0", "0")
        out.add_quote(number, quote.ts * MILLISECOND, ts_recv, quote.version, *bid, *ask)

    def _levels(
        self,
        symbol: str,
        message: _Message,
        levels: _SpotLevels,
        previous: int,
        flags: int,
        ts_recv: int,
        out: ColumnBuffer,
    ) -> None:
        out.add_book_update(
            self._symbols[symbol],
            msgspec.convert(message.ts, Milliseconds) * MILLISECOND,
            ts_recv,
            levels.bids,
            levels.asks,
            first=levels.seq_num,
            last=levels.seq_num,
            previous=previous,
            flags=flags,
            are_pairs=True,
        )

    def _image(self, message: _Message, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the answer to `req`."""
        symbol, topic = _parts(message.rep)
        if not self._is_spot or _DEPTHS.sub(_LEVELS, topic) != _LEVELS:
            raise UnknownMessage(self.venue, f"answer of {message.rep!r:.60}")
        levels = _parse_spot_levels(message.data)
        self._levels(symbol, message, levels, 0, _FLAGS["snapshot"], ts_recv, out)

    def _contract_levels(
        self, symbol: str, tick: msgspec.Raw, ts_recv: int, out: ColumnBuffer
    ) -> None:
        levels = _parse_contract_levels(tick)
        out.add_book_update(
            self._symbols[symbol],
            levels.ts * MILLISECOND,
            ts_recv,
            levels.bids,
            levels.asks,
            first=levels.version,
            last=levels.version,
            flags=_FLAGS[levels.event],
            are_pairs=True,
        )

    def _refused(self, text: bytes, message: _Message) -> Control:
        answer = orjson.loads(text)
        words = str(answer.get("err-msg", ""))
        streams = self._requests.answered(message.id)
        if _KNOWN_ALREADY in words and streams:
            return Ack(streams)
        return Refused(f"{answer.get('err-code', '')} {words}".strip(), streams)

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(gunzipped(payload, _FRAME_BYTES_MAX))
        if message.get("op") == "notify":
            return (message["topic"],)
        symbol, topic = _parts(message.get("ch") or message["rep"])
        topic = _DEPTHS.sub(self._increments, topic)
        is_ours = topic in self._kinds or topic in images.TOPICS
        return (f"market.{symbol}.{topic}",) if is_ours else ()

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        query = {"business_type": "all"} if market == "linear" else {}
        return [RestRequest(instruments.PATHS[market], query)]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        return instruments.entries(body)

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return instruments.listing(market, entry)

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return instruments.parse(market, entry)


def _parts(topic: str) -> tuple[str, str]:
    """Return symbol and kind of a topic: market.<symbol>.<kind>."""
    _, _, rest = topic.partition(".")
    symbol, _, kind = rest.partition(".")
    return symbol, kind


def _request(verb: str, stream: str, number: str) -> bytes:
    if stream.startswith(notifications.PREFIX):
        return orjson.dumps({"op": verb, "cid": number, "topic": stream})
    request = {verb: stream, "id": number}
    if stream.endswith(_DEPTH):
        request["data_type"] = "incremental"
    return orjson.dumps(request)


adapter: type[FeedAdapter] = Htx
