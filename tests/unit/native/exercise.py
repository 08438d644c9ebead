"""Run the library over mutated frames, random rows and books, for a build with sanitizers."""

from __future__ import annotations

from contextlib import suppress
from ctypes import CDLL
from random import Random

import numpy as np

from ingestor.adapter import CountsFrames
from ingestor.adapter.shapes import shapes_of
from ingestor.codec import headers
from ingestor.codec.json_batches import JsonBatches
from ingestor.codec.json_encoder import JsonEncoder
from ingestor.model.row_classes import STANDARD_CLASSES
from ingestor.model.rows import LEVEL, TRADE, UPDATE
from ingestor.native import (
    Durations,
    FrameTaker,
    LentBooks,
    RowCounts,
    TakenRows,
    TradeFollower,
    crc32c,
    native,
    take_highest,
)
from ingestor.sources.registry import adapter_of, registry
from tests.feeds.shape_frames import header, mixed, table_of
from tests.unit.codec.test_record_batches import MADE, check_cut, check_mutated
from tests.unit.native.rows import random_rows, random_table

FRAMES = 400  # of each market


def exercise_books(library: CDLL, random: Random) -> None:
    """Lend books, some without any level; take updates: the next ones, odd ones, and others'."""
    for turn in range(200):
        books, most = LentBooks(library), random.choice((0, 8, 300))
        sides = [np.arange(random.randrange(1 + most), dtype=np.int64) for _ in range(2)]
        bids, asks = (
            (keys, np.ones(len(keys), np.int64)) for keys in (sides[0] + 1, sides[1] - 999)
        )
        books.lend(3, bids, asks, last=0, rule=turn % 4, limit=random.choice((5, 400)), most=most)
        updates = np.zeros(random.randrange(40), UPDATE)
        for number, update in enumerate(updates, 1):
            update["instrument"] = random.choice((3, 3, 3, 2))
            update["first"] = update["last"] = number
            update["previous"] = number - 1
            update["bids"], update["asks"] = random.randrange(6), random.randrange(6)
            update["flags"] = 2 * (random.random() < 0.02)
        count = int((updates["bids"] + updates["asks"]).sum())
        numbers = np.array([random.randrange(1, 400) for _ in range(count)], np.int64)
        counts = np.array([random.choice((-1, *[0, 1] * 50)) for _ in range(count)], np.int64)
        books.take(updates, numbers, counts, (0, len(updates), 0))
        for keys, sizes in books.give_back(3):
            assert (np.diff(keys) > 0).all()
            assert (sizes > 0).all()


def main() -> None:
    library = native().library
    assert library is not None
    random, taken = Random(5), 0
    for venue in registry().sources:
        for market in adapter_of(venue).markets:
            shapes = shapes_of(adapter_of(venue), market)
            if not shapes:
                continue
            table = table_of(venue, market)
            taker = FrameTaker(library, shapes, TakenRows(16, 16))  # which is often full
            taker.set_symbols(
                (one.symbol, number, one.price_exponent, one.size_exponent)
                for number, one in enumerate(table)
            )
            frames = mixed(shapes, FRAMES, random)
            adapters = [adapter_of(venue)(market, {}) for _ in frames if taker.is_counted]
            counters = [one for one in adapters if isinstance(one, CountsFrames)]
            for _ in taker.take_each(frames, range(len(frames)), 0, counters):
                pass
            data = b"".join(header(frame) for frame in frames if len(frame) < 1 << 16)
            for _ in range(FRAMES // 4):
                # A copy of its own: to read behind its end is an error that is found.
                cut = data[: random.randrange(len(data) + 1)]
                taker.take_read(cut, 0, 1 << 16, 1, 0)
                taker.rows.take_out()
            taken += taker.frames
    table, generator = random_table(), np.random.default_rng(6)
    codec = JsonEncoder(table, bytes(16))
    all_headers = {row_class: headers(row_class, "json") for row_class in STANDARD_CLASSES}
    batches = JsonBatches(library, codec, table, all_headers, 1 << 16)
    for turn in range(30):
        for row_class in STANDARD_CLASSES:
            rows = random_rows(row_class, table, generator, turn)
            for lz4 in (False, True):
                found = batches.write(row_class, rows, turn, 1 << 16, lz4=lz4)
                assert found is not None
                crc32c(found[0].data)
                crc32c(found[0].data, portable=True)
    exercise_flush(generator)
    exercise_books(library, random)
    for row_class in MADE:
        check_mutated(row_class, 100, 3)
        check_cut(row_class, Random(7))
    print(f"{taken} frames taken")


def exercise_flush(generator: np.random.Generator) -> None:
    """Follow and count random rows, some of instruments that are not known."""
    library, feeds, bins = native().library, 4, 5
    assert library is not None
    follower = TradeFollower(library)
    follower.use(np.arange(8, dtype=np.uint8) % 5, np.zeros(8, np.int64), np.zeros(8, np.int64))
    edges = np.arange(1, bins, dtype=np.int64) << 40
    durations = Durations(np.zeros((feeds, bins), np.int64), np.zeros(feeds), edges)
    zeros = [np.zeros(8, np.int64) for _ in range(7)]
    counts = RowCounts(
        np.arange(8) % feeds,
        durations,
        seen=(zeros[0], zeros[1], zeros[2]),
        last_recv=zeros[3],
        least_raw=zeros[4],
        rows=zeros[5],
        waited=durations,
        kind=1,
    )
    for dtype in (TRADE, UPDATE, LEVEL) * 10:
        rows = np.frombuffer(generator.bytes(50 * dtype.itemsize), dtype).copy()
        rows["instrument"] %= 9
        rows["ts_recv"] >>= 2
        rows["ts_event"] >>= 2
        with suppress(IndexError):
            counts.take(library, [(rows, 1 << 60, 1 << 40)])
        rows["instrument"] %= 8
        counts.take_ways(library, [rows], zeros[6], durations)
        if dtype == TRADE:
            follower.take(rows)
            take_highest(library, rows, np.zeros(8, np.uint64))


if __name__ == "__main__":
    main()
