"""Books: levels per second through decoding, books and audit; memory; what one broken symbol costs.

Frames are generated before the clock starts. One thread, no I/O, no garbage collection of frames in
the timed part; times are CPU seconds of this process, so that a busy machine changes little.
"""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from zlib import crc32

import orjson

from benchmarks.harness.frames import receive
from feeds.binance import Binance
from feeds.kraken import Kraken
from ingestor.adapter import BookRule
from ingestor.adapter.contract import Subscription
from ingestor.books.manager import BookManager
from ingestor.books.settings import BookSettings
from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_queue import FrameQueue
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.timestamps import SECOND

START_NS: Final = 1_800_000_000 * SECOND
FRAMES_PER_FLUSH: Final = 200
SIBLINGS: Final = 200


@dataclass(slots=True)
class Bench:
    """A session with its buffer and books, and the frames to feed."""

    frame_queue: FrameQueue
    session: Session
    buffer: ColumnBuffer
    books: BookManager
    table: InstrumentTable
    frames: list[bytes]

    def flush(self, now_ns: int) -> int:
        """Seal and apply; return the number of rows published."""
        return len(self.books.apply(self.buffer.seal(self.table), now_ns).rows)

    def receive(self, frames: Sequence[bytes], now_ns: int) -> None:
        """Decode frames, as the ingestor does."""
        receive(self.frame_queue, self.session, frames, now_ns)

    def run(self) -> tuple[float, float]:
        """Feed all frames; return CPU seconds in all, and of the books alone."""
        books_s = 0.0
        begin = time.process_time()
        for start in range(0, len(self.frames), FRAMES_PER_FLUSH):
            self.receive(self.frames[start : start + FRAMES_PER_FLUSH], START_NS)
            sealed = self.buffer.seal(self.table)
            before = time.process_time()
            self.books.apply(sealed, START_NS)
            books_s += time.process_time() - before
        return time.process_time() - begin, books_s


class Market:
    """A random book of one symbol that emits deltas as a venue does: most near the top."""

    def __init__(self, seed: int, depth: int, tick: int) -> None:
        self.random = random.Random(seed)
        self.tick = tick
        self.depth = depth
        middle = 6_000_000
        self.bids = {middle - n * tick: self.size() for n in range(1, depth + 1)}
        self.asks = {middle + n * tick: self.size() for n in range(1, depth + 1)}
        self.middle = middle

    def size(self) -> int:
        return self.random.randrange(1, 10**8)

    def changes(self, levels: int) -> tuple[dict[int, int], dict[int, int]]:
        """Return the changed bids and asks of one event: a quarter removed, a quarter new."""
        if self.random.random() < 0.2:
            self.middle += self.random.choice((-1, 1)) * self.tick
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for _ in range(levels):
            away = 1 + int(self.random.expovariate(8 / self.depth))
            is_bid = self.random.random() < 0.5
            book, out = (self.bids, bids) if is_bid else (self.asks, asks)
            price = self.middle + (-away if is_bid else away) * self.tick
            remove = price in book and len(book) > self.depth // 2 and self.random.random() < 0.4
            out[price] = 0 if remove else self.size()
        for price in [price for price in self.bids if price >= self.middle]:
            bids[price] = 0
        for price in [price for price in self.asks if price <= self.middle]:
            asks[price] = 0
        for book, out in ((self.bids, bids), (self.asks, asks)):
            for price, size in out.items():
                if size:
                    book[price] = size
                else:
                    book.pop(price, None)
        return bids, asks


def _bench(adapter: type[Any], symbols: Sequence[str], tick: str, lot: str) -> Bench:
    venue = adapter.venue
    table = InstrumentTable(
        instrument(venue, "spot", symbol, symbol, symbol, "X", tick, lot) for symbol in symbols
    )
    rule: BookRule = adapter.markets["spot"].book
    buffer = ColumnBuffer()
    frame_queue = FrameQueue(adapter, "spot", table.symbols(venue, "spot"), buffer)
    subscriptions = [
        Subscription(number, symbol, "book", f"book:{symbol}")
        for number, symbol in enumerate(symbols)
    ]
    feed = adapter("spot", table.symbols(venue, "spot"))
    session = Session(
        *(0, feed, subscriptions, buffer, frame_queue.counts),
        *(SessionEvents(), "spot", frame_queue.decode),
    )
    settings = BookSettings(repairs_per_s=1_000)
    return Bench(
        frame_queue, session, buffer, BookManager(table, lambda _: rule, settings), table, []
    )


def _text(value: int, exponent: int) -> str:
    digits = str(value).rjust(exponent + 1, "0")
    return f"{digits[:-exponent]}.{digits[-exponent:]}"


