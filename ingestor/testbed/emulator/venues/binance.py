"""Binance as a client meets it: combined and raw streams, named in the address or by SUBSCRIBE.

Reference: Binance "WebSocket Streams" (live subscribing, error messages), as `feeds/binance/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from ingestor.testbed.emulator.venue import (
    Change,
    Print,
    Venue,
    VenueConnection,
    pairs,
    request_of,
    texts,
)


class Binance(Venue):
    """Spot and futures. Any stream name is acknowledged; book snapshots come by REST.

    `/stream` gives combined frames, `/ws/<stream>` the data alone. Both take streams in the
    address and by SUBSCRIBE.
    """

    name = "binance"
    refuses_unknown = False
    _KINDS: ClassVar = {"trade": "trades", "aggTrade": "trades", "bookTicker": "quotes"}
    _METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")

    def streams(self, message: Any) -> Iterable[str]:
        if "stream" in message:
            return (message["stream"],)
        if "result" in message or "error" in message or "s" not in message:
            return ()
        event = message.get("e", "bookTicker")
        if event == "kline":
            event = f"kline_{message['k']['i']}"
        return (f"{message['s'].lower()}@{'depth' if event == 'depthUpdate' else event}",)

    def channel(self, stream: str) -> tuple[str, str]:
        symbol, _, name = stream.partition("@")
        base, _, _ = name.partition("@")
        return symbol.upper(), "book" if base == "depth" else self._KINDS.get(base, name)

    def changes(self, message: Any) -> Iterator[Change]:
        data = message.get("data", message)
        if data.get("e") == "depthUpdate":
            (stream,) = self.streams(message)
            bids, asks = map(pairs, (data["b"], data["a"]))
            yield Change(
                stream, data["s"], is_image=False, bids=bids, asks=asks,
                first=data["U"], number=data["u"], details=(data["E"], data.get("T")),
            )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        data = message.get("data", message)
        match data:
            case {"s": symbol, "p": str(price), "q": str(size)}:
                yield symbol, price, size
            case {"s": symbol, "b": str(bid), "B": str(bid_size), "a": ask, "A": ask_size}:
                yield symbol, bid, bid_size
                yield symbol, ask, ask_size

    def opening(self, connection: VenueConnection, path: str) -> Iterator[bytes]:
        parts = urlsplit(path)
        if "/ws/" in parts.path:
            named = parts.path.partition("/ws/")[2]
        else:
            named = ",".join(parse_qs(parts.query).get("streams", []))
        for stream in unquote(named).replace(",", "/").split("/"):
            if stream:
                connection.subscribe(stream)
        yield from ()

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        request = request_of(text)
        if request is None:
            yield _binance_error(3, "Invalid JSON: expected value at line 1 column 1", None)
            return
        number, method = request.get("id"), request.get("method")
        streams = texts(request.get("params", []))
        if not isinstance(number, int | str | None):
            yield _binance_error(2, "Invalid request: request ID must be an unsigned integer", None)
        elif method not in self._METHODS:
            known = ", ".join(f"`{one}`" for one in self._METHODS)
            problem = f"Invalid request: unknown variant `{method}`, expected one of {known}"
            yield _binance_error(2, problem, number)
        elif streams is None:
            yield _binance_error(2, "Invalid request: params must be a list of strings", number)
        elif method == "LIST_SUBSCRIPTIONS":
            yield orjson.dumps({"result": list(connection.subscribed), "id": number})
        else:
            change = connection.subscribe if method == "SUBSCRIBE" else connection.unsubscribe
            for stream in streams:
                change(stream)
            yield orjson.dumps({"result": None, "id": number})

    def dress(self, payload: bytes, stream: str, connection: VenueConnection) -> bytes:
        combined = payload.startswith(b'{"stream":')
        wants_combined = not urlsplit(connection.path).path.rstrip("/").partition("/ws")[1]
        if combined == wants_combined:
            return payload
        if wants_combined:
            return b'{"stream":%b,"data":%b}' % (orjson.dumps(stream), payload)
        start = payload.index(b'"data":') + len(b'"data":')
        return payload[start : payload.rindex(b"}")]


def _binance_error(code: int, text: str, number: object) -> bytes:
    return orjson.dumps({"error": {"code": code, "msg": text}, "id": number})
