"""Emulate Coinbase Advanced Trade: one numbered sequence of messages a connection.

Reference: "Advanced Trade WebSocket" documentation, as `feeds/coinbase` names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from feeds.coinbase import Coinbase as CoinbaseAdapter
from ingestor.model.timestamps import SECOND, iso_event_ns
from ingestor.testbed.emulator.venue import (
    Book,
    BookRequest,
    Change,
    Listed,
    PastTrade,
    PastTrades,
    Print,
    Venue,
    VenueConnection,
    depth_asked,
    now_ms,
    now_text,
    request_of,
    texts,
)

_PUBLIC: Final = "/api/v3/brokerage/market"
_DEPTH_MAX: Final = 500


class Coinbase(Venue):
    """Advanced Trade. Every message of a connection is numbered, acks and heartbeats too."""

    name = "coinbase"
    adapter = CoinbaseAdapter
    recording_names: ClassVar = {"COINBASE": "spot"}
    number = re.compile(rb'"sequence_num":\s*(\d+)')
    always = frozenset({"heartbeats:heartbeats"})
    _CHANNELS: ClassVar = {"l2_data": "level2"}
    _KNOWN: ClassVar = (
        *("heartbeats", "candles", "status", "ticker", "ticker_batch", "level2"),
        "market_trades",
    )
    _LISTS: ClassVar = ("trades", "tickers", "candles")

    def market_of_frame(self, message: Any) -> str | None:
        return "spot" if isinstance(message, dict) and "sequence_num" in message else None

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
                found.update(dict.fromkeys(entry["product_id"] for entry in event.get(kind, ())))
        return [f"{name}:{symbol}" for symbol in found]

    def changes(self, message: Any) -> Iterator[Change]:
        if message.get("channel") != "l2_data":
            return
        for event in message["events"]:
            sides: dict[str, list[tuple[str, str]]] = {"bid": [], "offer": []}
            for entry in event["updates"]:
                sides[entry["side"]].append((entry["price_level"], entry["new_quantity"]))
            yield Change(
                f"level2:{event['product_id']}", event["product_id"], event["type"] == "snapshot",
                sides["bid"], sides["offer"], details=message["timestamp"],
            )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        for event in message.get("events", ()):
            for entry in event.get("trades", ()):
                yield entry["product_id"], entry["price"], entry["size"]

    def trades(self, message: Any) -> Iterator[PastTrade]:
        for event in message.get("events", ()) if message.get("channel") == "market_trades" else ():
            for item in reversed(event.get("trades", ())):
                ts_ns = iso_event_ns(item["time"])
                yield PastTrade(item["product_id"], int(item["trade_id"]), ts_ns, item)

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        """Return the answer to a request for past trades, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            past_trades: Trades that were recorded.
        """
        begin, _, rest = path.partition("/products/")
        symbol, _, end = rest.partition("/")
        if (begin, end) != ("/api/v3/brokerage/market", "ticker"):
            return None
        start_ns, end_ns = (
            int(query.get(name, default)) * SECOND
            for name, default in (("start", "0"), ("end", "9000000000"))
        )
        found = [
            trade for trade in past_trades.get(symbol, ()) if start_ns <= trade.ts_ns <= end_ns
        ]
        newest = found[-int(query.get("limit", "100")) :]
        return {
            "trades": [level.trade for level in reversed(newest)],
            "best_bid": "",
            "best_ask": "",
        }

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
            unknown = [
                request for request in wanted if not connection.subscribe(f"{channel}:{request}")
            ]
            if unknown:
                yield _coinbase_error(f"{', '.join(unknown)} is not a valid product")
        else:
            for item in wanted:
                connection.unsubscribe(f"{channel}:{item}")
        subscriptions: dict[str, list[str]] = {}
        for stream in connection.subscribed:
            name, _, symbol = stream.partition(":")
            subscriptions.setdefault(name, []).append(symbol)
        yield _coinbase_frame("subscriptions", now_text(), {"subscriptions": subscriptions})

    def heartbeat(self, connection: VenueConnection) -> bytes | None:
        """Return a heartbeat, unless the recording has heartbeats: those are played."""
        if "heartbeats:heartbeats" not in connection.subscribed or connection.has_symbol(
            "heartbeats"
        ):
            return None
        time = now_text()
        return _coinbase_frame("heartbeats", time, {"current_time": time, "heartbeat_counter": 0})

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        products = [_product(listed) for listed in instruments]
        return {"products": products, "num_products": len(products)}

    def book_request(self, path: str, query: Mapping[str, str]) -> BookRequest | None:
        if path != f"{_PUBLIC}/product_book":
            return None
        depth = depth_asked(query, "limit", _DEPTH_MAX, _DEPTH_MAX)
        return BookRequest(query.get("product_id", ""), depth)

    def write_book(self, book: Book, depth: int) -> bytes:
        sides = {"bids": book.bids(depth), "asks": book.asks(depth)}
        levels = {
            side: [{"price": price, "size": size} for price, size in some]
            for side, some in sides.items()
        }
        return orjson.dumps(
            {"pricebook": {"product_id": book.symbol, **levels, "time": book.details}}
        )

    def other_answer(
        self, path: str, query: Mapping[str, str], instruments: Sequence[Listed]
    ) -> object | None:
        """Return the answer to what clients ask before they begin, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            instruments: The instruments.
        """
        if path == "/api/v3/brokerage/time":
            now = now_ms()
            seconds = str(now // 1_000)
            return {
                "iso": now_text("milliseconds"),
                "epochSeconds": seconds,
                "epochMillis": str(now),
            }
        folder, _, product = path.rpartition("/")
        if folder != f"{_PUBLIC}/products":
            return None
        return next(
            (_product(instrument) for instrument in instruments if instrument.symbol == product),
            None,
        )


def _product(listed: Listed) -> dict[str, Any]:
    return {
        "product_id": listed.symbol,
        "product_type": "SPOT",
        "base_currency_id": listed.base,
        "quote_currency_id": listed.quote,
        "price_increment": listed.tick_size,
        "quote_increment": listed.tick_size,
        "base_increment": listed.lot_size,
        "base_min_size": listed.lot_size,
        "status": "online",
        "trading_disabled": False,
        "is_disabled": False,
        "alias": "",
    }


def _coinbase_frame(channel: str, timestamp: str, event: dict[str, Any]) -> bytes:
    """The number is put in for each client."""
    return orjson.dumps(
        {"channel": channel, "timestamp": timestamp, "sequence_num": 0, "events": [event]}
    )


def _coinbase_error(text: str) -> bytes:
    return orjson.dumps({"type": "error", "message": text})


venue: Venue = Coinbase()