def _pairs(side: dict[int, int]) -> list[list[str]]:
    return [[_text(price, 2), _text(size, 8)] for price, size in side.items()]


def _depth_frame(symbol: str, first: int, last: int, changes: Sequence[dict[int, int]]) -> bytes:
    data = {"e": "depthUpdate", "E": START_NS // 10**6, "s": symbol, "U": first, "u": last}
    data |= {"b": _pairs(changes[0]), "a": _pairs(changes[1])}
    return orjson.dumps(data)


def _quote_frame(symbol: str, number: int, market: Market) -> bytes:
    bid, ask = max(market.bids), min(market.asks)
    best = {"b": _text(bid, 2), "B": _text(market.bids[bid], 8)}
    best |= {"a": _text(ask, 2), "A": _text(market.asks[ask], 8)}
    return orjson.dumps({"u": number, "s": symbol, **best})


def _snapshot(market: Market, number: int) -> bytes:
    return orjson.dumps(
        {"lastUpdateId": number, "bids": _pairs(market.bids), "asks": _pairs(market.asks)}
    )


def binance(
    events: int, levels: int = 20, symbols: int = 10, quote_every: int = 10
) -> tuple[Bench, int]:
    """Depth deltas of 20 levels, each tenth of them proved by a bookTicker of its number.

    In recorded traffic a quote meets one update in 10 (USD-M) to 27 (spot).
    """
    names = [f"S{number}USDT" for number in range(symbols)]
    bench = _bench(Binance, names, "0.01", "0.00000001")
    markets = [Market(number, 500, 1) for number in range(symbols)]
    for name, market in zip(names, markets, strict=True):
        bench.session.snapshot(name, _snapshot(market, 1_000), START_NS)
    bench.flush(START_NS)
    sent = 0
    for event in range(events):
        at = event % symbols
        number = 1_001 + event // symbols
        changes = markets[at].changes(levels)
        sent += len(changes[0]) + len(changes[1])
        bench.frames.append(_depth_frame(names[at], number, number, changes))
        if event % quote_every == 0:
            bench.frames.append(_quote_frame(names[at], number, markets[at]))
    return bench, sent


def _kraken_frame(kind: str, sides: Sequence[dict[int, int]], checksum: int) -> bytes:
    """Kraken's numbers are bare, so the frame is put together as text."""
    texts = [
        ",".join(f'{{"price":{_text(p, 1)},"qty":{_text(s, 8)}}}' for p, s in side.items())
        for side in sides
    ]
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{texts[0]}],'
        f'"asks":[{texts[1]}],"checksum":{checksum},"timestamp":"2026-08-01T02:53:53.646219Z"}}]}}'
    ).encode()


def kraken(events: int) -> tuple[Bench, int]:
    """One level per update at depth 10, each with the checksum of the book."""
    bench = _bench(Kraken, ["BTC/USD"], "0.1", "0.00000001")
    rng = random.Random(7)
    sides: tuple[dict[int, int], dict[int, int]] = (
        {600_000 - n: rng.randrange(1, 10**9) for n in range(1, 11)},
        {600_000 + n: rng.randrange(1, 10**9) for n in range(1, 11)},
    )

    def checksum() -> int:
        asks, bids = sorted(sides[1].items()), sorted(sides[0].items(), reverse=True)
        return crc32("".join(f"{price}{size}" for price, size in [*asks, *bids]).encode())

    bench.receive([_kraken_frame("snapshot", sides, checksum())], START_NS)
    bench.flush(START_NS)
    for _ in range(events):
        at = rng.randrange(2)
        side, change = sides[at], {rng.choice(list(sides[at])): rng.randrange(1, 10**9)}
        side.update(change)
        changes = (change, {}) if at == 0 else ({}, change)
        bench.frames.append(_kraken_frame("update", changes, checksum()))
    return bench, events


def kib_per_book(levels_a_side: int) -> float:
    """Return the memory of one book after its snapshot and 100 deltas: all that Books holds."""
    count = 20
    names = [f"S{number}USDT" for number in range(count)]
    bench = _bench(Binance, names, "0.01", "0.00000001")
    markets = [Market(number, levels_a_side, 1) for number in range(count)]
    snapshots = [_snapshot(market, 1_000) for market in markets]
    deltas = [
        _depth_frame(name, 1_001 + event, 1_001 + event, market.changes(20))
        for event in range(100)
        for name, market in zip(names, markets, strict=True)
    ]
    gc.collect()
    tracemalloc.start()
    for name, snapshot in zip(names, snapshots, strict=True):
        bench.session.snapshot(name, snapshot, START_NS)
        bench.flush(START_NS)
    for start in range(0, len(deltas), count):
        bench.receive(deltas[start : start + count], START_NS)
        bench.flush(START_NS)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert bench.books.statistics()["binance", "spot"].valid == count
    return grown / count / 1024


