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
    Change,
    Listed,
    PastTrade,
    PastTrades,
    Print,
    Venue,
    VenueConnection,
    now_text,
    request_of,
    texts,
)


class Kraken(Venue):
    """Version 2. One answer for each symbol; any depth of the book gets the recorded one."""

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

    def trades(self, message: Any) -> Iterator[PastTrade]:
        for one in message.get("data", ()) if message.get("channel") == "trade" else ():
            ts_ns = iso_event_ns(one["timestamp"])
            yield PastTrade(one["symbol"], one["trade_id"], ts_ns, one)

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        if path != "/0/public/Trades":
            return None
        pair, since = query.get("pair", ""), int(query.get("since", "0"))
        symbol = next((one for one in past_trades if _rest_pair(one) == pair), "")
        later = [one for one in past_trades.get(symbol, ()) if one.ts_ns > since]
        some = later[: int(query.get("count", "1000"))]
        found = [
            [
                str(one.trade["price"]),
                str(one.trade["qty"]),
                one.ts_ns / SECOND,
                one.trade["side"][0],
                one.trade["ord_type"][0],
                "",
                one.number,
            ]
            for one in some
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

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        return {
            "error": [],
            "result": {
                listed.symbol.replace("/", ""): {
                    "altname": listed.symbol.replace("/", ""),
                    "wsname": listed.symbol,
                    "base": listed.base,
                    "quote": listed.quote,
                    "pair_decimals": listed.price_decimals,
                    "lot_decimals": listed.size_decimals,
                    "tick_size": listed.tick_size,
                    "status": "online",
                }
                for listed in instruments
            },
        }


_SIDES: Final = ("bids", "asks")


def _kraken_answer(time_in: str, answer: dict[str, Any], echo: dict[str, Any]) -> bytes:
    times = {"time_in": time_in, "time_out": now_text()}
    return orjson.dumps({**answer, "success": "error" not in answer, **echo, **times})


def _rest_pair(symbol: str) -> str:
    """Return the name that REST has for a symbol of the websocket."""
    return "".join({"BTC": "XBT", "DOGE": "XDG"}.get(asset, asset) for asset in symbol.split("/"))


venue: Venue = Kraken()
