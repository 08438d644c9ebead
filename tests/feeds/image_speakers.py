"""Venues whose every message is the whole book: how each says it."""

from __future__ import annotations

from typing import Any

from tests.feeds.book_speakers import NOW_MS, Change, Speak


def _hyperliquid(change: Change) -> Any:
    sides = [[{"px": price, "sz": size, "n": 1} for price, size in one] for one in change.sides()]
    return {"channel": "l2Book", "data": {"coin": change.symbol, "time": NOW_MS, "levels": sides}}


IMAGE_SPEAKERS: dict[tuple[str, str], Speak] = {
    ("hyperliquid", "perp"): _hyperliquid,
    ("hyperliquid", "spot"): _hyperliquid,
}
