"""Emulate Kraken's version 2: one answer for each symbol, bare JSON numbers.

Reference: Kraken "WebSocket API v2", as `feeds/kraken/` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from feeds.kraken import Kraken as KrakenAdapter
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

_BOOK_DEPTH: Final = 10  # of a subscription that doesn't say it
_DEPTH_DEFAULT: Final = 100
_DEPTH_MAX: Final = 500


class Kraken(Venue):
    """Version 2. One answer for each symbol; a book has the depth that was recorded."""

    name = "kraken"
    adapter = KrakenAdapter
    recording_names: ClassVar = {"KRAKEN": "spot"}
    pads_digits = False
    _DEPTHS: Final = (10, 25, 100, 500, 1000)
    _KNOWN: Final = ("ticker", "book", "trade", "ohlc", "level3", "instrument")
    _DATA: Final = ("ticker", "book", "trade", "ohlc", "level3")

    def market_of_frame(self, message: Any) -> str | None:
        match message:
            case {"sequence_num": _}:  # another venue names a channel too, and counts
                return None
            case {"channel": str()} | {"method": str()}:
                return "spot"
        return None

    def streams(self, message: Any) -> Iterable[str]:
        channel = message.get("channel")
        if channel not in self._DATA:
            return ()
        return dict.fromkeys(f"{channel}:{entry['symbol']}" for entry in message["data"])

    def changes(self, message: Any) -> Iterator[Change]:
        if message.get("channel") != "book":
            return
        for entry in message["data"]:
            bids, asks = ([(str(x["price"]), str(x["qty"])) for x in entry[y]] for y in _SIDES)
            widest = max(len(bids), len(asks))
            depth = next((offered for offered in self._DEPTHS if offered >= widest), None)
            yield Change(
                f"book:{entry['symbol']}", entry["symbol"], message["type"] == "snapshot",
                bids, asks,
                depth_max=depth, details=(entry["checksum"], entry.get("timestamp")),
            )  # fmt: skip

    def depths(self, message: Any) -> Iterator[tuple[str, int]]:
        match message:
            case {"result": {"channel": "book", "symbol": str(symbol), "depth": int(depth)}}:
                yield f"book:{symbol}", depth

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        for entry in message.get("data", ()) if message.get("channel") == "trade" else ():
            yield entry["symbol"], str(entry["price"]), str(entry["qty"])

    def trades(self, message: Any) -> Iterator[PastTrade]:
        for entry in message.get("data", ()) if message.get("channel") == "trade" else ():
            ts_ns = iso_event_ns(entry["timestamp"])
            yield PastTrade(entry["symbol"], entry["trade_id"], ts_ns, entry)

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        """Return the answer to a request for past trades, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            past_trades: Trades that were recorded.
        """
        if path != "/0/public/Trades":
            return None
        pair, since = query.get("pair", ""), int(query.get("since", "0"))
        symbol = next((trade for trade in past_trades if _rest_pair(trade) == pair), "")
        later = [trade for trade in past_trades.get(symbol, ()) if trade.ts_ns > since]
        some = later[: int(query.get("count", "1000"))]
        found = [
            [
                str(trade.trade["price"]),
                str(trade.trade["qty"]),
                trade.ts_ns / SECOND,
                trade.trade["side"][0],
                trade.trade["ord_type"][0],
                "",
                trade.number,
            ]
            for trade in some
        ]
        last = str(some[-1].ts_ns if some else since)
        return {"error": [], "result": {pair: found, "last": last}}

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
            problem = self._change(method, f"{channel}:{symbol}", parameters, connection)
            answer: dict[str, Any] = {"method": method}
            if problem:
                answer |= {"error": problem, "symbol": symbol}
            else:
                answer["result"] = rest | {"symbol": symbol}
            yield _kraken_answer(time, answer, echo)

    def _change(
        self, method: str, stream: str, parameters: Mapping[str, Any], connection: VenueConnection
    ) -> str:
        """Return what is wrong, or nothing."""
        if method == "unsubscribe":
            return "" if connection.unsubscribe(stream) else "Subscription Not Found"
        if stream in connection.subscribed:
            return "Already subscribed"
        if connection.depth_of(stream) not in {None, parameters.get("depth", _BOOK_DEPTH)}:
            return "Subscription depth not supported"
        if connection.subscribe(stream):
            return ""
        return f"Currency pair not supported {stream.partition(':')[2]}"

    def heartbeat(self, connection: VenueConnection) -> bytes | None:
        return b'{"channel":"heartbeat"}' if connection.subscribed else None

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        wanted = {_pair(name) for name in query.get("pair", "").split(",") if name}
        fitting = [
            instrument
            for instrument in instruments
            if not wanted or _pair(instrument.symbol) in wanted
        ]
        if wanted and not fitting:
            return {"error": ["EQuery:Unknown asset pair"]}
        return {"error": [], "result": {_pair(size.symbol): _pair_fields(size) for size in fitting}}

    def rest_symbol(self, symbol: str) -> str:
        return _pair(symbol)

    def book_request(self, path: str, query: Mapping[str, str]) -> BookRequest | None:
        if path != "/0/public/Depth":
            return None
        pair = _pair(query.get("pair", ""))
        return BookRequest(pair, depth_asked(query, "count", _DEPTH_DEFAULT, _DEPTH_MAX))

    def write_book(self, book: Book, depth: int) -> bytes:
        now_s = now_ms() // 1_000
        sides = {"asks": book.asks(depth), "bids": book.bids(depth)}
        levels = {side: [[*trade, now_s] for trade in some] for side, some in sides.items()}
        return orjson.dumps({"error": [], "result": {_pair(book.symbol): levels}})

    def other_answer(
        self, path: str, query: Mapping[str, str], instruments: Sequence[Listed]
    ) -> object | None:
        """Return the answer to what clients ask before they begin, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            instruments: The instruments.
        """
        match path.removeprefix("/0/public/"):
            case "Assets":
                names = dict.fromkeys(
                    name
                    for instrument in instruments
                    for name in (instrument.base, instrument.quote)
                )
                return {"error": [], "result": {name: _asset(name) for name in names if name}}
            case "Time":
                return {"error": [], "result": {"unixtime": now_ms() // 1_000, "rfc1123": ""}}
            case "SystemStatus":
                return {
                    "error": [],
                    "result": {"status": "online", "timestamp": now_text("seconds")},
                }
        return None


def _pair(name: str) -> str:
    """Return BTC/USD as REST has it."""
    return name.replace("/", "").upper()


def _asset(name: str) -> dict[str, Any]:
    decimals = {"decimals": 10, "display_decimals": 5}
    return {"aclass": "currency", "altname": name, **decimals, "status": "enabled"}


def _pair_fields(listed: Listed) -> dict[str, Any]:
    return {
        "altname": _pair(listed.symbol),
        "wsname": listed.symbol,
        "aclass_base": "currency",
        "base": listed.base,
        "aclass_quote": "currency",
        "quote": listed.quote,
        "lot": "unit",
        "cost_decimals": listed.price_decimals,
        "pair_decimals": listed.price_decimals,
        "lot_decimals": listed.size_decimals,
        "lot_multiplier": 1,
        "fees": [],
        "fees_maker": [],
        "ordermin": listed.lot_size,
        "costmin": listed.tick_size,
        "tick_size": listed.tick_size,
        "status": "online",
    }


_SIDES: Final = ("bids", "asks")


def _kraken_answer(time_in: str, answer: dict[str, Any], echo: dict[str, Any]) -> bytes:
    times = {"time_in": time_in, "time_out": now_text()}
    return orjson.dumps({**answer, "success": "error" not in answer, **echo, **times})


def _rest_pair(symbol: str) -> str:
    """Return the name that REST has for a symbol of the websocket."""
    return "".join({"BTC": "XBT", "DOGE": "XDG"}.get(asset, asset) for asset in symbol.split("/"))


venue: Venue = Kraken()
