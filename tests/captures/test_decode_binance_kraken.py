"""Recorded frames of Binance and Kraken against an independent reading with `Decimal`.

The reading here takes the raw frames apart on its own: it shares no line with the adapters.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from feeds.binance import Binance
from feeds.kraken import Kraken, book_checksum
from ingestor.adapter import FeedAdapter
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Sealed
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.frame_queue import FRAMES_FULL, FrameQueue
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Flag
from tests.captures.frames import inferred, lines, listed
from tests.captures.test_decode_bybit_coinbase_okx import meaning, with_hostile
from tests.feeds.harness import rows_of

pytestmark = pytest.mark.captures

Level = list[Decimal]


@dataclass
class Reading:
    """What the raw frames say, each class in order of arrival."""

    trades: list[tuple[str, int, Decimal, Decimal, str, int]] = field(default_factory=list)
    quotes: list[tuple[str, int, list[Decimal]]] = field(default_factory=list)
    books: list[tuple[str, list[Level], list[Level], int]] = field(default_factory=list)
    left_out: int = 0
    control: int = 0

    def numbers(self) -> list[tuple[str, Decimal, Decimal]]:
        """Every price with its size, by symbol."""
        found = [(symbol, price, size) for symbol, _, price, size, *_ in self.trades]
        for symbol, _, (bid, bid_size, ask, ask_size) in self.quotes:
            found += [(symbol, bid, bid_size), (symbol, ask, ask_size)]
        for symbol, bids, asks, _ in self.books:
            found += [(symbol, price, size) for price, size in (*bids, *asks)]
        return found


def read_binance(frames: list[str]) -> Reading:
    reading = Reading()
    for frame in frames:
        data = json.loads(frame)["data"]
        symbol, event = data["s"], data.get("e", "bookTicker")
        if event in {"trade", "aggTrade"}:
            number = data["t"] if event == "trade" else data["a"]
            side = "ask" if data["m"] is True else "bid"
            price, size = Decimal(data["p"]), Decimal(data["q"])
            reading.trades.append((symbol, number, price, size, side, data["T"]))
        elif event == "bookTicker":
            best = [Decimal(data[name]) for name in "bBaA"]
            reading.quotes.append((symbol, data["u"], best))
        elif event == "depthUpdate":
            bids, asks = ([[Decimal(x) for x in level] for level in data[name]] for name in "ba")
            reading.books.append((symbol, bids, asks, data["u"]))
        else:
            reading.left_out += 1
    return reading


def read_kraken(frames: list[str]) -> Reading:
    reading = Reading()
    for frame in frames:
        message = json.loads(frame, parse_float=Decimal)
        if message.get("channel") != "book":
            reading.control += 1
            continue
        for book in message["data"]:
            bids, asks = (
                [[Decimal(level["price"]), Decimal(level["qty"])] for level in book[name]]
                for name in ("bids", "asks")
            )
            reading.books.append((book["symbol"], bids, asks, 0))
    return reading


@dataclass
class Capture:
    """A recording read twice: by itself here, and through the adapter."""

    reading: Reading
    sealed: Sealed
    table: InstrumentTable
    counts: FrameCounts
    received: list[int]


Case = tuple[str, type[FeedAdapter], str, Callable[[list[str]], Reading], bool]
CASES: list[Case] = [
    ("binance", Binance, "spot", read_binance, True),
    ("binance_futures", Binance, "usdm", read_binance, True),
    ("binance_spot_btcusdt_20240808", Binance, "spot", read_binance, False),
    ("binance_usdm_btcusdt_20240808", Binance, "usdm", read_binance, False),
    ("kraken_v2_btcusd_book", Kraken, "spot", read_kraken, False),
]


@pytest.fixture(
    scope="module",
    params=[(case, full) for case in CASES for full in (1, FRAMES_FULL)],
    ids=lambda parameter: f"{parameter[0][0]}-{parameter[1]}",
)
def capture(request: pytest.FixtureRequest, captures: Path) -> Capture:
    """Frames are decoded one by one, and together."""
    (name, adapter, market, read, has_list), full = request.param
    recording = list(lines(captures / f"{name}.jsonl.zst"))
    received = [line for line in recording if line["t"] == "recv"]
    reading = read([line["data"] for line in received])
    instruments = listed(adapter, market, recording)
    assert bool(instruments) == has_list
    table = InstrumentTable(instruments or inferred(adapter.venue, market, reading.numbers()))
    frames = [(line["data"].encode(), line["ts_ns"]) for line in received]
    buffer, session = decoded(adapter, market, table, frames, full)
    for line in recording:
        if line["t"] == "http" and "/depth" in line["url"]:
            symbol = line["url"].partition("symbol=")[2].partition("&")[0] or "BTCUSDT"
            assert session.snapshot(symbol, line["data"].encode(), line["ts_ns"])
    sealed = buffer.seal(table)
    return Capture(reading, sealed, table, session.counts, [line["ts_ns"] for line in received])


def decoded(
    adapter: type[FeedAdapter],
    market: str,
    table: InstrumentTable,
    frames: list[tuple[bytes, int]],
    full: int,
) -> tuple[ColumnBuffer, Session]:
    """Decode frames, so many of them together by their shapes, or each alone in Python.
    frames: payload, ts_recv."""
    buffer = ColumnBuffer(table if full > 1 else None)
    symbols = table.symbols(adapter.venue, market)
    frame_queue = FrameQueue(adapter, market, symbols, buffer)
    feed, counts = adapter(market, symbols), frame_queue.counts
    session = Session(0, feed, (), buffer, counts, SessionEvents(), market, frame_queue.decode)
    for number, frame in enumerate(frames, 1):
        frame_queue.arrive((session, *frame))
        if number % full == 0:
            frame_queue.decode()
    frame_queue.decode()
    return buffer, session


@pytest.mark.parametrize("full", [20, FRAMES_FULL])
@pytest.mark.parametrize(("name", "adapter", "market", "read"), [case[:4] for case in CASES])
def test_hostile_frames_between_cost_themselves_alone(
    captures: Path,
    name: str,
    adapter: type[FeedAdapter],
    market: str,
    read: Callable[[list[str]], Reading],
    full: int,
) -> None:
    """All is as it is when frames are decoded one by one."""
    recording = list(lines(captures / f"{name}.jsonl.zst"))
    plain = [line["data"] for line in recording if line["t"] == "recv"]
    instruments = listed(adapter, market, recording)
    table = InstrumentTable(instruments or inferred(adapter.venue, market, read(plain).numbers()))
    frames = [(frame.encode(), number) for number, frame in enumerate(with_hostile(plain))]
    (alone, one), (together, other) = (
        decoded(adapter, market, table, frames, size) for size in (1, full)
    )
    assert other.counts == one.counts
    assert one.counts.rejected > 0
    assert meaning(together.seal(table)) == meaning(alone.seal(table))


def test_nothing_is_refused(capture: Capture) -> None:
    assert capture.sealed.rejected == []
    assert capture.sealed.holes == []
    assert capture.counts.rejected_by_reason == {}
    others = {one for part in capture.sealed.others.values() for one in part.frames.tolist()}
    assert capture.counts.filtered + len(others) == capture.reading.left_out
    assert capture.counts.control == capture.reading.control
    assert capture.counts.frames == len(capture.received)
    assert capture.counts.unaccounted == 0


def test_rows_equal_an_independent_reading(capture: Capture) -> None:
    """Every price and size to the digit, every number and side, in order."""
    rows = by_kind(capture.sealed, capture.table)
    reading = capture.reading
    assert [
        (r["symbol"], r["sequence"], r["price"], r["size"], r["side"]) for r in rows["trade"]
    ] == [trade[:5] for trade in reading.trades]
    assert [r["trade_id"] for r in rows["trade"]] == [trade[1] for trade in reading.trades]
    assert [r["ts_event"] for r in rows["trade"]] == [t[5] * 1_000_000 for t in reading.trades]
    assert [
        (
            r["symbol"],
            r["sequence"],
            [r[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size")],
        )
        for r in rows["quote"]
    ] == reading.quotes
    books = rows["update"][: len(reading.books)]  # the REST snapshots were taken after them
    assert [(r["symbol"], r["bids"], r["asks"], r["last"]) for r in books] == reading.books


def by_kind(sealed: Sealed, table: InstrumentTable) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"trade": [], "quote": [], "update": [], "hole": []}
    for row in rows_of(sealed, table, ts_recv=None):
        if row["kind"] in found:
            found[row["kind"]].append(row)
    return found


def test_venue_times_are_near_the_recorder(capture: Capture) -> None:
    """Seconds of clock difference at most: a wrong unit would be off by factors."""
    for rows in (capture.sealed.trades, capture.sealed.quotes, capture.sealed.updates):
        timed = rows[(rows["flags"] & int(Flag.NO_VENUE_TIME)) == 0]
        assert (abs(timed["ts_event"] - timed["ts_recv"]) < 60 * 10**9).all()


def test_every_kraken_checksum_is_verified(captures: Path) -> None:
    """A plain book of dicts, by scaled integers: the adapter's function against every frame."""
    recording = lines(captures / "kraken_v2_btcusd_book.jsonl.zst")
    received = [line["data"] for line in recording if line["t"] == "recv"]
    reading = read_kraken(received)
    table = InstrumentTable(inferred("kraken", "spot", reading.numbers()))
    assert (table[0].price_exponent, table[0].size_exponent) == (1, 8)
    feed = Kraken("spot", table.symbols("kraken", "spot"))
    buffer = ColumnBuffer()
    session = Session(0, feed, (), buffer, FrameCounts(), SessionEvents(), "spot")
    for frame in received:
        session.receive(frame.encode(), 1)
    sealed = buffer.seal(table)
    depth = Kraken.markets["spot"].book.depth_max
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    verified, start = 0, 0
    for update in sealed.updates:
        if update["flags"] & Flag.SNAPSHOT:
            bids, asks = {}, {}
        for side, count in ((bids, int(update["bids"])), (asks, int(update["asks"]))):
            for at in range(start, start + count):
                side[int(sealed.prices[at])] = int(sealed.sizes[at])
            start += count
        bids = dict(sorted((p for p in bids.items() if p[1]), reverse=True)[:depth])
        asks = dict(sorted(p for p in asks.items() if p[1])[:depth])
        assert book_checksum(list(bids.items()), list(asks.items())) == update["check_value"]
        verified += 1
    assert verified == len(reading.books) > 250


def test_a_wrong_book_has_a_wrong_checksum() -> None:
    bids, asks = [(910_000, 50_000_000)], [(910_001, 210_000_000)]
    assert book_checksum(bids, asks) == zlib.crc32(b"910001210000000" + b"91000050000000")
    assert book_checksum(bids, asks) != book_checksum(asks, bids)
    assert book_checksum(bids * 11, asks) == book_checksum(bids * 10, asks)
