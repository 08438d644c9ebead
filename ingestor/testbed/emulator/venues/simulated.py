"""Emulate the simulated venue, so that a demo's own recording can be served.

Reference: `feeds/simulated.py`, which is the venue's whole documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from feeds.simulated import Simulated as SimulatedAdapter
from ingestor.testbed.emulator.venue import (
    Book,
    Change,
    Listed,
    Print,
    Venue,
    VenueConnection,
    request_of,
    texts,
)

_KINDS = {"trade": "trade", "quote": "quote", "snapshot": "book", "book": "book"}


class Simulated(Venue):
    """One market; a book's image comes on the socket."""

    name = "simulated"
    adapter = SimulatedAdapter

    def streams(self, message: Any) -> Iterable[str]:
        match message:
            case {"ch": str(kind), "s": str(symbol)} if kind in _KINDS:
                return (f"{_KINDS[kind]}:{symbol}",)
        return ()

    def changes(self, message: Any) -> Iterator[Change]:
        match message:
            case {"ch": "snapshot" | "book" as kind, "s": symbol, "t": time, "u": last}:
                bids, asks = ([(price, size) for price, size in message[x]] for x in ("b", "a"))
                yield Change(
                    f"book:{symbol}",
                    symbol,
                    kind == "snapshot",
                    bids,
                    asks,
                    first=message.get("U", last),
                    number=last,
                    details=time,
                )

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        match message:
            case {"ch": "trade", "s": symbol, "p": price, "q": size}:
                yield symbol, price, size

    def image(self, stream: str, book: Book) -> bytes | None:
        return orjson.dumps(
            {
                "ch": "snapshot",
                "s": book.symbol,
                "t": book.details,
                "u": book.number,
                "b": book.bids(),
                "a": book.asks(),
            }
        )

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        request = request_of(text) or {}
        operation, streams = request.get("op"), texts(request.get("streams"))
        if operation == "pong":
            return
        if operation not in {"subscribe", "unsubscribe"} or streams is None:
            yield _answer("error", [], text="no such operation")
            return
        change = connection.subscribe if operation == "subscribe" else connection.unsubscribe
        good = [stream for stream in streams if change(stream)]
        bad = [stream for stream in streams if stream not in good]
        if good:
            yield _answer("ack", good)
        if bad:
            yield _answer("error", bad, text="no such stream")

    def heartbeat(self, connection: VenueConnection) -> bytes | None:
        return b'{"op":"heartbeat"}' if connection.subscribed else None

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        listed = [
            {
                "symbol": instrument.symbol,
                "base": instrument.base,
                "quote": instrument.quote,
                "tick_size": instrument.tick_size,
                "lot_size": instrument.lot_size,
                "trading": True,
            }
            for instrument in instruments
        ]
        return {"instruments": listed}


def _answer(operation: str, streams: Sequence[str], **more: str) -> bytes:
    return orjson.dumps({"op": operation, "streams": streams, **more})


venue = Simulated()
