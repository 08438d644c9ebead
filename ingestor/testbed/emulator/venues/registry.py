"""The five venues as a client meets them: requests, answers, and what a recorded frame belongs to.

Reference: each venue's websocket documentation, as the adapters in `feeds/` name it. Error texts
are those that the venues document, or have been seen to send.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

import orjson

from ingestor.testbed.emulator.venue import (
    Book,
    Change,
    Print,
    Venue,
    VenueConnection,
    now_text,
    pairs,
    request_of,
    texts,
)
from ingestor.testbed.emulator.venues.binance import Binance


class Coinbase(Venue):
    """Advanced Trade. Every message of a connection is numbered, acks and heartbeats too."""

    name = "coinbase"
    number = re.compile(rb'"sequence_num":\s*(\d+)')
    always = frozenset({"heartbeats:heartbeats"})
    _CHANNELS: ClassVar = {"l2_data": "level2"}
    _KNOWN: ClassVar = (
        *("heartbeats", "candles", "status", "ticker", "ticker_batch", "level2"),
        "market_trades",
    )
    _LISTS: ClassVar = ("trades", "tickers", "candles")

    def streams(self, message: Any) -> Iterable[str]:
        channel = message.get("channel")
        if channel in {None, "subscriptions"}:
            return ()
        if channel == "heartbeats":
            return ("heartbeats:heartbeats",)
        name = self._CHANNELS.get(channel, channel)
        found: dict[str, None] = {}
        for event in message["events"]:
            if "product_id" in event:
                found[event["product_id"]] = None
            for kind in self._LISTS:
                found.update(dict.fromkeys(one["product_id"] for one in event.get(kind, ())))
        return [f"{name}:{symbol}" for symbol in found]

    def changes(self, message: Any) -> Iterator[Change]:
        if message.get("channel") != "l2_data":
            return
        for event in message["events"]:
            sides: dict[str, list[tuple[str, str]]] = {"bid": [], "offer": []}
            for one in event["updates"]:
                sides[one["side"]].append((one["price_level"], one["new_quantity"]))
            yield Change(
                f"level2:{event['product_id']}", event["product_id"], event["type"] == "snapshot",
                sides["bid"], sides["offer"], details=message["timestamp"],
            )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        for event in message.get("events", ()):
            for one in event.get("trades", ()):
                yield one["product_id"], one["price"], one["size"]

    def image(self, stream: str, book: Book) -> bytes | None:
        sides = (("bid", book.bids()), ("offer", book.asks()))
        updates = [
            {"side": side, "event_time": book.details, "price_level": price, "new_quantity": size}
            for side, levels in sides
            for price, size in levels
        ]
        event = {"type": "snapshot", "product_id": book.symbol, "updates": updates}
        return _coinbase_frame("l2_data", book.details, event)

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        request = request_of(text) or {}
        kind, channel = request.get("type"), request.get("channel")
        symbols = texts(request.get("product_ids", []))
        if kind not in {"subscribe", "unsubscribe"} or symbols is None:
            yield _coinbase_error("failed to parse the request: expected type and channel")
            return
        if channel not in self._KNOWN:
            yield _coinbase_error(f"channel {channel!s:.60} does not exist")
            return
        wanted = ["heartbeats"] if channel == "heartbeats" else symbols
        if kind == "subscribe":
            unknown = [one for one in wanted if not connection.subscribe(f"{channel}:{one}")]
            if unknown:
                yield _coinbase_error(f"{', '.join(unknown)} is not a valid product")
        else:
            for one in wanted:
                connection.unsubscribe(f"{channel}:{one}")
        subscriptions: dict[str, list[str]] = {}
        for stream in connection.subscribed:
            name, _, symbol = stream.partition(":")
            subscriptions.setdefault(name, []).append(symbol)
        yield _coinbase_frame("subscriptions", now_text(), {"subscriptions": subscriptions})

    def heartbeat(self, connection: VenueConnection) -> bytes | None:
        """Where the recording has heartbeats, those are played."""
        if "heartbeats:heartbeats" not in connection.subscribed or connection.has_symbol(
            "heartbeats"
        ):
            return None
        time = now_text()
        return _coinbase_frame("heartbeats", time, {"current_time": time, "heartbeat_counter": 0})


def _coinbase_frame(channel: str, timestamp: str, event: dict[str, Any]) -> bytes:
    """The number is put in for each client."""
    return orjson.dumps(
        {"channel": channel, "timestamp": timestamp, "sequence_num": 0, "events": [event]}
    )


def _coinbase_error(text: str) -> bytes:
    return orjson.dumps({"type": "error", "message": text})


class Kraken(Venue):
    """Version 2. One answer for each symbol; any depth of the book gets the recorded one."""

    name = "kraken"
    pads_digits = False
    _DEPTHS: Final = (10, 25, 100, 500, 1000)
    _KNOWN: Final = ("ticker", "book", "trade", "ohlc", "level3", "instrument")
    _DATA: Final = ("ticker", "book", "trade", "ohlc", "level3")

    def streams(self, message: Any) -> Iterable[str]:
        channel = message.get("channel")
        if channel not in self._DATA:
            return ()
        return dict.fromkeys(f"{channel}:{one['symbol']}" for one in message["data"])

    def changes(self, message: Any) -> Iterator[Change]:
        if message.get("channel") != "book":
            return
        for one in message["data"]:
            bids, asks = ([(str(x["price"]), str(x["qty"])) for x in one[y]] for y in _SIDES)
            widest = max(len(bids), len(asks))
            depth = next((offered for offered in self._DEPTHS if offered >= widest), None)
            yield Change(
                f"book:{one['symbol']}", one["symbol"], message["type"] == "snapshot", bids, asks,
                depth_max=depth, details=(one["checksum"], one.get("timestamp")),
            )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        for one in message.get("data", ()) if message.get("channel") == "trade" else ():
            yield one["symbol"], str(one["price"]), str(one["qty"])

    def image(self, stream: str, book: Book) -> bytes | None:
        """Numbers are bare here: the texts go in as they are. The checksum is the last one's."""
        checksum, time = book.details
        bids, asks = (
            ",".join(f'{{"price":{price},"qty":{size}}}' for price, size in levels)
            for levels in (book.bids(), book.asks())
        )
        timestamp = "" if time is None else f',"timestamp":"{time}"'
        return (
            f'{{"channel":"book","type":"snapshot","data":[{{"symbol":"{book.symbol}",'
            f'"bids":[{bids}],"asks":[{asks}],"checksum":{checksum}{timestamp}}}]}}'
        ).encode()

    def opening(self, connection: VenueConnection, path: str) -> Iterator[bytes]:
        state = {"version": "2.0.10", "system": "online", "api_version": "v2", "connection_id": 1}
        yield orjson.dumps({"channel": "status", "type": "update", "data": [state]})

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        time = now_text()
        request = request_of(text)
        if request is None:
            yield _kraken_answer(time, {"error": "Malformed request"}, {})
            return
        method = request.get("method")
        echo = {"req_id": request["req_id"]} if isinstance(request.get("req_id"), int) else {}
        if method == "ping":
            yield orjson.dumps({"method": "pong", **echo, "time_in": time, "time_out": now_text()})
            return
        parameters = request.get("params")
        if method not in {"subscribe", "unsubscribe"} or not isinstance(parameters, dict):
            yield _kraken_answer(time, {"error": f"Method({method!s:.40}) is not supported"}, echo)
            return
        channel, symbols = parameters.get("channel"), texts(parameters.get("symbol"))
        if channel not in self._KNOWN or symbols is None:
            problem = (
                "Field(symbol) must be a list" if channel in self._KNOWN else "Channel unknown"
            )
            yield _kraken_answer(time, {"method": method, "error": problem}, echo)
            return
        rest = {key: value for key, value in parameters.items() if key != "symbol"}
        for symbol in symbols:
            problem = self._change(method, f"{channel}:{symbol}", connection)
            answer: dict[str, Any] = {"method": method}
            if problem:
                answer |= {"error": problem, "symbol": symbol}
            else:
                answer["result"] = rest | {"symbol": symbol}
            yield _kraken_answer(time, answer, echo)

    def _change(self, method: str, stream: str, connection: VenueConnection) -> str:
        """Return what is wrong, or nothing."""
        if method == "unsubscribe":
            return "" if connection.unsubscribe(stream) else "Subscription Not Found"
        if stream in connection.subscribed:
            return "Already subscribed"
        if connection.subscribe(stream):
            return ""
        return f"Currency pair not supported {stream.partition(':')[2]}"

    def heartbeat(self, connection: VenueConnection) -> bytes | None:
        return b'{"channel":"heartbeat"}' if connection.subscribed else None


