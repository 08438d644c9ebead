"""Who comes late begins with the compacted topic's image of a book and goes on where it says."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from ingestor.codec import decode
from ingestor.config.model import Config
from ingestor.consumer import (
    EARLIEST,
    BookSnapshot,
    Consumer,
    LiveBooks,
    OrderBook,
    OrderBooks,
    book_snapshot,
)
from ingestor.model.rows import Side
from tests.e2e.harness import PATIENCE_S, make_config, running, side_records
from tests.e2e.processes import simulated_venue
from tests.kafka.broker import KafkaEndpoint

SYMBOLS = 6


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_late_joiner_has_the_live_book(
    kafka: KafkaEndpoint, tmp_path: Path, encoding: str
) -> None:
    with simulated_venue(symbols=SYMBOLS, rate_per_s=100) as venue:
        config = make_config(
            kafka.bootstrap_servers,
            [venue.feed | {"channels": ["book"]}],
            tmp_path,
            kafka={"encoding": encoding},
            books={"snapshot_interval_s": 1.0},
        )
        async with running(config) as run:
            await run.subscribed()
            await asyncio.sleep(2.5)
            drained = await run.stop()
            table = run.ingestor.planned.table
            live = run.ingestor.pipeline.books.snapshots(range(len(table)))
    assert drained.status.unaccounted == 0
    found = [(key, book_snapshot(value)) for key, value in await side_records(config, BOOKS)]
    images = dict(found)
    assert len(images) == SYMBOLS
    assert len(found) >= 2 * SYMBOLS  # after the first RESET, then by time
    assert all(image.sequence > 0 for image in images.values())
    joined = await join(config, list(images.values()))
    for number in range(len(table)):
        rows = live.rows[live.rows["instrument"] == number]
        book = joined[table[number].key]
        check_book(book, rows)
        assert book.sequence == rows["sequence"][0]


BOOKS = "book_snapshot.v1"


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_live_books_begin_late_and_follow(
    kafka: KafkaEndpoint, tmp_path: Path, encoding: str
) -> None:
    with simulated_venue(symbols=SYMBOLS, rate_per_s=100) as venue:
        config = make_config(
            kafka.bootstrap_servers,
            [venue.feed | {"channels": ["book"]}],
            tmp_path,
            kafka={"encoding": encoding},
            books={"snapshot_interval_s": 1.0},
        )
        servers, prefix = config.kafka.bootstrap_servers, config.kafka.topic_prefix
        async with running(config) as run:
            await run.subscribed()
            await asyncio.sleep(2.5)
            async with (
                asyncio.timeout(PATIENCE_S),
                LiveBooks(servers, topic_prefix=prefix) as books,
            ):
                assert len(books) == SYMBOLS
                age_ns = time.time_ns() - min(book.ts_recv for book in books.values())
                assert age_ns < 2 * 10**9  # whole and as new as the topic, at once
                [first, *_] = books
                symbol = first.split(":")[2]
                async with LiveBooks(servers, symbol, topic_prefix=prefix) as one:
                    assert list(one) == [first]
                    assert one[first].is_valid
                seen: set[str] = set()
                while len(seen) < SYMBOLS:
                    book = await books.next_book()
                    bid, bid_size, ask, ask_size = book.best()
                    assert 0 < bid < ask
                    assert min(bid_size, ask_size) > 0
                    seen.add(book.instrument)
                await run.stop()
                table = run.ingestor.planned.table
                live = run.ingestor.pipeline.books.snapshots(range(len(table)))
                numbers = {key: number for number, key in enumerate(one.key for one in table)}
                last = {
                    key: int(live.rows["sequence"][live.rows["instrument"] == number][0])
                    for key, number in numbers.items()
                }
                while any(book.sequence < last[key] for key, book in books.items()):
                    await books.next_book()
                for key, book in books.items():
                    check_book(book, live.rows[live.rows["instrument"] == numbers[key]])
                assert books.foreign_records == 0


def check_book(book: OrderBook, expected: np.ndarray) -> None:
    """Compare a book with the levels that the ingestor holds."""
    for side, levels in ((Side.BID, book.bids()), (Side.ASK, book.asks())):
        rows = expected[expected["side"] == side]
        assert len(rows)
        assert np.array_equal(levels.prices, rows["price"])
        assert np.array_equal(levels.sizes, rows["size"])


async def join(config: Config, images: list[BookSnapshot]) -> OrderBooks:
    """Images first, then what the book topic has after each, which is not all."""
    books = OrderBooks()
    for image in images:
        books.feed(image.batch)
    servers, [topic] = config.kafka.bootstrap_servers, {image.topic for image in images}
    rows = used = 0
    async with (
        asyncio.timeout(PATIENCE_S),
        Consumer(servers, [topic], start=EARLIEST, stop_at_end=True) as consumer,
    ):
        async for partition, _, value in consumer.records():
            decoded = decode(value)
            rows += len(decoded.batch)
            for image in images:
                if image.partition == partition.partition:
                    batch = image.after(decoded)
                    used += len(batch)
                    books.feed(batch)
    assert 0 < used < rows
    return books
