"""bitFlyer Lightning, spot and FX: executions, the ticker's best levels, and boards.

Reference: bitFlyer Lightning API, "Realtime API" (JSON-RPC 2.0 over WebSocket): Ticker, Executions,
Order Book Snapshots, Order Book Updates; HTTP "Market List", read 2026-11-30.
Units: prices and sizes are bare JSON numbers, read with their digits kept, in base; times are RFC
3339 with seven decimals. Boards have no time.
Traps:
- A board is two channels: images now and then, `lightning_board_snapshot_`, and what changed since,
  `lightning_board_`. Nothing numbers them: the next image heals what was lost.
- A level at price 0 holds market orders before an auction (itayose) and is no price.
- `side` of an execution is the taker's, empty in an auction.
- The list of markets has no increments: exponents are what the venue is known to print.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import msgspec
import orjson

from ingestor.adapter import (
    Ack,
    BookRule,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    Endpoint,
    FeedAdapter,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Notice,
    PlainFeed,
    Refused,
    RestLimit,
    RestRequest,
    Sequential,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    instrument,
    iso_event_ns,
)

_PREFIXES: Final = {
    "trades": ("lightning_executions_",),
    "quotes": ("lightning_ticker_",),
    "book": ("lightning_board_snapshot_", "lightning_board_"),
}
_STREAMS: Final = {"trades": "executions", "quotes": "ticker", "book": "board"}
_CHANNEL_OF: Final = {  # the longer ones first: one begins as another does
    "lightning_board_snapshot_": "board",
    "lightning_board_": "board",
    "lightning_executions_": "executions",
    "lightning_ticker_": "ticker",
}
_SIDES: Final = {"BUY": int(Side.BID), "SELL": int(Side.ASK), "": int(Side.NONE)}
_LAST: Final = int(Flag.LAST)
_UNTIMED: Final = int(Flag.NO_VENUE_TIME)
_TYPES: Final = {"Spot": "spot", "FX": "fx", "Futures": "futures"}  # the last are not offered
_PRICE_DIGITS: Final = 5
_SIZE_DIGITS: Final = 8


class _Execution(msgspec.Struct, gc=False):
    id: Sequential
    side: str
    price: Any  # `float_hook` keeps the digits
    size: Any
    exec_date: str


class _Ticker(msgspec.Struct, gc=False):
    timestamp: str
    best_bid: Any
    best_ask: Any
    best_bid_size: Any
    best_ask_size: Any
    tick_id: Sequential = 0


class _Level(msgspec.Struct, gc=False):
    price: Any
    size: Any


class _Board(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]


class _Parameters(msgspec.Struct, gc=False):
    channel: str
    message: msgspec.Raw


class _Head(msgspec.Struct, gc=False):
    """Tell which message it is."""

    method: str = ""
    params: _Parameters | None = None
    id: Any = None
    result: Any = None
    error: Any = None


_parse_head: Final = msgspec.json.Decoder(_Head).decode
_parse_executions: Final = msgspec.json.Decoder(list[_Execution], float_hook=str).decode
_parse_ticker: Final = msgspec.json.Decoder(_Ticker, float_hook=str).decode
_parse_board: Final = msgspec.json.Decoder(_Board, float_hook=str).decode

_MARKET: Final = Market(
    endpoints=(Endpoint("wss://ws.lightstream.bitflyer.com/json-rpc"),),
    rest_url="https://api.bitflyer.com",
    limits=Limits(
        streams_per_connection=60,
        streams_per_subscribe=1,
        connects_per_s=0.5,  # none is documented
        requests_per_s=5.0,
        rest=RestLimit(weight_per_s=0.8, weight_burst=2),  # 500 in five minutes
        frame_bytes_max=4 << 20,
    ),
    book=BookRule(Continuity.NONE),
    trade_numbers=TradeNumbers.ASCENDING,
)


class BitFlyer(PlainFeed):
    venue: ClassVar[str] = "bitflyer"
    reference: ClassVar[str] = "bitFlyer Lightning Realtime API, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = dict.fromkeys(("spot", "fx"), _MARKET)

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._number = 0
        self._asked: dict[int, str] = {}  # request -> its stream

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_STREAMS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, method: str, streams: Sequence[str]) -> Iterator[bytes]:
        """Yield the requests: a board wants two, of which the second confirms it."""
        for stream in streams:
            name, _, symbol = stream.partition(":")
            channel = next(one for one, known in _STREAMS.items() if known == name)
            for prefix in _PREFIXES[channel]:
                self._number += 1
                parameters = {"channel": prefix + symbol}
                request = {"jsonrpc": "2.0", "method": method, "params": parameters}
                yield orjson.dumps(request | {"id": self._number})
            if method == "subscribe":
                self._asked[self._number] = stream

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        head = _parse_head(payload)
        if head.method != "channelMessage" or head.params is None:
            return self._answer(payload, head)
        channel = head.params.channel
        prefix = next((item for item in _CHANNEL_OF if channel.startswith(item)), "")
        number_of, message = self._symbols, bytes(head.params.message)
        match _CHANNEL_OF.get(prefix):
            case "executions":
                number = number_of[channel.removeprefix(prefix)]
                for parse_execution in _parse_executions(message):
                    row = (
                        parse_execution.id,
                        parse_execution.price,
                        parse_execution.size,
                        _SIDES[parse_execution.side],
                        parse_execution.id,
                    )
                    flags = _LAST if parse_execution.side else _LAST | Flag.AUCTION
                    out.add_trade(
                        number,
                        iso_event_ns(parse_execution.exec_date),
                        ts_recv,
                        *row,
                        flags=flags,
                    )
            case "ticker":
                ticker = _parse_ticker(message)
                number = number_of[channel.removeprefix(prefix)]
                bid = ticker.best_bid, ticker.best_bid_size
                ask = ticker.best_ask, ticker.best_ask_size
                time = iso_event_ns(ticker.timestamp)
                out.add_quote(number, time, ts_recv, ticker.tick_id, *bid, *ask)
            case "board":
                board = _parse_board(message)
                number = number_of[channel.removeprefix(prefix)]
                is_image = prefix == "lightning_board_snapshot_"
                flags = _UNTIMED | Flag.SNAPSHOT if is_image else _UNTIMED
                sides = _levels(board.bids), _levels(board.asks)
                out.add_book_update(number, ts_recv, ts_recv, *sides, flags=flags, are_pairs=True)
            case _:
                raise UnknownMessage(self.venue, f"channel {channel!r:.60}")
        return None

    def streams_of(self, payload: bytes) -> Sequence[str]:
        parameters = _parse_head(payload).params
        if parameters is None:
            return ()
        for prefix, name in _CHANNEL_OF.items():
            if parameters.channel.startswith(prefix):
                return (f"{name}:{parameters.channel.removeprefix(prefix)}",)
        return ()

    def _answer(self, payload: bytes, head: _Head) -> Control:
        stream = self._asked.pop(head.id, None) if type(head.id) is int else None
        streams = () if stream is None else (stream,)
        if head.error is not None:
            return Refused(f"{head.error['code']} {head.error['message']}", streams)
        if head.result is True:
            return Ack(streams) if streams else Notice.INFO
        raise UnknownMessage(self.venue, f"{payload[:60]!r}")

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return symbol.startswith("FX_") == (market == "fx")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/v1/getmarkets")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if isinstance(answer, dict) and "status" in answer:
            code, text = str(answer["status"]), str(answer.get("error_message", ""))
            raise VenueError(cls.venue, code, text, temporary="many" in text.lower())
        if not isinstance(answer, list) or not answer:
            raise ValueError("no list of instruments")
        return answer

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        if _TYPES[entry["market_type"]] != market:
            return None
        return Listing(entry["product_code"], trading=True, status="listed")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        symbol = entry["product_code"]
        base, _, quote = symbol.removeprefix("FX_").partition("_")
        if not base or not quote:
            raise ValueError(f"{symbol!r:.40} is no pair")
        is_fx = market == "fx"
        found = instrument(
            cls.venue,
            market,
            symbol,
            f"{base}-{quote}{'-PERP' if is_fx else ''}".upper(),
            base,
            quote,
            "0.00001",
            "0.00000001",
            contract=Contract.PERPETUAL if is_fx else Contract.SPOT,
            settlement=quote,
        )
        return replace(found, price_exponent=_PRICE_DIGITS, size_exponent=_SIZE_DIGITS)


def _levels(levels: Sequence[_Level]) -> list[tuple[Any, Any]]:
    """Return a side's levels but that of market orders, at price 0."""
    return [(level.price, level.size) for level in levels if str(level.price).strip("0.")]


adapter: type[FeedAdapter] = BitFlyer