_SIDES: Final = ("bids", "asks")


def _kraken_answer(time_in: str, answer: dict[str, Any], echo: dict[str, Any]) -> bytes:
    times = {"time_in": time_in, "time_out": now_text()}
    return orjson.dumps({**answer, "success": "error" not in answer, **echo, **times})


class Bybit(Venue):
    """Version 5. A request is confirmed as a whole; one unknown topic refuses all of it."""

    name = "bybit"
    _KNOWN: Final = (
        *("orderbook", "publicTrade", "tickers", "kline", "liquidation", "allLiquidation"),
        *("priceLimit", "insurance"),
    )

    def streams(self, message: Any) -> Iterable[str]:
        return (message["topic"],) if "topic" in message else ()

    def channel(self, stream: str) -> tuple[str, str]:
        """orderbook.1 is another stream than the deeper books, which stand for each other."""
        name, _, symbol = stream.rpartition(".")
        is_book = name.startswith("orderbook.") and name != "orderbook.1"
        return symbol, "book" if is_book else name

    def changes(self, message: Any) -> Iterator[Change]:
        topic = message.get("topic", "")
        if topic.startswith("orderbook."):
            data = message["data"]
            bids, asks = map(pairs, (data["b"], data["a"]))
            yield Change(
                topic, data["s"], message["type"] == "snapshot", bids, asks,
                number=data["u"], details=message,
            )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        if message.get("topic", "").startswith("publicTrade."):
            for one in message["data"]:
                yield one["s"], one["p"], one["v"]

    def image(self, stream: str, book: Book) -> bytes | None:
        levels = {"b": book.bids(), "a": book.asks()}
        message = book.details
        return orjson.dumps(message | {"type": "snapshot", "data": message["data"] | levels})

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        request = request_of(text) or {}
        operation, identifier = request.get("op"), request.get("req_id", "")
        if operation == "ping":
            yield _bybit_answer("ping", identifier, connection, "pong")
            return
        topics = texts(request.get("args"))
        if operation not in {"subscribe", "unsubscribe"} or not topics:
            problem = "error:invalid request, op and args are wanted"
            yield _bybit_answer(
                str(operation or ""), identifier, connection, problem, success=False
            )
            return
        problem = ""
        for topic in topics if operation == "subscribe" else ():
            symbol, _ = self.channel(topic)
            if topic in connection.subscribed:
                problem = f"error:already subscribed,topic:{topic}"
            elif topic.partition(".")[0] not in self._KNOWN or not connection.has_symbol(symbol):
                problem = f"error:handler not found,topic:{topic}"
        for topic in topics if not problem else ():
            if operation == "subscribe":
                connection.subscribe(topic)
            else:
                connection.unsubscribe(topic)
        yield _bybit_answer(str(operation), identifier, connection, problem, success=not problem)


