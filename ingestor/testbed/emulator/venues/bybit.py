"""Emulate Bybit's version 5: a request is confirmed or refused as a whole.

Reference: Bybit "V5 Websocket Stream", as `feeds/bybit/` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import orjson

from feeds.bybit import Bybit as BybitAdapter
from ingestor.model.timestamps import MILLISECOND
from ingestor.testbed.emulator.venue import (
    Book,
    Change,
    Listed,
    PastTrade,
    PastTrades,
    Print,
    Venue,
    VenueConnection,
    pairs,
    request_of,
    texts,
)


class Bybit(Venue):
    """Version 5. A request is confirmed as a whole; one unknown topic refuses all of it."""

    name = "bybit"
    adapter = BybitAdapter
    recording_names: ClassVar = {"BYBIT": "linear"}
    _KNOWN: Final = (
        *("orderbook", "publicTrade", "tickers", "kline", "liquidation", "allLiquidation"),
        *("priceLimit", "insurance"),
    )

    def market_at(self, url: str) -> str | None:
        """All markets have one host: the end of the path tells them apart."""
        if super().market_at(url) is None:
            return None
        return urlsplit(url).path.rstrip("/").rpartition("/")[2]

    def market_of_frame(self, message: Any) -> str | None:
        return "linear" if isinstance(message, dict) and "topic" in message else None

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

    def trades(self, message: Any) -> Iterator[PastTrade]:
        if message.get("topic", "").startswith("publicTrade."):
            for one in message["data"]:
                yield PastTrade(one["s"], int(one.get("seq", 0)), one["T"] * MILLISECOND, one)

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        if path != "/v5/market/recent-trade":
            return None
        newest = [*past_trades.get(query.get("symbol", ""), ())][-int(query.get("limit", "500")) :]
        found = [
            {
                "execId": one.trade["i"],
                "symbol": one.symbol,
                "price": one.trade["p"],
                "size": one.trade["v"],
                "side": one.trade["S"],
                "time": str(one.trade["T"]),
                "isBlockTrade": one.trade.get("BT", False),
                "isRPITrade": one.trade.get("RPI", False),
                "seq": str(one.number),
            }
            for one in reversed(newest)
        ]
        return {"retCode": 0, "retMsg": "OK", "result": {"category": "", "list": found}}

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

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        category = query.get("category", market)
        fitting = [] if category != market or query.get("cursor") else instruments
        prefix = {"linear": "Linear", "inverse": "Inverse"}.get(market, "")
        symbols = [
            {
                "symbol": listed.symbol,
                "status": "Trading",
                "baseCoin": listed.base,
                "quoteCoin": listed.quote,
                "settleCoin": listed.of("settlement", listed.quote),
                "contractType": f"{prefix}{listed.of('contract', 'perpetual').capitalize()}"
                .replace("Future", "Futures"),
                "deliveryTime": str(int(listed.of("expiry_ns", "0")) // 1_000_000),
                "priceFilter": {"tickSize": listed.tick_size},
                "lotSizeFilter": {"basePrecision": listed.lot_size, "qtyStep": listed.lot_size},
            }
            for listed in fitting
        ]  # fmt: skip
        result = {"category": category, "list": symbols, "nextPageCursor": ""}
        return {"retCode": 0, "retMsg": "OK", "result": result}


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


venue: Venue = Bybit()
