"""Emulate Bybit's version 5: a request is confirmed or refused as a whole.

Reference: Bybit "V5 Websocket Stream", as `feeds/bybit/` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from feeds.bybit import Bybit as BybitAdapter
from ingestor.model.timestamps import MILLISECOND
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
    pairs,
    request_of,
    texts,
)

_DEPTH_DEFAULT: Final = 25
_DEPTH_MAX: Final = 1_000
_LARGEST_ORDER: Final = "9000"  # the venue says it of every symbol; no frame does


class Bybit(Venue):
    """Version 5. A request is confirmed as a whole; one unknown topic refuses all of it."""

    name = "bybit"
    adapter = BybitAdapter
    recording_names: ClassVar = {"BYBIT": "linear"}
    _KNOWN: Final = (
        *("orderbook", "publicTrade", "tickers", "kline", "liquidation", "allLiquidation"),
        *("priceLimit", "insurance"),
    )

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
            for entry in message["data"]:
                yield entry["s"], entry["p"], entry["v"]

    def trades(self, message: Any) -> Iterator[PastTrade]:
        if message.get("topic", "").startswith("publicTrade."):
            for entry in message["data"]:
                yield PastTrade(
                    entry["s"], int(entry.get("seq", 0)), entry["T"] * MILLISECOND, entry
                )

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        """Return the answer to a request for past trades, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            past_trades: Trades that were recorded.
        """
        if path != "/v5/market/recent-trade":
            return None
        newest = [*past_trades.get(query.get("symbol", ""), ())][-int(query.get("limit", "500")) :]
        found = [
            {
                "execId": level.trade["i"],
                "symbol": level.symbol,
                "price": level.trade["p"],
                "size": level.trade["v"],
                "side": level.trade["S"],
                "time": str(level.trade["T"]),
                "isBlockTrade": level.trade.get("BT", False),
                "isRPITrade": level.trade.get("RPI", False),
                "seq": str(level.number),
            }
            for level in reversed(newest)
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
            if topic in connection.subscribed:
                problem = f"error:already subscribed,topic:{topic}"
            elif topic.partition(".")[0] not in self._KNOWN or not connection.offers(topic):
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
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        category = query.get("category", market)
        fitting = [] if category != market or query.get("cursor") else instruments
        symbols = [
            {
                "symbol": listed.symbol,
                "status": "Trading",
                "baseCoin": listed.base,
                "quoteCoin": listed.quote,
                "priceFilter": {"tickSize": listed.tick_size},
                **(_spot_fields(listed) if market == "spot" else _contract_fields(listed, market)),
            }
            for listed in fitting
        ]
        result = {"category": category, "list": symbols, "nextPageCursor": ""}
        return _bybit_reply(result)

    def book_request(self, path: str, query: Mapping[str, str]) -> BookRequest | None:
        if path != "/v5/market/orderbook":
            return None
        depth = depth_asked(query, "limit", _DEPTH_DEFAULT, _DEPTH_MAX)
        return BookRequest(query.get("symbol", ""), depth)

    def write_book(self, book: Book, depth: int) -> bytes:
        message = book.details
        numbers = {name: message["data"][name] for name in ("u", "seq") if name in message["data"]}
        levels = {"b": book.bids(depth), "a": book.asks(depth)}
        times = {"ts": message.get("ts", now_ms()), "cts": message.get("cts", now_ms())}
        return orjson.dumps(_bybit_reply({"s": book.symbol, **levels, **times, **numbers}))

    def other_answer(
        self, path: str, query: Mapping[str, str], instruments: Sequence[Listed]
    ) -> object | None:
        """Return the answer to what clients ask before they begin, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            instruments: The instruments.
        """
        if path != "/v5/market/time":
            return None
        now = now_ms()
        return _bybit_reply({"timeSecond": str(now // 1_000), "timeNano": str(now * 1_000_000)})


def _bybit_reply(result: object) -> dict[str, Any]:
    head = {"retCode": 0, "retMsg": "OK"}
    return head | {"result": result, "retExtInfo": {}, "time": now_ms()}


def _spot_fields(listed: Listed) -> dict[str, Any]:
    return {
        "marginTrading": "none",
        "lotSizeFilter": {
            "basePrecision": listed.lot_size,
            "quotePrecision": listed.tick_size,
            "minOrderQty": listed.lot_size,
            "maxOrderQty": _LARGEST_ORDER,
        },
    }


def _contract_fields(listed: Listed, market: str) -> dict[str, Any]:
    contract = listed.of("contract", "perpetual").capitalize().replace("Future", "Futures")
    sizes = {"minOrderQty": listed.lot_size, "maxOrderQty": _LARGEST_ORDER}
    return {
        "settleCoin": listed.of("settlement", listed.base if market == "inverse" else listed.quote),
        "contractType": f"{market.capitalize()}{contract}",
        "deliveryTime": str(int(listed.of("expiry_ns", "0")) // 1_000_000),
        "lotSizeFilter": {"qtyStep": listed.lot_size, **sizes},
    }


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
