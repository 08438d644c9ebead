"""The simulated venue: trades, quotes and book, as `ingestor.testbed.simulated` serves them.

Reference: this text, which is the venue's whole documentation.
Units: price, size are decimal text; `t` is nanoseconds, the moment at which the frame was sent.
Traps: none on purpose; it is the venue to read first.

A client sends, and the venue answers each stream with an ack or an error:
    {"op":"subscribe","streams":["book:S00001-USD","trade:S00001-USD"]}
    {"op":"ack","streams":["book:S00001-USD"]}
    {"op":"error","streams":["trade:S00001-USD"],"text":"no such stream"}
`unsubscribe` has the same form. {"op":"ping","id":7} wants {"op":"pong","id":7} within 30 s;
{"op":"heartbeat"} wants nothing; {"op":"reconnect","text":"..."} announces the end.

Data. `s` is the symbol. A trade's `m` is the taker's side. A book begins with a snapshot; every
update covers the numbers U to u, the next begins at u + 1; sizes are absolute and "0" removes. A
quote's `u` is the book's number that it belongs to.
    {"ch":"trade","s":"S00001-USD","t":1,"i":5,"p":"100.01","q":"0.5","m":"buy"}
    {"ch":"quote","s":"S00001-USD","t":1,"u":9,"b":["100.00","1"],"a":["100.01","2"]}
    {"ch":"snapshot","s":"S00001-USD","t":1,"u":9,"b":[["100.00","1"]],"a":[["100.01","2"]]}
    {"ch":"book","s":"S00001-USD","t":1,"U":10,"u":10,"b":[["100.00","0"]],"a":[]}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
import orjson

from ingestor.adapter import (
    Ack,
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
    Market,
    Notice,
    Reconnect,
    Refused,
    Reply,
    RestLimit,
    RestRequest,
    RowClass,
    Sequential,
    Side,
    UnknownMessage,
    instrument,
    level_pairs,
    shape,
)

_PREFIXES: Final = {"trades": "trade", "quotes": "quote", "book": "book"}
_SIDES: Final = {"buy": int(Side.BID), "sell": int(Side.ASK)}
_SNAPSHOT: Final = int(Flag.SNAPSHOT)
_STATUS: Final = Filtered("status")


# The texts of frequent frames.
_SHAPES: Final = (
    shape(
        RowClass.TRADE,
        '{"ch":"trade","s":"<symbol>","t":<int:ts_event>,"i":<int:sequence,trade_id_low>,'
        '"p":"<price:price>","q":"<size:size>","m":"<side:buy=1|sell=2>"}',
    ),
    shape(
        RowClass.QUOTE,
        '{"ch":"quote","s":"<symbol>","t":<int:ts_event>,"u":<int:sequence>,'
        '"b":["<price:bid_price>","<size:bid_size>"],"a":["<price:ask_price>","<size:ask_size>"]}',
    ),
    shape(
        RowClass.LEVEL,
        '{"ch":"book","s":"<symbol>","t":<int:ts_event>,"U":<int:first>,"u":<int:last>,'
        f'"b":{level_pairs("bids")},"a":{level_pairs("asks")}}}',
    ),
)

_Level = tuple[Any, Any]  # as text or bare: `float_hook` keeps the digits


class _Trade(msgspec.Struct, gc=False, tag_field="ch", tag="trade"):
    s: str
    t: Sequential
    i: Sequential
    p: Any
    q: Any
    m: Literal["buy", "sell"]


class _Quote(msgspec.Struct, gc=False, tag_field="ch", tag="quote"):
    s: str
    t: Sequential
    u: Sequential
    b: _Level
    a: _Level


class _Snapshot(msgspec.Struct, gc=False, tag_field="ch", tag="snapshot"):
    s: str
    t: Sequential
    u: Sequential
    b: list[_Level]
    a: list[_Level]


class _Book(msgspec.Struct, gc=False, tag_field="ch", tag="book"):
    s: str
    t: Sequential
    U: Sequential
    u: Sequential
    b: list[_Level]
    a: list[_Level]


_parse: Final = msgspec.json.Decoder(_Trade | _Quote | _Snapshot | _Book, float_hook=str).decode


def _append(
    event: _Trade | _Quote | _Snapshot | _Book, number: int, ts_recv: int, out: ColumnBuffer
) -> None:
    match event:
        case _Trade():
            out.add_trade(
                number, event.t, ts_recv, event.i, event.p, event.q, _SIDES[event.m], event.i
            )
        case _Quote():
            out.add_quote(number, event.t, ts_recv, event.u, *event.b, *event.a)
        case _Book(t=time, U=first, u=last, b=bids, a=asks):
            out.add_book_update(
                number, time, ts_recv, bids, asks, first=first, last=last, are_pairs=True
            )
        case _Snapshot(t=time, u=last, b=bids, a=asks):
            out.add_book_update(
                number,
                time,
                ts_recv,
                bids,
                asks,
                first=last,
                last=last,
                flags=_SNAPSHOT,
                are_pairs=True,
            )


class Simulated:
    venue: ClassVar[str] = "simulated"
    reference: ClassVar[str] = "feeds/simulated.py, read 2026-11-21"
    markets: ClassVar[Mapping[str, Market]] = {
        "spot": Market(
            endpoints=(Endpoint("ws://127.0.0.1:9443/stream"),),
            rest_url="http://127.0.0.1:9443",
            limits=Limits(
                streams_per_connection=100,
                streams_per_subscribe=50,
                connects_per_s=100.0,
                connects_burst=100,
                requests_per_s=50.0,
                rest=RestLimit(weight_per_s=1_000.0, weight_burst=1_000),
            ),
            book=BookRule(continuity=Continuity.RANGE, verify_with_quotes=True),
            recorded="made by this program",
        )
    }

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_PREFIXES[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("subscribe", streams)

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        return self._operations("unsubscribe", streams)

    def _operations(self, operation: str, streams: Sequence[str]) -> Iterator[bytes]:
        size = self.markets["spot"].limits.streams_per_subscribe
        for start in range(0, len(streams), size):
            yield orjson.dumps({"op": operation, "streams": streams[start : start + size]})

    def ping(self) -> bytes | None:
        return None

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
            event = _parse(payload)
        except msgspec.ValidationError as failure:
            return self._other(orjson.loads(payload), failure)
        _append(event, self._symbols[event.s], ts_recv, out)
        return None

    def _other(self, message: Any, failure: msgspec.ValidationError) -> Control:
        match message:
            case {"op": "ack", "streams": [*streams]}:
                return Ack(tuple(streams))
            case {"op": "error", "streams": [*streams], "text": str(text)}:
                return Refused(text, tuple(streams))
            case {"op": "ping", "id": int(number)}:
                return Reply(orjson.dumps({"op": "pong", "id": number}))
            case {"op": "heartbeat"}:
                return Notice.HEARTBEAT
            case {"op": "reconnect", "text": str(text)}:
                return Reconnect(text)
            case {"ch": "status"}:
                return _STATUS
            case {"ch": "trade" | "quote" | "snapshot" | "book"}:
                raise DecodeError(self.venue, str(failure))
        raise UnknownMessage(self.venue, f"{message!r:.60}")

    def streams_of(self, payload: bytes) -> Sequence[str]:
        message = orjson.loads(payload)
        kind, symbol = message["ch"], message["s"]
        return (f"{'book' if kind == 'snapshot' else kind}:{symbol}",)

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/instruments")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        found: Iterable[Any] = orjson.loads(body)["instruments"]
        return found

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        trading = entry["trading"]
        return Listing(entry["symbol"], trading, "trading" if trading else "halted")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        return instrument(
            cls.venue,
            market,
            entry["symbol"],
            f"{entry['base']}-{entry['quote']}",
            entry["base"],
            entry["quote"],
            entry["tick_size"],
            entry["lot_size"],
        )

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return None

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        """Append the book of a REST answer.

        Args:
            symbol: The venue's name of the instrument.
            body: Body of the answer.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        raise UnknownMessage(self.venue, "snapshots come on the socket")


adapter: type[FeedAdapter] = Simulated