def siblings(seconds: int) -> dict[str, float]:
    """200 symbols on one connection, 10 events/s each; every second one of them is broken.

    lag_ms: from the receipt of the first of 200 frames to the rows of all, in wall time.
    """
    names = [f"S{number}USDT" for number in range(SIBLINGS)]
    bench = _bench(Binance, names, "0.01", "0.00000001")
    markets = [Market(number, 100, 1) for number in range(SIBLINGS)]
    numbers = [1_000] * SIBLINGS
    for name, market in zip(names, markets, strict=True):
        bench.session.snapshot(name, _snapshot(market, 1_000), START_NS)
    bench.flush(START_NS)
    lag_ms: dict[bool, list[float]] = {False: [], True: []}
    sent, published = [0] * SIBLINGS, [0] * SIBLINGS
    due: list[tuple[int, int]] = []
    broken: set[int] = set()
    now = START_NS
    for tick in range(seconds * 10):
        now += SECOND // 10
        victim = -1
        if tick % 10 == 5:
            victim = (tick // 10) % SIBLINGS
            broken.add(victim)
            numbers[victim] += 1  # an update that never arrives
        frames = []
        for at, market in enumerate(markets):
            numbers[at] += 1
            changes = market.changes(4)
            sent[at] += len(changes[0]) + len(changes[1])
            frames.append(_depth_frame(names[at], numbers[at], numbers[at], changes))
        for at in [at for due_ns, at in due if due_ns <= now]:
            bench.session.snapshot(names[at], _snapshot(markets[at], numbers[at]), now)
        due = [one for one in due if one[0] > now]
        begin = time.perf_counter()
        bench.receive(frames, now)
        output = bench.books.apply(bench.buffer.seal(bench.table), now)
        lag_ms[victim >= 0].append((time.perf_counter() - begin) * 1e3)
        due += [(repair.due_ns + SECOND // 5, repair.instrument) for repair in output.repairs]
        deltas = (output.rows["kind"] == 3) & ((output.rows["flags"] & 2) == 0)
        for number in output.rows["instrument"][deltas].tolist():
            published[number] += 1
    others = [at for at in range(SIBLINGS) if at not in broken]
    gaps = bench.books.statistics()["binance", "spot"]
    return {
        "symbols": SIBLINGS,
        "broken": len(broken),
        "gaps": gaps.gaps,
        "valid_at_end": gaps.valid,
        "sibling_rows_missing": sum(sent[at] - published[at] for at in others),
        "lag_ms_median_without_a_break": _median(lag_ms[False]),
        "lag_ms_median_with_a_break": _median(lag_ms[True]),
        "lag_ms_max_with_a_break": round(max(lag_ms[True]), 2),
    }


def _median(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 2)


def _best(cases: Mapping[str, Callable[[], tuple[Bench, int]]], turns: int) -> list[dict[str, Any]]:
    """Return the best run of each case: they take turns, each time on fresh books."""
    runs: dict[str, list[tuple[float, float, int]]] = {case: [] for case in cases}
    for _ in range(turns):
        for case, build in cases.items():
            bench, units = build()
            gc.collect()
            gc.freeze()
            total_s, books_s = bench.run()
            gc.unfreeze()
            line = bench.books.statistics()[bench.session.adapter.venue, "spot"]
            assert line.mismatched == line.gaps == line.held == 0
            assert line.verified >= len(bench.frames) // 11
            runs[case].append((total_s, books_s, units))
    return [
        {
            "case": case,
            "units_per_s": round(units / total_s),
            "ns_per_unit": round(total_s / units * 1e9),
            "books_ns_per_unit": round(books_s / units * 1e9),
        }
        for case, (total_s, books_s, units) in ((case, min(taken)) for case, taken in runs.items())
    ]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    events, turns = (2_000, 3) if quick else (10_000, 9)
    cases = {
        "binance: 20-level deltas, one in ten met by a quote; per level": partial(binance, events),
        "binance: 20-level deltas and as many quotes; per level": partial(
            binance, events, quote_every=1
        ),
        "kraken: one-level updates with CRC32; per update": partial(kraken, 2 * events),
    }
    results = deltas, _, checksums = _best(cases, turns)
    kib = {levels: round(kib_per_book(levels), 1) for levels in (500, 1_000)}
    lag = siblings(10 if quick else 60)
    return {
        "results": results,
        "headline": {
            "levels_per_s": deltas["units_per_s"],
            "kraken_updates_per_s": checksums["units_per_s"],
            "kib_per_1000_level_book": kib[500],
            "kib_per_book_of_1000_levels_a_side": kib[1_000],
            **{f"siblings_{name}": value for name, value in lag.items()},
        },
    }
