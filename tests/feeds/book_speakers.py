"""Venues that send the frames of one book: what a test of a book's proof drops, doubles and swaps.

A speaker has the venue's words alone. Numbers of prices and sizes are whole; the symbol is the
first one of the market's fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

Levels = dict[int, int]
NOW_MS = 1_767_225_600_000


@dataclass(frozen=True)
class Change:
    """An update: its number, that of the one before, and the levels that changed (0 = removed)."""

    symbol: str
    previous: int
    number: int
    bids: Levels
    asks: Levels
    is_snapshot: bool = False

    def sides(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return bids and asks as pairs of text, best first."""
        bids = [[str(price), str(size)] for price, size in sorted(self.bids.items(), reverse=True)]
        return bids, [[str(price), str(size)] for price, size in sorted(self.asks.items())]


Speak = Callable[[Change], Any]


@dataclass(frozen=True)
class Speaker:
    """How a market speaks. step: between the numbers of two updates. one_level: a message has one
    level. offset: of its numbers, where they are times."""

    speak: Speak
    step: int = 1
    offset: int = 0
    one_level: bool = False

    def frame(self, change: Change) -> bytes:
        spoken = self.speak(change)
        return spoken if isinstance(spoken, bytes) else orjson.dumps(spoken)


def _bitget(kind: str) -> Speak:
    def speak(change: Change) -> Any:
        bids, asks = change.sides()
        numbers = {"seq": change.number, "pseq": 0 if change.is_snapshot else change.previous}
        return {
            "action": "snapshot" if change.is_snapshot else "update",
            "arg": {"instType": kind, "topic": "books", "symbol": change.symbol},
            "data": [{"a": asks, "b": bids, "checksum": 0, "ts": str(NOW_MS), **numbers}],
            "ts": NOW_MS,
        }

    return speak


def _gate(channel: str) -> Speak:
    def speak(change: Change) -> Any:
        bids, asks = change.sides()
        numbers = {"full": True} if change.is_snapshot else {"U": change.previous + 1}
        name = f"ob.{change.symbol}.400"
        result = {"t": NOW_MS, "s": name, "u": change.number, "b": bids, "a": asks, **numbers}
        return {"channel": channel, "result": result, "time_ms": NOW_MS}

    return speak


def _cryptocom(change: Change) -> Any:
    bids, asks = ([[*level, "1"] for level in side] for side in change.sides())
    sides = {"bids": bids, "asks": asks}
    levels = sides if change.is_snapshot else {"update": sides, "pu": change.previous}
    result = {
        "channel": "book" if change.is_snapshot else "book.update",
        "subscription": f"book.{change.symbol}.50",
        "instrument_name": change.symbol,
        "data": [{"t": NOW_MS, "tt": NOW_MS, "u": change.number, **levels}],
    }
    return {"id": -1, "method": "subscribe", "code": 0, "result": result}


def _named(change: Change) -> dict[str, Any]:
    return {"product_id": change.symbol, "timestamp": NOW_MS, "seq": change.number}


def _krakenfutures(change: Change) -> Any:
    if change.is_snapshot:
        bids, asks = (
            [{"price": price, "qty": size} for price, size in side.items()]
            for side in (change.bids, change.asks)
        )
        return {"feed": "book_snapshot", **_named(change), "bids": bids, "asks": asks}
    [(price, size)] = change.bids.items()
    return {"feed": "book", **_named(change), "side": "buy", "price": price, "qty": size}


def _deribit(change: Change) -> Any:
    bids, asks = (
        [["change" if size else "delete", price, size] for price, size in side.items()]
        for side in (change.bids, change.asks)
    )
    kind: dict[str, object] = {"type": "snapshot"}
    if not change.is_snapshot:
        kind = {"type": "change", "prev_change_id": change.previous}
    data = {"timestamp": NOW_MS, "instrument_name": change.symbol, "change_id": change.number}
    channel = f"book.{change.symbol}.100ms"
    parameters = {"channel": channel, "data": {**data, **kind, "bids": bids, "asks": asks}}
    return {"jsonrpc": "2.0", "method": "subscription", "params": parameters}


def _gemini(change: Change) -> Any:
    bids, asks = change.sides()
    first = change.number if change.is_snapshot else change.previous + 1
    numbers = {"U": first, "u": change.number}
    return {"e": "depthUpdate", "E": NOW_MS * 10**6, "s": change.symbol, **numbers,
            "b": bids, "a": asks}  # fmt: skip


