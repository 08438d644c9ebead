"""Recorded frames of Coinbase, Bybit and OKX against an independent reading with `Decimal`.

The reading below takes the raw frames apart on its own: it shares no line with the adapters.
Frames are decoded together, as the ingestor does, and one by one.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from feeds.bybit import Bybit
from feeds.coinbase import Coinbase
from feeds.okx import Okx
from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Sealed
from ingestor.decode.frame_queue import FRAMES_FULL, FrameQueue
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, Symbols
from ingestor.model.rows import UPDATE, Flag, Side

pytestmark = pytest.mark.captures

Trade = tuple[str, Decimal, Decimal, int]  # symbol, price, size, the aggressor's Side
Level = tuple[str, str, Decimal, Decimal]  # symbol, side, price, size
Reading = tuple[list[Trade], list[Level], int]  # the third: book snapshots


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        for line in TextIOWrapper(stream, "utf-8"):
            yield json.loads(line)


def read_coinbase(messages: list[Any]) -> Reading:
    trades: list[Trade] = []
    levels: list[Level] = []
    snapshots = 0
    for message in messages:
        for event in message["events"]:
            if message["channel"] == "market_trades":
                taker = {"BUY": Side.ASK, "SELL": Side.BID}  # the maker bought: the taker sold
                trades += [
                    (t["product_id"], Decimal(t["price"]), Decimal(t["size"]), taker[t["side"]])
                    for t in event["trades"][::-1]
                ]
            elif message["channel"] == "l2_data":
                snapshots += event["type"] == "snapshot"
                for side in ("bid", "offer"):
                    levels += [
                        (
                            event["product_id"],
                            side.replace("offer", "ask"),
                            Decimal(level["price_level"]),
                            Decimal(level["new_quantity"]),
                        )
                        for level in event["updates"]
                        if level["side"] == side
                    ]
    return trades, levels, snapshots


def read_bybit(messages: list[Any]) -> Reading:
    trades: list[Trade] = []
    levels: list[Level] = []
    snapshots = 0
    for message in messages:
        topic = message.get("topic", "")
        if topic.startswith("publicTrade"):
            taker = {"Buy": Side.BID, "Sell": Side.ASK}
            trades += [
                (t["s"], Decimal(t["p"]), Decimal(t["v"]), taker[t["S"]]) for t in message["data"]
            ]
        elif topic.startswith("orderbook"):
            snapshots += message["type"] == "snapshot"
            for side in ("bid", "ask"):
                levels += [
                    (topic.split(".")[2], side, Decimal(price), Decimal(size))
                    for price, size in message["data"][side[0]]
                ]
    return trades, levels, snapshots


def read_okx(messages: list[Any]) -> Reading:
    trades: list[Trade] = []
    levels: list[Level] = []
    snapshots = 0
    for message in messages:
        channel = message["arg"]["channel"]
        for data in message.get("data", ()):
            if channel == "trades":
                taker = {"buy": Side.BID, "sell": Side.ASK}[data["side"]]
                trades.append((data["instId"], Decimal(data["px"]), Decimal(data["sz"]), taker))
            elif channel == "books":
                snapshots += message["action"] == "snapshot"
                for side in ("bid", "ask"):
                    levels += [
                        (message["arg"]["instId"], side, Decimal(level[0]), Decimal(level[1]))
                        for level in data[side + "s"]
                    ]
    return trades, levels, snapshots


CAPTURES = [
    pytest.param(Coinbase, {"spot": "/products"}, read_coinbase, id="coinbase"),
    pytest.param(
        Bybit, {"linear": "category=linear", "spot": "category=spot"}, read_bybit, id="bybit"
    ),
    pytest.param(
        Okx,
        {"spot": "instType=SPOT", "swap": "instType=SWAP", "futures": "instType=FUTURES"},
        read_okx,
        id="okx",
    ),
]
# The market that a file's connection is of; for OKX any will do, as one address serves all.
MARKET = {"coinbase": "spot", "bybit": "linear", "okx": "spot"}


class Decoded:
    """A capture, decoded and sealed at once.

    full: frames that wait for each other, to be read by their shapes; 1 = each alone, in Python.
    change: makes other frames of them.
    """

    def __init__(
        self,
        path: Path,
        adapter: type[FeedAdapter],
        markets: dict[str, str],
        full: int = FRAMES_FULL,
        change: Callable[[list[str]], list[str]] = list,
    ) -> None:
        venue, market = adapter.venue, MARKET[adapter.venue]
        content = list(lines(path))
        self.table = InstrumentTable()
        symbols = Symbols(venue)
        for name, mark in markets.items():
            bodies = [
                one["data"].encode() for one in content if one["t"] == "http" and mark in one["url"]
            ]
            for one in read_list(adapter, name, bodies[:1]).instruments:
                self.table.add(one)
            if venue == "okx" or name == market:
                symbols.update(self.table.symbols(venue, name))
        self.frames = change([one["data"] for one in content if one["t"] == "recv"])
        buffer = ColumnBuffer(self.table if full > 1 else None)
        frame_queue = FrameQueue(adapter, market, symbols, buffer)
        self.counts = frame_queue.counts
        session = Session(1, adapter(market, symbols), [], buffer, self.counts, SessionEvents())
        for number, frame in enumerate(self.frames):
            frame_queue.arrive((session, frame.encode(), number))
            if number % full == full - 1:
                frame_queue.decode()
        frame_queue.decode()
        self.sealed: Sealed = buffer.seal(self.table)

    def price(self, instrument: int, value: int) -> Decimal:
        return Decimal(value).scaleb(-self.table[instrument].price_exponent)

    def size(self, instrument: int, value: int) -> Decimal:
        return Decimal(value).scaleb(-self.table[instrument].size_exponent)

    def trades(self) -> list[Trade]:
        fields = ("instrument", "price", "size", "side")
        return [
            (self.table[one].symbol, self.price(one, price), self.size(one, size), side)
            for one, price, size, side in self.sealed.trades[[*fields]].tolist()
        ]

    def levels(self) -> list[Level]:
        rows: list[Level] = []
        at = 0
        prices, sizes = self.sealed.prices.tolist(), self.sealed.sizes.tolist()
        for one, bids, asks in self.sealed.updates[["instrument", "bids", "asks"]].tolist():
            for side, count in (("bid", bids), ("ask", asks)):
                rows += [
                    (
                        self.table[one].symbol,
                        side,
                        self.price(one, prices[index]),
                        self.size(one, sizes[index]),
                    )
                    for index in range(at, at + count)
                ]
                at += count
        return rows


def meaning(sealed: Sealed) -> dict[str, Any]:
    """Return all that came of frames, in a form that can be compared."""
    fields = [name for name in UPDATE.names or () if name != "spare"]
    return {
        "updates": sealed.updates[fields].tolist(),
        **{
            name: getattr(sealed, name).tolist()
            for name in ("trades", "quotes", "prices", "sizes", "quote_frames")
        },
        "frames": sealed.frames,
        "holes": [
            (one.cause, one.ts_recv, one.update, one.trade, one.quote, one.instruments)
            for one in sealed.holes
        ],
        "rejected": [
            (one.payload, one.reason, one.detail, one.ts_recv, one.at_sealing)
            for one in sealed.rejected
        ],
    }


def by_symbol(rows: list[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        groups[row[0]].append(row)
    return groups


def with_hostile(frames: list[str]) -> list[str]:
    """Put a frame that no venue should send between each 50 frames."""
    hostile = itertools.cycle(
        (
            *("", "{", "null", "[]", "pong", '{"op":"ping","ret_msg":"pong"}'),
            *(frames[-1][:-1], frames[-1].replace(":", " ", 1), frames[-2] + frames[-1]),
        )
    )
    changed: list[str] = []
    for start in range(0, len(frames), 50):
        changed += [*frames[start : start + 50], next(hostile)]
    return changed


@pytest.mark.parametrize("change", [list, with_hostile])
@pytest.mark.parametrize("full", [20, FRAMES_FULL])
@pytest.mark.parametrize(("adapter", "markets", "read"), CAPTURES)
def test_together_is_as_one_by_one(
    captures: Path,
    adapter: type[FeedAdapter],
    markets: dict[str, str],
    read: object,
    full: int,
    change: Callable[[list[str]], list[str]],
) -> None:
    path = captures / f"{adapter.venue}.jsonl.zst"
    alone = Decoded(path, adapter, markets, 1, change)
    together = Decoded(path, adapter, markets, full, change)
    assert together.counts == alone.counts
    assert together.counts.frames == len(alone.frames)
    assert (alone.counts.rejected > 0) == (change is with_hostile)
    assert meaning(together.sealed) == meaning(alone.sealed)


@pytest.mark.parametrize(("adapter", "markets", "read"), CAPTURES)
def test_rows_equal_an_independent_reading(
    captures: Path,
    adapter: type[FeedAdapter],
    markets: dict[str, str],
    read: Callable[[list[Any]], Reading],
) -> None:
    decoded = Decoded(captures / f"{adapter.venue}.jsonl.zst", adapter, markets)
    trades, levels, snapshots = read([json.loads(frame) for frame in decoded.frames])
    assert trades
    assert levels
    assert by_symbol(decoded.trades()) == by_symbol(trades)
    assert by_symbol(decoded.levels()) == by_symbol(levels)
    flags = decoded.sealed.updates["flags"]
    assert (flags & Flag.SNAPSHOT > 0).sum() == snapshots
    assert decoded.sealed.rejected == []
    assert decoded.sealed.holes == []
    counts = decoded.counts
    assert (counts.rejected, counts.duplicate) == (0, 0)
    assert counts.frames == len(decoded.frames)
    others = {one for part in decoded.sealed.others.values() for one in part.frames.tolist()}
    books = set(decoded.sealed.updates["frame"].tolist())
    prints = trade_frames(decoded.frames, adapter.venue)
    assert counts.pending + counts.decoded == len(books) + prints + len(others)


def test_a_book_that_fills_its_depth_is_flagged(captures: Path) -> None:
    for adapter, depth in ((Bybit, 200), (Okx, 400), (Coinbase, 1 << 30)):
        markets = next(one.values[1] for one in CAPTURES if one.values[0] is adapter)
        path = captures / f"{adapter.venue}.jsonl.zst"
        updates = Decoded(path, adapter, markets).sealed.updates  # type: ignore[arg-type]  # a dict
        snapshots = updates[updates["flags"] & Flag.SNAPSHOT > 0]
        full = np.maximum(snapshots["bids"], snapshots["asks"]) >= depth
        assert ((snapshots["flags"] & Flag.PARTIAL > 0) == full).all()
        rest = updates["flags"][updates["flags"] & Flag.SNAPSHOT == 0]
        assert not (rest & ~np.uint16(Flag.CHECKSUM)).any()  # an old recording of OKX has them
        assert full.any() == (adapter is not Coinbase)


def trade_frames(frames: list[str], venue: str) -> int:
    mark = {
        "coinbase": '"channel":"market_trades"',
        "bybit": '"topic":"publicTrade.',
        "okx": '"arg":{"channel":"trades"',
    }[venue]
    return sum(mark in frame and '"event":' not in frame for frame in frames)


def test_venue_times_are_near_the_recorder(captures: Path) -> None:
    """The capture's clock was right to seconds: a wrong unit would show."""
    for parameters in CAPTURES:
        adapter, markets, _ = parameters.values
        path = captures / f"{adapter.venue}.jsonl.zst"  # type: ignore[union-attr]  # a class
        decoded = Decoded(path, adapter, markets)  # type: ignore[arg-type]  # as above
        first_ns = next(one["ts_ns"] for one in lines(path) if one["t"] == "recv")
        for rows in (decoded.sealed.trades, decoded.sealed.updates):
            assert abs(rows["ts_event"] - first_ns).max() < 600 * 10**9
