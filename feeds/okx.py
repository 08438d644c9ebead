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
- `trades` joins the fills of one taker order at one price; its side is the taker's. On subscribe
  it repeats the latest trade.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    Ack,
    AuditImage,
    BookRule,
    Continuity,
    Control,
    Endpoint,
    FeedAdapter,
    Filtered,
    Limits,
    Market,
    Notice,
    Reconnect,
    Refused,
    RestRequest,
)
from ingestor.batch import TickBuffer, fill
from ingestor.errors import UnknownMessage
from ingestor.instruments import Contract, Instrument, SizeUnit, instrument
from ingestor.rows import Flag, Rows, Side
from ingestor.timestamps import MILLISECOND, iso_text

_CHANNELS: Final = {"trades": "trades", "quotes": "bbo-tbt", "book": "books"}
_DEPTH: Final = 400
_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_BOOK_FLAGS: Final = {"snapshot": int(Flag.SNAPSHOT), "update": 0}
_EMPTY: Final = ("0", "0")
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
    )
}
_CANDLES: Final = Filtered("candles")
_UPGRADE: Final = "64008"  # the connection will be closed for an upgrade of the service
_REFUSED: Final = re.compile(r"channel:([\w-]+),instId:([\w-]+)")
_TYPES: Final = {"spot": "SPOT", "swap": "SWAP", "futures": "FUTURES"}
_MARKET: Final = Market(
    endpoints=(Endpoint("wss://ws.okx.com:8443/ws/v5/public"),),
    rest_url="https://www.okx.com",
    limits=Limits(
        streams_per_connection=240,
        streams_per_subscribe=30,  # a request is at most 64 KB; 480 requests an hour
        connects_per_s=3.0,
        requests_per_s=3.0,
        ping_interval_s=20.0,
    ),
    book=BookRule(continuity=Continuity.PREVIOUS),
)

_Decoder = Callable[[int, Any, int, TickBuffer], None]

_TRADES_BEGIN: Final = b'{"arg":{"channel":"trades"'  # as OKX sends them; others are read too


class _Argument(msgspec.Struct, gc=False):
    channel: Literal["trades"]
    instId: str  # noqa: N815  # the venue's name


class _Trade(msgspec.Struct, gc=False):
    tradeId: str  # noqa: N815  # the venue's name
    px: str
    sz: str
    side: Literal["buy", "sell"]
    ts: str  # ms


class _Trades(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[_Trade]


_parse_trades: Final = msgspec.json.Decoder(_Trades).decode


def _read_trades(trades: list[_Trade], rows: Rows) -> Sequence[list[str]]:
    fill(rows, "ts_event", [int(one.ts) * MILLISECOND for one in trades])
    fill(rows, "sequence", [int(one.tradeId) for one in trades])
    fill(rows, "side", [_SIDES[one.side] for one in trades])
    rows["trade_id_low"] = rows["sequence"]
    return [one.px for one in trades], [one.sz for one in trades]


class Okx:
    venue: ClassVar[str] = "okx"
    reference: ClassVar[str] = "OKX API v5, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(_TYPES, _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._decoders: dict[str, _Decoder] = {
            "bbo-tbt": self._quotes,
            "books": self._books,
        }

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return _operations("unsubscribe", streams)

    def ping(self) -> bytes | None:
        return b"ping"

    def decode(self, payload: bytes, ts_recv: int, out: TickBuffer) -> Control | None:
        if payload.startswith(_TRADES_BEGIN):
            self._trades(payload, ts_recv, out)
            return None
        try:
            message = orjson.loads(payload)
        except ValueError:
            if payload == b"pong":
                return Notice.HEARTBEAT
            raise
        if "data" not in message:
            return self._event(message)
        argument = message["arg"]
        channel = argument["channel"]
        if channel == "trades":
            self._trades(payload, ts_recv, out)
            return None
        decoder = self._decoders.get(channel)
        if decoder is None:
            return self._left_out(channel)
        decoder(self._symbols[argument["instId"]], message, ts_recv, out)
        return None

    def _trades(self, payload: bytes, ts_recv: int, out: TickBuffer) -> None:
        message = _parse_trades(payload)
        instrument = self._symbols[message.arg.instId]
        for trade in message.data:
            out.keep_trade(_read_trades, trade, instrument, ts_recv)

    def _quotes(self, instrument: int, message: Any, ts_recv: int, out: TickBuffer) -> None:
        for quote in message["data"]:
            bids, asks = quote["bids"], quote["asks"]
            bid = bids[0] if bids else _EMPTY
            ask = asks[0] if asks else _EMPTY
            out.quote(
                instrument,
                int(quote["ts"]) * MILLISECOND,
                ts_recv,
                quote.get("seqId", 0),
                bid[0],
                bid[1],
                ask[0],
                ask[1],
            )

    def _books(self, instrument: int, message: Any, ts_recv: int, out: TickBuffer) -> None:
        flags = _BOOK_FLAGS[message["action"]]
        for update in message["data"]:
            bids, asks = update["bids"], update["asks"]
            is_cut = flags and max(len(bids), len(asks)) >= _DEPTH
            number = update.get("seqId", 0)
            previous = update.get("prevSeqId", 0)
            out.levels(
                instrument,
                int(update["ts"]) * MILLISECOND,
                ts_recv,
                number,
                number,
                bids,
                asks,
                0 if previous == -1 else previous,
                flags | Flag.PARTIAL if is_cut else flags,
            )

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
            case {"event": "unsubscribe" | "channel-conn-count"}:
                return Notice.INFO
        raise UnknownMessage(self.venue, f"{message!r:.60}")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/api/v5/public/instruments", {"instType": _TYPES[market]})]

    @classmethod
    def parse_instruments(cls, market: str, bodies: Sequence[bytes]) -> list[Instrument]:
        return [
            _spot(one) if market == "spot" else _contract(market, one)
            for body in bodies
            for one in orjson.loads(body)["data"]
            if one["state"] == "live" and one["instType"] == _TYPES[market]
        ]

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: TickBuffer) -> None:
        raise UnknownMessage(self.venue, "books are seeded on the socket")

    def audit_request(self, symbol: str, depth: int) -> RestRequest:
        return RestRequest("/api/v5/market/books", {"instId": symbol, "sz": str(depth)})

    def decode_audit(self, symbol: str, body: bytes) -> AuditImage:
        """Images have no number: the document shows none."""
        [image] = orjson.loads(body)["data"]
        bids, asks = ([(level[0], level[1]) for level in image[side]] for side in ("bids", "asks"))
        return AuditImage(0, bids, asks)


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
    multiplier = Decimal(one["ctVal"]) * Decimal(one["ctMult"] or "1")
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
