"""Books of images only: whatever is dropped, doubled or swapped, the next image heals it.

Real frames of each market go through its adapter, a session, the books and a consumer, as in
`test_book_proofs`. A consumer has the book of the last image that came, at any moment.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.registry import adapter_of
from tests.effort import tried
from tests.feeds.book_speakers import Change, Levels
from tests.feeds.fixtures import load, markets
from tests.feeds.harness import TS_RECV, Connection
from tests.feeds.image_speakers import IMAGE_SPEAKERS

BIDS = st.dictionaries(st.integers(1, 20), st.integers(1, 9), min_size=1, max_size=6)
ASKS = st.dictionaries(st.integers(21, 40), st.integers(1, 9), min_size=1, max_size=6)
FATES = st.sampled_from(["arrives"] * 3 + ["lost", "doubled", "swapped"])
BOOKS = st.lists(st.tuples(BIDS, ASKS, FATES), min_size=1, max_size=10)
each_market = pytest.mark.parametrize(("venue", "market"), IMAGE_SPEAKERS)


class Reader:
    """A consumer that applies rows as they come: absolute sizes, RESET empties."""

    def __init__(self) -> None:
        self.sides: dict[int, Levels] = {1: {}, 2: {}}
        self.resets = self.gaps = 0

    def take(self, rows: Any, scale: tuple[int, int]) -> None:
        for row in rows:
            if row["kind"] == Kind.LEVEL:
                price, size = int(row["price"]) // scale[0], int(row["size"]) // scale[1]
                self.sides[int(row["side"])][price] = size
                if not size:
                    del self.sides[int(row["side"])][price]
            elif row["kind"] == Kind.RESET:
                self.sides = {1: {}, 2: {}}
                self.resets += 1
            else:
                self.gaps += 1


def delivered(came: list[tuple[Levels, Levels]], fates: list[str]) -> list[tuple[Levels, Levels]]:
    """Return images after their fates."""
    wire: list[tuple[Levels, Levels]] = []
    for image, fate in zip(came, fates, strict=True):
        match fate:
            case "lost":
                continue
            case "doubled":
                wire += [image, image]
            case "swapped" if wire:
                wire.insert(-1, image)
            case _:
                wire.append(image)
    return wire


@each_market
@tried(30, 1_000)
@given(books=BOOKS)
def test_the_book_is_the_last_image_that_came(
    venue: str, market: str, books: list[tuple[Levels, Levels, str]]
) -> None:
    adapter = adapter_of(venue)
    fixture = load(adapter, market)
    table = InstrumentTable(fixture.instruments)
    rule = adapter.markets[market].book
    assert rule.images_only
    first = fixture.instruments[0]
    scale = 10**first.price_exponent, 10**first.size_exponent
    pipeline = Pipeline(table, lambda _: rule)
    queue = pipeline.frame_queues.of(adapter, market)
    connection = Connection(fixture, table, queue.buffer, queue.counts)
    reader = Reader()
    wire = delivered([one[:2] for one in books], [one[2] for one in books])
    for number, (bids, asks) in enumerate(wire, 1):
        change = Change(first.symbol, number - 1, number, bids, asks, is_snapshot=True)
        frame = orjson.dumps(IMAGE_SPEAKERS[venue, market](change))
        connection.session.receive(frame, TS_RECV)
        for batch in pipeline.flush(TS_RECV).batches:
            if batch.row_class.channel == "book":
                reader.take(batch.rows, scale)
        assert reader.sides == {1: bids, 2: asks}
    assert reader.resets == min(1, len(wire)), "one RESET, then differences"
    assert not reader.gaps
    assert queue.counts.rejected == 0
    assert pipeline.ledger().unaccounted == 0


def test_every_market_of_images_is_tried() -> None:
    found = {
        (adapter.venue, market)
        for adapter, market in markets()
        if adapter.markets[market].book.images_only
    }
    assert found == IMAGE_SPEAKERS.keys()
