"""Books that begin with images: at the right row, and again where rows are missing.

tests/e2e/test_snapshot_topic.py has them follow a running ingestor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from ingestor.codec import encoder
from ingestor.consumer import LiveBooks, SyncLiveBooks
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import LEVEL, Flag, Kind, Rows, Side
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import START_NS, table_of
from tests.unit.consumer.test_consumer import publish

TABLE = table_of()
KEY = TABLE[0].key
SESSION = bytes(range(16))
ROWS, IMAGES = "md.book.v1", "md.book_snapshot.v1"


@pytest.fixture
def servers() -> Iterator[str]:
    with DevBroker({ROWS: 1, IMAGES: 1}) as broker:
        yield broker.bootstrap_servers


def level(price: int, size: int, sequence: int, side: Side = Side.BID) -> Rows:
    """One event of one level of instrument 0, whose numbers have no decimals."""
    row = np.zeros(1, LEVEL)
    row["kind"], row["flags"], row["side"] = Kind.LEVEL, Flag.LAST, side
    row["price"], row["size"], row["sequence"] = price, size, sequence
    row["ts_event"] = row["ts_recv"] = START_NS + sequence * 1_000
    return row


async def rows_at(servers: str, rows: Rows, first: int, session: bytes = SESSION) -> None:
    records = encoder("json", TABLE, session).encode(RowClass.LEVEL, rows, first)
    await publish(servers, ROWS, 0, [one[1] for one in records])


async def image_at(servers: str, bid: int, size: int, sequence: int, resume: int) -> None:
    """Publish an image of a book of one bid, which has all rows before `resume`."""
    record = {
        "key": KEY,
        "session": SESSION.hex(),
        "ts_event": START_NS,
        "ts_recv": START_NS + sequence * 1_000,
        "sequence": sequence,
        "partial": False,
        "price_exponent": TABLE[0].price_exponent,
        "size_exponent": TABLE[0].size_exponent,
        "revision": 1,
        "resume": {"topic": ROWS, "partition": 0, "session": SESSION.hex(), "sequence": resume},
        "bids": [[str(bid), str(size)]],
        "asks": [],
        "ts": START_NS + sequence * 1_000,
    }
    from aiokafka import AIOKafkaProducer

    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(IMAGES, orjson.dumps(record), KEY.encode(), partition=0)


def bids(books: LiveBooks | SyncLiveBooks) -> dict[int, int]:
    levels = books[KEY].bids()
    return dict(zip(levels.prices.tolist(), levels.sizes.tolist(), strict=True))


async def test_rows_before_the_image_are_not_applied(servers: str) -> None:
    """Row 1 sets a level that the image no longer has; rows 3 and 4 come after it."""
    rows = [level(10, 1, 1), level(9, 0, 2), level(11, 5, 3), level(8, 2, 4)]
    await rows_at(servers, np.concatenate([level(9, 7, 0), *rows]), 0)
    await image_at(servers, 12, 3, 2, 3)
    async with asyncio.timeout(30), LiveBooks(servers, KEY) as books:
        assert bids(books) == {12: 3, 11: 5, 8: 2}
        assert books[KEY].sequence == 4
        assert (await books.next_book()).instrument == KEY
        await rows_at(servers, level(13, 1, 5), 5)
        assert (await books.next_book()).best()[0] == 13
        assert list(books) == [KEY]


async def test_a_book_that_lacks_rows_begins_again_with_a_newer_image(servers: str) -> None:
    await rows_at(servers, level(10, 1, 0), 0)
    await image_at(servers, 10, 1, 0, 1)
    async with asyncio.timeout(60), LiveBooks(servers) as books:
        assert bids(books) == {10: 1}
        await books.next_book()
        await image_at(servers, 20, 2, 5, 6)
        await rows_at(servers, level(21, 1, 6), 6)  # rows 1 to 5 never come
        assert (await books.next_book()).best()[0] == 21
        assert bids(books) == {20: 2, 21: 1}


async def test_without_a_newer_image_it_stays_invalid_until_a_reset(servers: str) -> None:
    await rows_at(servers, level(10, 1, 0), 0)
    await image_at(servers, 10, 1, 0, 1)
    async with asyncio.timeout(60), LiveBooks(servers) as books:
        await books.next_book()
        await rows_at(servers, level(21, 1, 6), 6)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(books.next_book(), 2)
        assert not books[KEY].is_valid
        reset = control_row(RowClass.LEVEL, Kind.RESET, 0, START_NS + 7_000)
        snapshot = level(30, 3, 7)
        snapshot["flags"] |= np.uint16(Flag.SNAPSHOT)
        await rows_at(servers, np.concatenate([reset, snapshot]), 7)
        assert (await books.next_book()).best()[0] == 30


async def test_another_session_goes_on_with_a_reset(servers: str) -> None:
    await rows_at(servers, level(10, 1, 0), 0)
    await image_at(servers, 10, 1, 0, 1)
    reset = control_row(RowClass.LEVEL, Kind.RESET, 0, START_NS + 7_000)
    snapshot = level(30, 3, 7)
    snapshot["flags"] |= np.uint16(Flag.SNAPSHOT)
    await rows_at(servers, np.concatenate([reset, snapshot]), 0, bytes(16))
    with SyncLiveBooks(servers, KEY) as books:
        assert bids(books) == {30: 3}
        assert next(books.changes()).best()[0] == 30
        assert len(books) == len([*books]) == 1
