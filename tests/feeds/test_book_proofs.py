"""Whatever is dropped, doubled or swapped of a book's updates is found, and a new image heals it.

Real frames of each market go through its adapter, a session, the books and a consumer. A consumer
that gets an answer gets the book of the venue as of the update that it names.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import Continuity, SnapshotSource
from ingestor.adapter.contract import Subscription
from ingestor.books.manager import BookManager
from ingestor.books.settings import BookSettings
from ingestor.columns.buffer import ColumnBuffer
from ingestor.consumer.orderbook import BookInvalid, OrderBooks
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.timestamps import SECOND
from ingestor.sources.registry import adapter_of
from tests.effort import tried
from tests.feeds import book_speakers
from tests.feeds.book_speakers import Change, Levels, Speaker
from tests.feeds.fixtures import load
from tests.feeds.numbered_speakers import NUMBERED_SPEAKERS

LEVELS = st.dictionaries(st.integers(1, 40), st.integers(0, 9), min_size=1, max_size=4)
FATES = st.sampled_from(["arrives"] * 4 + ["lost", "doubled", "swapped"])
UPDATES = st.lists(st.tuples(LEVELS, LEVELS, FATES), min_size=1, max_size=12)
Sides = tuple[Levels, Levels]
SPEAKERS = book_speakers.SPEAKERS | NUMBERED_SPEAKERS


class Venue:
    """One book, what it was at each update, and what a consumer makes of its frames."""

    def __init__(self, venue: str, market: str, speaker: Speaker) -> None:
        adapter = adapter_of(venue)
        first = load(adapter, market).instruments[0]
        self.table = InstrumentTable([first])
        self.rule = adapter.markets[market].book
        self.speaker, self.symbol = speaker, first.symbol
        self.scale = 10**first.price_exponent, 10**first.size_exponent
        feed = adapter(market, self.table.symbols(venue, market))
        self.feed, self.stream = feed, feed.stream("book", self.symbol)
        streams = [Subscription(0, self.symbol, "book", self.stream)]
        self.counts, self.buffer = FrameCounts(), ColumnBuffer(self.table)
        self.session = Session(0, feed, streams, self.buffer, self.counts, SessionEvents(), market)
        settings = BookSettings(repairs_per_s=1_000)
        self.books = BookManager(self.table, lambda _: self.rule, settings)
        self.consumer = OrderBooks()
        self.now_ns = 1_800_000_000 * SECOND
        self.number, self.bids, self.asks = 100, {5: 1}, {45: 1}
        self.history: dict[int, Sides] = {}
        self.repairs = 0
        self.remember()

    def remember(self) -> None:
        self.history[self.number] = dict(self.bids), dict(self.asks)

    def deliver_image(self) -> None:
        """Deliver the whole book, as the venue does when it is asked again."""
        change = Change(self.symbol, 0, self.number, self.bids, self.asks, is_snapshot=True)
        image = self.speaker.frame(change)
        if self.rule.snapshot is SnapshotSource.REST:
            assert self.session.snapshot(self.symbol, image, self.now_ns)
            self.flush()
            self.check()
        else:
            assert list(self.feed.subscribe([self.stream]))
            self.deliver(image)

    def update(self, bids: Levels, asks: Levels) -> bytes:
        """Change the venue's book; return the frame that says so."""
        most = self.rule.depth_max or 40  # the venue itself keeps no more levels
        bids, asks = (
            {(price - 1) % most + 1: size for price, size in side.items()} for side in (bids, asks)
        )
        asks = {40 + price: size for price, size in asks.items()}
        if self.speaker.one_level:
            bids, asks = dict(list(bids.items())[:1]), {}
        previous = self.number
        self.number += self.speaker.step
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            side.update(changes)
            for price in [price for price, size in side.items() if not size]:
                del side[price]
        self.remember()
        return self.speaker.frame(Change(self.symbol, previous, self.number, bids, asks))

    def deliver(self, frame: bytes) -> None:
        """Deliver one frame and flush; check what the consumer has."""
        self.session.receive(frame, self.now_ns)
        self.flush()
        self.check()

    def flush(self, seconds: float = 0.01) -> None:
        self.now_ns += int(seconds * SECOND)
        output = self.books.apply(self.buffer.seal(self.table), self.now_ns)
        self.repairs += len(output.repairs)
        self.consumer.feed(TickBatch(RowClass.LEVEL, output.rows, self.table))

    def answer(self) -> Sides | None:
        book = self.consumer.get(self.table[0].key)
        if book is None:
            return None
        try:
            levels = book.bids(), book.asks()
        except BookInvalid:
            return None
        price_unit, size_unit = self.scale
        bids, asks = (
            {
                int(price) // price_unit: int(size) // size_unit
                for price, size in zip(side.prices, side.sizes, strict=True)
            }
            for side in levels
        )
        return bids, asks

    def check(self) -> None:
        answer = self.answer()
        if answer is not None:
            number = self.consumer[self.table[0].key].sequence - self.speaker.offset
            assert answer == self.history[number]


def broken(updates: list[tuple[bytes, str]]) -> list[bytes]:
    """Return frames after their fates."""
    wire: list[bytes] = []
    for frame, fate in updates:
        match fate:
            case "lost":
                continue
            case "doubled":
                wire += [frame, frame]
            case "swapped" if wire:
                wire.insert(-1, frame)
            case _:
                wire.append(frame)
    return wire


@pytest.mark.parametrize(("venue", "market"), SPEAKERS)
@tried(40, 1_000)
@given(updates=UPDATES)
def test_whatever_becomes_of_updates_no_answer_is_wrong(
    venue: str, market: str, updates: list[tuple[Levels, Levels, str]]
) -> None:
    speaking = Venue(venue, market, SPEAKERS[venue, market])
    assert speaking.rule.continuity is not Continuity.NONE
    speaking.deliver_image()
    assert speaking.answer() == (speaking.bids, speaking.asks)
    frames = [(speaking.update(bids, asks), fate) for bids, asks, fate in updates]
    for frame in broken(frames):
        speaking.deliver(frame)
    last = speaking.update({1: 1}, {})
    speaking.deliver(last)
    lost = any(fate in {"lost", "swapped"} for _, fate in frames)
    if speaking.answer() is None:
        assert speaking.repairs, "a broken book asks for an image"
        assert lost
    speaking.deliver_image()
    assert speaking.answer() == (speaking.bids, speaking.asks)
    assert speaking.counts.rejected == 0


@pytest.mark.parametrize(("venue", "market"), SPEAKERS)
def test_each_loss_is_found(venue: str, market: str) -> None:
    """One update of four is lost, wherever: the next one breaks the book, and no sooner."""
    for missing in range(1, 4):
        speaking = Venue(venue, market, SPEAKERS[venue, market])
        speaking.deliver_image()
        for number in range(1, 5):
            frame = speaking.update({number: number}, {})
            if number != missing:
                speaking.deliver(frame)
            assert (speaking.answer() is None) == (number > missing)
        assert speaking.repairs == 1
