"""Bitfinex's checksums, as JavaScript writes numbers; and what they find."""

from __future__ import annotations

import random
from zlib import crc32

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.bitfinex import Bitfinex, script_number
from ingestor.consumer.orderbook import BookInvalid, OrderBooks
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
from tests.effort import tried
from tests.feeds.fixtures import load
from tests.feeds.harness import TS_RECV, Connection

Levels = dict[int, int]
FATES = st.sampled_from(["arrives"] * 4 + ["lost", "doubled", "swapped"])
CHANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5), FATES), min_size=1, max_size=12)
CHANNEL = 10_092
TIME_MS = 1_767_225_600_123


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("91234", "91234"),
        ("0.5", "0.5"),
        ("0.000001", "0.000001"),
        ("0.0000012", "0.0000012"),
        ("0.0000001", "1e-7"),
        ("0.00000012345", "1.2345e-7"),
        ("0.000000000012", "1.2e-11"),
    ],
)
def test_numbers_as_javascript_writes_them(text: str, written: str) -> None:
    assert script_number(text) == written


def checksum(bids: Levels, asks: Levels) -> int:
    """As the venue's document has it: 25 levels a side in turns, asks below 0."""
    best_bids = sorted(bids.items(), reverse=True)[:25]
    best_asks = sorted(asks.items())[:25]
    parts: list[str] = []
    for place in range(25):
        for side, sign in ((best_bids, ""), (best_asks, "-")):
            if place < len(side):
                price, size = side[place]
                parts += [str(price), f"{sign}{size}"]
    found = crc32(":".join(parts).encode())
    return found - 2**32 if found >= 2**31 else found


class Venue:
    """One book and a consumer of it."""

    def __init__(self) -> None:
        fixture = load(Bitfinex, "spot")
        self.table = fixture.table()
        self.key = self.table[0].key
        self.pipeline = Pipeline(self.table, lambda _: Bitfinex.markets["spot"].book)
        queue = self.pipeline.frame_queues.of(Bitfinex, "spot")
        self.session = Connection(fixture, self.table, queue.buffer, queue.counts).session
        self.books = OrderBooks()
        self.gaps = 0
        self.bids: Levels = {10: 1}
        self.asks: Levels = {50: 2}

    def deliver(self, content: object, *more: object) -> None:
        frame = orjson.dumps([CHANNEL, content, *more, TIME_MS])
        self.session.receive(frame, TS_RECV)
        for batch in self.pipeline.flush(TS_RECV).batches:
            if batch.row_class.channel == "book":
                self.gaps += int((batch.rows["kind"] == Kind.GAP).sum())
                self.books.feed(batch)

    def image(self) -> None:
        rows = [[price, 1, size] for price, size in self.bids.items()]
        self.deliver([*rows, *([price, 1, -size] for price, size in self.asks.items())])

    def check(self) -> None:
        self.deliver("cs", checksum(self.bids, self.asks))

    def change(self, price: int, size: int) -> list[int]:
        side, sign = (self.bids, 1) if price <= 30 else (self.asks, -1)
        if size:
            side[price] = size
            return [price, 1, sign * size]
        side.pop(price, None)
        return [price, 0, sign]

    def is_right(self) -> bool | None:
        """Return whether the consumer's book is the venue's; None where it has no answer."""
        try:
            book = self.books[self.key]
            sides = book.bids(), book.asks()
        except BookInvalid:
            return None
        one = self.table[0]
        price_unit, size_unit = 10**one.price_exponent, 10**one.size_exponent
        bids, asks = (
            {
                int(price) // price_unit: int(size) // size_unit
                for price, size in zip(side.prices, side.sizes, strict=True)
            }
            for side in sides
        )
        return (bids, asks) == (self.bids, self.asks)


@tried(60, 2_000)
@given(changes=CHANGES)
def test_the_checksum_finds_whatever_became_of_updates(
    changes: list[tuple[int, int, str]],
) -> None:
    venue = Venue()
    venue.image()
    venue.check()
    assert venue.is_right()
    wire: list[list[int]] = []
    for price, size, fate in changes:
        frame = venue.change(price, size)
        match fate:
            case "lost":
                continue
            case "doubled":
                wire += [frame, frame]
            case "swapped" if wire:
                wire.insert(-1, frame)
            case _:
                wire.append(frame)
    for frame in wire:
        venue.deliver(frame)
    venue.check()
    assert venue.is_right() is not False
    venue.image()
    venue.check()
    assert venue.is_right()


def test_checksums_of_a_book_that_is_right_break_nothing() -> None:
    rng, venue = random.Random(7), Venue()
    venue.image()
    for _ in range(300):
        venue.deliver(venue.change(rng.randrange(1, 61), rng.randrange(0, 4)))
        venue.check()
    assert venue.gaps == 0
    assert venue.is_right()
