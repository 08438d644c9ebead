"""Venues whose updates have numbers: how each says them. `book_speakers` has the others."""

from __future__ import annotations

from typing import Any

from tests.fakes.protobuf import field
from tests.feeds.book_speakers import NOW_MS, Change, Speaker


def _bare(change: Change) -> tuple[list[list[int]], list[list[int]]]:
    """Return bids and asks as pairs of bare numbers."""
    bids, asks = ([[int(price), int(size)] for price, size in one] for one in change.sides())
    return bids, asks


def _htx_spot(change: Change) -> Any:
    bids, asks = _bare(change)
    topic = f"market.{change.symbol}.mbp.400"
    levels = {"seqNum": change.number, "bids": bids, "asks": asks}
    if change.is_snapshot:
        return {"id": "image 1", "rep": topic, "status": "ok", "ts": NOW_MS, "data": levels}
    return {"ch": topic, "ts": NOW_MS, "tick": {**levels, "prevSeqNum": change.previous}}


def _htx_contract(change: Change) -> Any:
    bids, asks = _bare(change)
    event = "snapshot" if change.is_snapshot else "update"
    tick = {"bids": bids, "asks": asks, "event": event, "ts": NOW_MS, "version": change.number}
    topic = f"market.{change.symbol}.depth.size_150.high_freq"
    return {"ch": topic, "ts": NOW_MS, "tick": tick}


def _kucoin_spot(change: Change) -> Any:
    bids, asks = change.sides()
    if change.is_snapshot:
        image = {"time": NOW_MS, "sequence": str(change.number), "bids": bids, "asks": asks}
        return {"code": "200000", "data": image}
    changes = {"bids": [[*one, "1"] for one in bids], "asks": [[*one, "1"] for one in asks]}
    numbers = {"sequenceStart": change.previous + 1, "sequenceEnd": change.number}
    data = {"symbol": change.symbol, "changes": changes, "time": NOW_MS, **numbers}
    return {"type": "message", "topic": f"/market/level2:{change.symbol}", "data": data}


def _bingx(change: Change) -> Any:
    bids, asks = change.sides()
    action = "all" if change.is_snapshot else "update"
    levels = {"action": action, "lastUpdateId": change.number, "bids": bids, "asks": asks}
    stream = f"{change.symbol}@incrDepth"
    return {"code": 0, "dataType": stream, "data": levels | {"time": NOW_MS}}


def _mexc_futures(change: Change) -> Any:
    bids, asks = ([[*pair, 1] for pair in side] for side in _bare(change))
    levels = {"asks": asks, "bids": bids, "version": change.number}
    if change.is_snapshot:
        return {"success": True, "code": 0, "data": levels | {"timestamp": NOW_MS}}
    data = {"channel": "push.depth", "data": levels, "symbol": change.symbol, "ts": NOW_MS}
    levels["begin"], levels["end"] = change.previous + 1, change.number
    return data


def _mexc_spot(change: Change) -> Any:
    bids, asks = change.sides()
    if change.is_snapshot:
        return {"lastUpdateId": change.number, "bids": bids, "asks": asks, "timestamp": NOW_MS}
    levels = [field(1, field(1, price) + field(2, size)) for price, size in asks]
    levels += [field(2, field(1, price) + field(2, size)) for price, size in bids]
    numbers = field(4, str(change.previous + 1)) + field(5, str(change.number))
    head = field(1, f"spot@public.aggre.depth.v3.api.pb@100ms@{change.symbol}")
    times = field(3, change.symbol) + field(6, NOW_MS)
    return head + times + field(313, b"".join(levels) + numbers)


def _bitvavo(change: Change) -> Any:
    bids, asks = change.sides()
    book = {"market": change.symbol, "nonce": change.number, "bids": bids, "asks": asks}
    if change.is_snapshot:
        return {"action": "getBook", "response": book}
    return {"event": "book", **book}


NUMBERED_SPEAKERS: dict[tuple[str, str], Speaker] = {
    ("htx", "spot"): Speaker(_htx_spot, step=5),
    ("htx", "linear"): Speaker(_htx_contract),
    ("htx", "inverse"): Speaker(_htx_contract),
    ("bingx", "spot"): Speaker(_bingx),
    ("bingx", "swap"): Speaker(_bingx),
    ("mexc", "spot"): Speaker(_mexc_spot, step=2),
    ("mexc", "futures"): Speaker(_mexc_futures, step=4),
    ("kucoin", "spot"): Speaker(_kucoin_spot, step=3),
    ("bitvavo", "spot"): Speaker(_bitvavo),
}
