"""Who comes late begins with the compacted topic's image of a book and goes on where it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ingestor.codec import decode
from ingestor.config.model import Config
from ingestor.consumer import EARLIEST, BookSnapshot, Consumer, book_snapshot
from ingestor.consumer.orderbook import OrderBooks
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
        for side, levels in ((Side.BID, book.bids()), (Side.ASK, book.asks())):
            expected = rows[rows["side"] == side]
            assert len(expected)
            assert np.array_equal(levels.prices, expected["price"])
            assert np.array_equal(levels.sizes, expected["size"])
        assert book.sequence == rows["sequence"][0]


BOOKS = "book_snapshot.v1"


async def join(config: Config, images: list[BookSnapshot]) -> OrderBooks:
    """Images first, then what the book topic has after each, which is not all."""
    books = OrderBooks()
    for image in images:
        books.feed(image.batch)
    servers, [topic] = config.kafka.bootstrap_servers, {image.topic for image in images}
    rows = used = 0
    async with (
        asyncio.timeout(PATIENCE_S),
        Consumer(servers, [topic], start_ns=EARLIEST, stop_at_end=True) as consumer,
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
