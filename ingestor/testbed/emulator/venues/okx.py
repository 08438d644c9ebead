"""Emulate OKX's version 5: all markets on one connection, one answer for each argument.

Reference: OKX "WebSocket API v5", as `feeds/okx/` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final

import orjson

from feeds.okx import Okx as OkxAdapter
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
)

_DEPTH_MAX: Final = 400


class Okx(Venue):
    """Version 5. One answer for each argument; `ping` and `pong` are bare text.

    Where a recording has `tickers` and no `bbo-tbt`, it stands in for it.
    """

    name = "okx"
    adapter = OkxAdapter
    shares_connection = True
    recording_names: ClassVar = {"OKX": ""}
    refused_book = RestReply(
        HTTPStatus.OK, b'{"code":"51001","msg":"Instrument ID doesn\'t exist.","data":[]}'
    )
    _KINDS: ClassVar = {
        "tickers": "quotes",
        "bbo-tbt": "quotes",
        **dict.fromkeys(("books", "books5", "books-l2-tbt", "books50-l2-tbt"), "book"),
    }
    _KNOWN: Final = (
        *("tickers", "bbo-tbt", "books", "books5", "books-l2-tbt", "books50-l2-tbt", "trades"),
        *("trades-all", "mark-price", "funding-rate", "open-interest", "price-limit"),
    )

    def market_of_frame(self, message: Any) -> str | None:
        return "" if isinstance(message, dict) and {"arg", "data"} <= message.keys() else None

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
                for book in books:
                    bids, asks = map(pairs, (book["bids"], book["asks"]))
                    yield Change(
                        f"books:{symbol}", symbol, action == "snapshot", bids, asks,
                        number=book.get("seqId", 0), details=book,
                    )  # fmt: skip

    def prints(self, message: Any) -> Iterator[Print]:
        yield from super().prints(message)
        match message:
            case {"arg": {"channel": "trades"}, "data": trades}:
                for trade in trades:
                    yield trade["instId"], trade["px"], trade["sz"]

    def trades(self, message: Any) -> Iterator[PastTrade]:
        match message:
            case {"arg": {"channel": "trades"}, "data": trades}:
                for trade in trades:
                    ts_ns = int(trade["ts"]) * MILLISECOND
                    yield PastTrade(trade["instId"], int(trade["tradeId"]), ts_ns, trade)

    def history(
        self, path: str, query: Mapping[str, str], past_trades: PastTrades
    ) -> object | None:
        """Return the answer to a request for past trades, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            past_trades: Trades that were recorded.
        """
        if path != "/api/v5/market/history-trades":
            return None
        before = int(query.get("after") or 1 << 62)
        found = [
            trade for trade in past_trades.get(query.get("instId", ""), ()) if trade.number < before
        ]
        newest = found[-int(query.get("limit", "100")) :]
        return {"code": "0", "msg": "", "data": [level.trade for level in reversed(newest)]}

    def image(self, stream: str, book: Book) -> bytes | None:
        """The number of orders at a level is not kept: it is said to be 1."""
        bids, asks = ([[*level, "0", "1"] for level in side] for side in (book.bids(), book.asks()))
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

    def instrument_list(
        self, instruments: Sequence[Listed], query: Mapping[str, str], market: str
    ) -> object:
        """Return the answer to a request for instruments, as JSON.

        Args:
            instruments: The instruments.
            query: The request's parameters.
            market: Name of the market.
        """
        wanted = query.get("instType", "SPOT")
        data = []
        for listed in instruments:
            parts = listed.symbol.split("-")
            kind = "SPOT" if len(parts) == 2 else "SWAP" if parts[2] == "SWAP" else "FUTURES"
            if kind == wanted:
                data.append(
                    {
                        "instId": listed.symbol,
                        "instType": kind,
                        "state": "live",
                        "baseCcy": listed.base if kind == "SPOT" else "",
                        "quoteCcy": listed.quote if kind == "SPOT" else "",
                        "uly": "" if kind == "SPOT" else f"{listed.base}-{listed.quote}",
                        "settleCcy": listed.of("settlement", listed.quote),
                        "ctVal": listed.of("multiplier", "1"),
                        "ctMult": "1",
                        "expTime": str(int(listed.of("expiry_ns", "0")) // 1_000_000),
                        "tickSz": listed.tick_size,
                        "lotSz": listed.lot_size,
                    }
                )
        return {"code": "0", "msg": "", "data": data}

    def book_request(self, path: str, query: Mapping[str, str]) -> BookRequest | None:
        if path != "/api/v5/market/books":
            return None
        return BookRequest(query.get("instId", ""), depth_asked(query, "sz", 1, _DEPTH_MAX))

    def write_book(self, book: Book, depth: int) -> bytes:
        sides = {"asks": book.asks(depth), "bids": book.bids(depth)}
        levels = {side: [[*trade, "0", "1"] for trade in some] for side, some in sides.items()}
        data = levels | {"ts": book.details.get("ts", str(now_ms()))}
        if book.number:
            data["seqId"] = book.number
        return orjson.dumps({"code": "0", "msg": "", "data": [data]})

    def other_answer(
        self, path: str, query: Mapping[str, str], instruments: Sequence[Listed]
    ) -> object | None:
        """Return the answer to what clients ask before they begin, as JSON.

        Args:
            path: Path of the request.
            query: The request's parameters.
            instruments: The instruments.
        """
        if path != "/api/v5/public/time":
            return None
        return {"code": "0", "msg": "", "data": [{"ts": str(now_ms())}]}


def _okx_error(text: str, code: str, connection: VenueConnection) -> bytes:
    return orjson.dumps({"event": "error", "code": code, "msg": text, "connId": connection.name})


venue: Venue = Okx()
