"""Venues whose updates have numbers: how each says them. `book_speakers` has the others."""

from __future__ import annotations

from typing import Any

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


NUMBERED_SPEAKERS: dict[tuple[str, str], Speaker] = {
    ("htx", "spot"): Speaker(_htx_spot, step=5),
    ("htx", "linear"): Speaker(_htx_contract),
    ("htx", "inverse"): Speaker(_htx_contract),
    ("kucoin", "spot"): Speaker(_kucoin_spot, step=3),
}
