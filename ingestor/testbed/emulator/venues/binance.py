"""Emulate Binance: combined and raw streams, named in the address or by SUBSCRIBE.

Reference: Binance "WebSocket Streams" (live subscribing, error messages), as `feeds/binance/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from feeds.binance import Binance as BinanceAdapter
from ingestor.model.timestamps import MILLISECOND
from ingestor.testbed.emulator.venue import (
    Book,
    BookRequest,
    Change,
    Listed,
    PastTrade,
    PastTrades,
    Print,
    RestReply,
    Venue,
    VenueConnection,
    depth_asked,
    now_ms,
    pairs,
    request_of,
    texts,
)
from ingestor.testbed.simulated.dialects import Dialect, Kind, json_text
from ingestor.testbed.simulated.market import LOT_SIZE, TICK_SIZE, Event, State

_DEPTH_DEFAULT: Final = 500
_DEPTH_MAX: Final = 5_000
_LARGEST_ORDER: Final = "9000"  # the venue says it of every symbol; no frame does


class Binance(Venue):
    """Spot and futures. Any stream name is acknowledged; book snapshots come by REST.

    `/stream` gives combined frames, `/ws/<stream>` the data alone. Both take streams in the
    address and by SUBSCRIBE.
    """

    name = "binance"
    adapter = BinanceAdapter
    recording_names: ClassVar = {
        "BINANCE": "spot",
        "BINANCE_FUTURES": "usdm",
        "BINANCE_DELIVERY": "coinm",
    }
    snapshots_by_rest = True
    refused_book = RestReply(HTTPStatus.BAD_REQUEST, b'{"code":-1121,"msg":"Invalid symbol."}')
    refuses_unknown = False
    _KINDS: ClassVar = {"trade": "trades", "aggTrade": "trades", "bookTicker": "quotes"}
    _METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")

    def market_of_frame(self, message: Any) -> str | None:
        match message:
            case {"stream": _, "data": dict(data)}:
                return "usdm" if "T" in data and "M" not in data else "spot"
        return None

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
        is_book = base.rstrip("0123456789") == "depth"
        return symbol.upper(), "book" if is_book else self._KINDS.get(base, name)

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

    def trades(self, message: Any) -> Iterator[PastTrade]:
        data = message.get("data", message)
        match data:
            case {"e": "trade", "s": symbol, "t": number, "T": time} | {
                "e": "aggTrade", "s": symbol, "a": number, "T": time
            }:  # fmt: skip
                yield PastTrade(symbol, number, time * MILLISECOND, data)

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        """Return the answer to a request for past trades, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            past_trades: Trades that were recorded.
        """
        name = path.rpartition("/")[2]
        if name not in {"aggTrades", "historicalTrades"}:
            return None
        first = int(query.get("fromId", "0"))
        found = [
            trade for trade in past_trades.get(query.get("symbol", ""), ()) if trade.number >= first
        ]
        some = found[: int(query.get("limit", "500"))]
        if name == "aggTrades":
            return [{key: trade.trade[key] for key in "apqTm"} for trade in some]
        return [
            {
                "id": trade.number,
                "price": trade.trade["p"],
                "qty": trade.trade["q"],
                "time": trade.trade["T"],
                "isBuyerMaker": trade.trade["m"],
                "isBestMatch": True,
            }
            for trade in some
        ]

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
            known = ", ".join(f"`{method}`" for method in self._METHODS)
            problem = f"Invalid request: unknown variant `{method}`, expected one of {known}"
            yield _binance_error(2, problem, number)
        elif streams is None:
            yield _binance_error(2, "Invalid request: params must be a list of strings", number)
        elif method == "LIST_SUBSCRIPTIONS":
            yield orjson.dumps({"result": list(connection.subscribed), "id": number})
        else:
            change = connection.subscribe if method == "SUBSCRIBE" else connection.unsubscribe
            refused = [stream for stream in streams if not change(stream)]
            if refused and method == "SUBSCRIBE":
                yield _binance_error(2, f"Invalid request: unknown stream {refused[0]}", number)
            else:
                yield orjson.dumps({"result": None, "id": number})

    def dress(self, payload: bytes, stream: str, connection: VenueConnection) -> bytes:
        """Return a recorded frame as this client's connection carries it.

        Args:
            payload: The frame's bytes.
            stream: Name of the stream.
            connection: The connection.
        """
        combined = payload.startswith(b'{"stream":')
        wants_combined = not urlsplit(connection.path).path.rstrip("/").partition("/ws")[1]
        if combined == wants_combined:
            return payload
        if wants_combined:
            return b'{"stream":%b,"data":%b}' % (orjson.dumps(stream), payload)
        start = payload.index(b'"data":') + len(b'"data":')
        return payload[start : payload.rindex(b"}")]

    def book_request(self, path: str, query: Mapping[str, str]) -> BookRequest | None:
        if not path.endswith("/depth"):
            return None
        depth = depth_asked(query, "limit", _DEPTH_DEFAULT, _DEPTH_MAX)
        return BookRequest(query.get("symbol", ""), depth)

    def read_book(self, symbol: str, body: bytes) -> Change | None:
        answer = request_of(body) or {}
        if "lastUpdateId" not in answer:
            return None
        return Change(
            "", symbol, is_image=True, bids=answer["bids"], asks=answer["asks"],
            number=answer["lastUpdateId"], details=(answer.get("E"), answer.get("T")),
        )  # fmt: skip

    def write_book(self, book: Book, depth: int) -> bytes:
        answer: dict[str, Any] = {"lastUpdateId": book.number}
        event_ms, transaction_ms = book.details or (None, None)
        if transaction_ms is not None:
            answer |= {"E": event_ms, "T": transaction_ms}
        return orjson.dumps(answer | {"bids": book.bids(depth), "asks": book.asks(depth)})

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        own = _spot_fields if market == "spot" else _futures_fields
        symbols = [
            _listed_fields(instrument) | own(instrument, market) for instrument in instruments
        ]
        head = {"timezone": "UTC", "serverTime": now_ms()}
        return head | {"rateLimits": [], "exchangeFilters": [], "symbols": symbols}

    def other_answer(
        self, path: str, query: Mapping[str, str], instruments: Sequence[Listed]
    ) -> object | None:
        """Return the answer to what clients ask before they begin, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            instruments: The instruments.
        """
        match path.rpartition("/")[2]:
            case "ping":
                return {}
            case "time":
                return {"serverTime": now_ms()}
        return None


def _listed_fields(listed: Listed) -> dict[str, Any]:
    """Return the fields of a symbol that spot and futures have in common."""
    sizes = {"minQty": listed.lot_size, "maxQty": _LARGEST_ORDER, "stepSize": listed.lot_size}
    return {
        "symbol": listed.symbol,
        "baseAsset": listed.base,
        "quoteAsset": listed.quote,
        "orderTypes": ["LIMIT", "MARKET"],
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": listed.tick_size},
            {"filterType": "LOT_SIZE", **sizes},
        ],
    }


def _spot_fields(listed: Listed, market: str) -> dict[str, Any]:
    quote_decimals = listed.price_decimals if listed.known else 8
    return {
        "status": "TRADING",
        "baseAssetPrecision": listed.size_decimals if listed.known else 8,
        "quotePrecision": quote_decimals,
        "quoteAssetPrecision": quote_decimals,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }


def _futures_fields(listed: Listed, market: str) -> dict[str, Any]:
    is_coin = market == "coinm"
    perpetual = listed.of("contract", "perpetual") == "perpetual"
    state = {"contractStatus": "TRADING", "contractSize": int(listed.of("multiplier", "1"))}
    margin = listed.base if is_coin else listed.quote
    return (state if is_coin else {"status": "TRADING"}) | {
        "pair": f"{listed.base}{listed.quote}",
        "contractType": "PERPETUAL" if perpetual else "CURRENT_QUARTER",
        "deliveryDate": int(listed.of("expiry_ns", "0")) // 1_000_000,
        "marginAsset": listed.of("settlement", margin),
        "pricePrecision": listed.price_decimals,
        "quantityPrecision": listed.size_decimals,
        "baseAssetPrecision": listed.size_decimals if listed.known else 8,
        "quotePrecision": listed.price_decimals if listed.known else 8,
    }


def _binance_error(code: int, text: str, number: object) -> bytes:
    return orjson.dumps({"error": {"code": code, "msg": text}, "id": number})


_KINDS: Final[dict[str, Kind]] = {
    "trade": "trade",
    "aggTrade": "aggregate",
    "bookTicker": "quote",
    "depth": "book",
}


class BinanceDialect(Dialect):
    """The shapes of Binance spot's raw streams, for benchmarks.

    Aggregate trades come as in a combined stream, since that is how the clients that take them ask
    for them.
    """

    def symbol(self, number: int) -> str:
        return f"S{number:05}USD"

    def split(self, stream: str) -> tuple[Kind, str] | None:
        symbol, _, name = stream.partition("@")
        kind = _KINDS.get(name.partition("@")[0])
        return None if kind is None else (kind, symbol.upper())

    def event(self, kind: Kind, event: Event) -> str:
        if kind == "trade":
            maker = "false" if event.is_buy else "true"
            return (
                '{"e":"trade","E":@M,"s":"@S","t":@N,'
                f'"p":"{event.price}000000","q":"{event.size}0000","T":@M,"m":{maker},"M":true}}'
            )
        if kind == "aggregate":
            maker = "false" if event.is_buy else "true"
            return (
                '{"stream":"@L@aggTrade","data":{"e":"aggTrade","E":@M,"s":"@S","a":@N,'
                f'"p":"{event.price}000000","q":"{event.size}0000","f":@N,"l":@N,"T":@M,'
                f'"m":{maker},"M":true}}}}'
            )
        if kind == "quote":
            bid, bid_size, ask, ask_size = event.quote
            return (
                '{"u":@N,"s":"@S",'
                f'"b":"{bid}000000","B":"{bid_size}0000",'
                f'"a":"{ask}000000","A":"{ask_size}0000"}}'
            )
        return (
            '{"e":"depthUpdate","E":@M,"s":"@S","U":@N,"u":@N,'
            f'"b":{json_text(event.bids)},"a":{json_text(event.asks)}}}'
        )

    def snapshot(self, state: State) -> str | None:
        return None

    def instruments(self, symbols: Sequence[str]) -> tuple[str, bytes]:
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": TICK_SIZE},
            {"filterType": "LOT_SIZE", "stepSize": LOT_SIZE, "maxQty": "9000.0000"},
        ]
        listed = [
            {
                "symbol": symbol,
                "status": "TRADING",
                "baseAsset": symbol[:-3],
                "baseAssetPrecision": 8,
                "quoteAsset": symbol[-3:],
                "quotePrecision": 8,
                "quoteAssetPrecision": 8,
                "filters": filters,
            }
            for symbol in symbols
        ]
        return "/api/v3/exchangeInfo", orjson.dumps({"symbols": listed})

    def depth(self, state: State) -> tuple[str, str] | None:
        bids, asks = state.levels()
        body = f'{{"lastUpdateId":@N,"bids":{json_text(bids)},"asks":{json_text(asks)}}}'
        return "/api/v3/depth", body

    def request(self, message: Any) -> tuple[bool, list[str]] | None:
        match message:
            case {"method": "SUBSCRIBE" | "UNSUBSCRIBE" as method, "params": [*streams]}:
                return method == "SUBSCRIBE", streams
        return None

    def answer(self, message: Any, good: list[str], bad: list[str]) -> list[bytes]:
        """Return the answers to a request.

        Args:
            message: The parsed message.
            good: Streams that exist.
            bad: Streams that do not.
        """
        if bad:
            error = {"code": 2, "msg": f"Invalid request: unknown stream {bad[0]}"}
            return [orjson.dumps({"error": error, "id": message.get("id")})]
        return [orjson.dumps({"result": None, "id": message.get("id")})]


venue: Venue = Binance()
dialect: type[Dialect] = BinanceDialect