def _lighter(change: Change) -> Any:
    bids, asks = (
        [{"price": price, "size": size} for price, size in side] for side in change.sides()
    )
    kind = "subscribed" if change.is_snapshot else "update"
    book = {"nonce": change.number, "begin_nonce": change.previous, "bids": bids, "asks": asks}
    channel = f"order_book:{change.symbol}"
    message = {"type": f"{kind}/order_book", "channel": channel, "timestamp": NOW_MS}
    return message | {"order_book": book}


def _backpack(change: Change) -> Any:
    bids, asks = change.sides()
    if change.is_snapshot:
        number = str(change.number)
        return {"lastUpdateId": number, "bids": bids, "asks": asks, "timestamp": NOW_MS * 1_000}
    numbers = {"U": change.previous + 1, "u": change.number, "T": NOW_MS * 1_000}
    data = {"e": "depth", "s": change.symbol, "a": asks, "b": bids, **numbers}
    return {"stream": f"depth.{change.symbol}", "data": data}


def _binance_family(change: Change) -> Any:
    bids, asks = change.sides()
    if change.is_snapshot:
        return {"lastUpdateId": change.number, "bids": bids, "asks": asks}
    numbers = {"U": change.previous + 1, "u": change.number, "pu": change.previous}
    data = {"e": "depthUpdate", "E": NOW_MS, "T": NOW_MS, "s": change.symbol, **numbers}
    stream = f"{change.symbol.lower()}@depth@100ms"
    return {"stream": stream, "data": data | {"b": bids, "a": asks}}


def _poloniex(change: Change) -> Any:
    bids, asks = change.sides()
    numbers = {"lastId": change.previous, "id": change.number}
    data = {"symbol": change.symbol, "createTime": NOW_MS, "asks": asks, "bids": bids, **numbers}
    action = "snapshot" if change.is_snapshot else "update"
    return {"channel": "book_lv2", "data": [data], "action": action}


def _whitebit(change: Change) -> Any:
    bids, asks = change.sides()
    book = {"timestamp": NOW_MS / 1_000, "update_id": change.number, "bids": bids, "asks": asks}
    if not change.is_snapshot:
        book |= {"past_update_id": change.previous}
    parameters = [change.is_snapshot, book, change.symbol]
    return {"method": "depth_update", "params": parameters, "id": None}


def _woox(change: Change) -> Any:
    bids, asks = change.sides()
    if change.is_snapshot:
        sides = {
            name: [{"price": price, "quantity": size} for price, size in side]
            for name, side in (("bids", bids), ("asks", asks))
        }
        return {"success": True, "data": sides, "timestamp": NOW_MS + change.number}
    times = {"ts": NOW_MS + change.number, "prevTs": NOW_MS + change.previous}
    data = {"s": change.symbol, "bids": bids, "asks": asks, **times}
    return {"topic": f"orderbookupdate@{change.symbol}@50", "ts": NOW_MS, "data": data}


def _bullish(change: Change) -> Any:
    bids, asks = ([text for level in side for text in level] for side in change.sides())
    numbers = [change.previous + 1, change.number]
    named: dict[str, Any] = {"timestamp": str(NOW_MS), "symbol": change.symbol}
    kind = "snapshot" if change.is_snapshot else "update"
    data = named | {"bids": bids, "asks": asks, "sequenceNumberRange": numbers}
    return {"type": kind, "dataType": "V1TALevel2", "data": data}


SPEAKERS = {
    ("bitget", "spot"): Speaker(_bitget("spot"), step=3),
    ("bitget", "coin"): Speaker(_bitget("coin-futures"), step=3),
    ("gateio", "spot"): Speaker(_gate("spot.obu"), step=4),
    ("gateio", "usdt"): Speaker(_gate("futures.obu"), step=4),
    ("cryptocom", "spot"): Speaker(_cryptocom, step=5),
    ("krakenfutures", "linear"): Speaker(_krakenfutures, one_level=True),
    ("deribit", "future"): Speaker(_deribit, step=3),
    ("lighter", "perp"): Speaker(_lighter, step=9),
    ("gemini", "spot"): Speaker(_gemini, step=4),
    ("backpack", "perp"): Speaker(_backpack, step=2),
    ("binanceus", "spot"): Speaker(_binance_family, step=5),
    ("aster", "spot"): Speaker(_binance_family, step=5),
    ("aster", "usdm"): Speaker(_binance_family, step=5),
    ("poloniex", "spot"): Speaker(_poloniex, step=3),
    ("whitebit", "spot"): Speaker(_whitebit, step=7),
    ("woox", "perp"): Speaker(_woox, step=100, offset=NOW_MS),
    ("bullish", "spot"): Speaker(_bullish, step=4),
}
