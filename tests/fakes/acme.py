"""A small adapter whose books are seeded over REST, for tests that need no venue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import orjson

from ingestor.adapter import (
    BookRule,
    Continuity,
    Control,
    Endpoint,
    Flag,
    Instrument,
    Limits,
    Listing,
    Market,
    Notice,
    RestRequest,
    SnapshotSource,
    instrument,
)
from ingestor.columns.buffer import ColumnBuffer

MS = 1_000_000
MARKET = Market(
    (Endpoint("wss://acme.example"),),
    "https://acme.example",
    Limits(),
    BookRule(Continuity.INCREMENT, SnapshotSource.REST),
)


class Acme:
    """trades: {"s", "i", "p", "q"}; book: {"s", "u", "b", "a"}; anything else is a notice."""

    venue: ClassVar[str] = "acme"
    reference: ClassVar[str] = "none"
    markets: ClassVar[Mapping[str, Market]] = {"spot": MARKET, "swap": MARKET}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols

    def stream(self, channel: str, symbol: str) -> str:
        return f"{channel}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        yield orjson.dumps(list(streams))

    def unsubscribe(self, streams: Sequence[str]) -> Iterable[bytes]:
        yield orjson.dumps(list(streams))

    def ping(self) -> bytes | None:
        return None

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        message = orjson.loads(payload)
        if "s" not in message:
            return Notice.INFO
        number = self._symbols[message["s"]]
        if "p" in message:
            out.add_trade(
                number, ts_recv - MS, ts_recv, message["i"], message["p"], message["q"], 1
            )
        else:
            update, bids, asks = message["u"], message["b"], message["a"]
            out.add_book_update(
                number, ts_recv - MS, ts_recv, bids, asks, first=update, last=update
            )
        return None

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest("/instruments", {"market": market})]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Sequence[Any]:
        return list(orjson.loads(body).items())

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry[0], True, "trading")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        symbol, tick = entry
        return instrument("acme", market, symbol, symbol, symbol, "USD", tick, "0.001")

    def snapshot_request(self, symbol: str) -> RestRequest | None:
        return RestRequest("/v1/depth", {"symbol": symbol, "limit": "100"})

    def decode_snapshot(self, symbol: str, body: bytes, ts_recv: int, out: ColumnBuffer) -> None:
        message = orjson.loads(body)
        out.add_book_update(
            self._symbols[symbol],
            ts_recv,
            ts_recv,
            message["b"],
            message["a"],
            last=message["u"],
            flags=int(Flag.SNAPSHOT | Flag.NO_VENUE_TIME),
        )