def _bybit_answer(
    operation: str,
    identifier: object,
    connection: VenueConnection,
    text: str,
    *,
    success: bool = True,
) -> bytes:
    return orjson.dumps(
        {
            "success": success,
            "ret_msg": text,
            "conn_id": connection.name,
            "req_id": identifier,
            "op": operation,
        }
    )


class Okx(Venue):
    """Version 5. One answer for each argument; `ping` and `pong` are bare text.

    Where a recording has `tickers` and no `bbo-tbt`, it stands in for it.
    """

    name = "okx"
    _KINDS: ClassVar = {"tickers": "quotes", "bbo-tbt": "quotes"}
    _KNOWN: Final = (
        *("tickers", "bbo-tbt", "books", "books5", "books-l2-tbt", "books50-l2-tbt", "trades"),
        *("trades-all", "mark-price", "funding-rate", "open-interest", "price-limit"),
    )

    def streams(self, message: Any) -> Iterable[str]:
        if "data" not in message or "arg" not in message:
            return ()
        return (f"{message['arg']['channel']}:{message['arg'].get('instId', '')}",)

    def channel(self, stream: str) -> tuple[str, str]:
        symbol, kind = super().channel(stream)
        return symbol, self._KINDS.get(kind, kind)

    def changes(self, message: Any) -> Iterator[Change]:
        match message:
            case {"arg": {"channel": "books", "instId": symbol}, "action": action, "data": books}:
                for one in books:
                    bids, asks = map(pairs, (one["bids"], one["asks"]))
                    yield Change(
                        f"books:{symbol}", symbol, action == "snapshot", bids, asks,
                        number=one.get("seqId", 0), details=one,
                    )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        match message:
            case {"arg": {"channel": "trades"}, "data": trades}:
                for one in trades:
                    yield one["instId"], one["px"], one["sz"]

    def image(self, stream: str, book: Book) -> bytes | None:
        """The number of orders at a level is not kept: it is said to be 1."""
        bids, asks = ([[*one, "0", "1"] for one in side] for side in (book.bids(), book.asks()))
        data = book.details | {"bids": bids, "asks": asks}
        if "prevSeqId" in data:
            data["prevSeqId"] = -1
        argument = {"channel": "books", "instId": book.symbol}
        return orjson.dumps({"arg": argument, "action": "snapshot", "data": [data]})

    def receive(self, text: bytes, connection: VenueConnection) -> Iterator[bytes]:
        if text == b"ping":
            yield b"pong"
            return
        request = request_of(text) or {}
        operation, arguments = request.get("op"), request.get("args")
        if operation not in {"subscribe", "unsubscribe"} or not isinstance(arguments, list):
            yield _okx_error(
                f"Invalid request: {text[:200].decode(errors='replace')}", "60012", connection
            )
            return
        for argument in arguments:
            match argument:
                case {"channel": str(channel), "instId": str(symbol)}:
                    yield self._change(operation, argument, f"{channel}:{symbol}", connection)
                case _:
                    yield _okx_error(f"Invalid request: {argument!s:.200}", "60012", connection)

    def _change(
        self, operation: str, argument: Any, stream: str, connection: VenueConnection
    ) -> bytes:
        channel, _, symbol = stream.partition(":")
        if operation == "unsubscribe":
            connection.unsubscribe(stream)
        elif channel not in self._KNOWN or not connection.subscribe(stream):
            problem = f"Wrong URL or channel:{channel},instId:{symbol} doesn't exist."
            return _okx_error(f"{problem} Please use the correct URL, channel and parameters "
                              "referring to API document.", "60018", connection)  # fmt: skip
        return orjson.dumps({"event": operation, "arg": argument, "connId": connection.name})


def _okx_error(text: str, code: str, connection: VenueConnection) -> bytes:
    return orjson.dumps({"event": "error", "code": code, "msg": text, "connId": connection.name})


VENUES: Final[dict[str, Venue]] = {
    venue.name: venue for venue in (Binance(), Bybit(), Coinbase(), Kraken(), Okx())
}
