"""Venues whose every message is the whole book: how each says it."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any
from zlib import crc32

from tests.feeds.book_speakers import NOW_MS, Change, Speak


def _hyperliquid(change: Change) -> Any:
    sides = [[{"px": price, "sz": size, "n": 1} for price, size in one] for one in change.sides()]
    return {"channel": "l2Book", "data": {"coin": change.symbol, "time": NOW_MS, "levels": sides}}


def _upbit(change: Change) -> Any:
    units = [
        {"ask_price": int(ask[0]), "ask_size": int(ask[1]), "bid_price": int(bid[0])}
        | {"bid_size": int(bid[1])}
        for bid, ask in zip_longest(*change.sides(), fillvalue=("0", "0"))
    ]
    book = {"timestamp": NOW_MS, "orderbook_units": units, "stream_type": "REALTIME"}
    return {"type": "orderbook", "code": change.symbol, **book}


def _coinex(change: Change) -> Any:
    bids, asks = change.sides()
    checksum = crc32(":".join(text for level in (*bids, *asks) for text in level).encode())
    depth = {"asks": asks, "bids": bids, "updated_at": NOW_MS, "checksum": checksum}
    data = {"market": change.symbol, "is_full": True, "depth": depth}
    return {"method": "depth.update", "data": data, "id": None}


IMAGE_SPEAKERS: dict[tuple[str, str], Speak] = {
    ("hyperliquid", "perp"): _hyperliquid,
    ("hyperliquid", "spot"): _hyperliquid,
    ("upbit", "spot"): _upbit,
    ("coinex", "spot"): _coinex,
    ("coinex", "futures"): _coinex,
    ("bithumb", "spot"): _upbit,
}
