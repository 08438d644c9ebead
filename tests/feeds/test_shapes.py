"""The compiled way against Python: a frame that a shape takes gives the rows of `decode`."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from ingestor.adapter import CountsFrames
from ingestor.adapter.shapes import shapes_of
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Sealed
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.frame_queue import FrameQueue, take_reads
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import UPDATE
from ingestor.native import FrameCounter, FrameTaker, Taken, TakenRows, native
from ingestor.sources.registry import adapter_of
from tests.feeds.fixtures import markets
from tests.feeds.shape_frames import header, make, mixed, table_of

LIBRARY = native().library
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=native().reason)

MARKETS = [(adapter.venue, market) for adapter, market in markets() if shapes_of(adapter, market)]
TS_RECV = 1_790_000_000_000_000_000
TOGETHER = 250  # frames
# What tells where a row came from, not what it says.
SAME = [name for name in UPDATE.names or () if name not in {"frame", "spare"}]


class BothWays:
    """One market, read by its shapes and by its adapter."""

    def __init__(self, venue: str, market: str) -> None:
        assert LIBRARY is not None
        self.table: InstrumentTable = table_of(venue, market)
        self.symbols = self.table.symbols(venue, market)
        self.adapter, self.market = adapter_of(venue), market
        self.shapes = shapes_of(self.adapter, market)
        self.rows = TakenRows()
        self.taker = FrameTaker(LIBRARY, self.shapes, self.rows)
        self.taker.set_symbols(
            (symbol, number, self.table[number].price_exponent, self.table[number].size_exponent)
            for symbol, number in self.symbols.items()
        )

    def compare(self, frames: list[bytes]) -> int:
        """Read frames both ways; return how many the shapes took."""
        times = [TS_RECV + number for number in range(len(frames))]
        others = {*self._others(frames, times)}
        taken = self.rows.take_out()
        numbers = [number for number in range(len(frames)) if number not in others]
        sealed = self.decoded([(frames[number], times[number]) for number in numbers])
        if not agree(taken, sealed):
            for number in numbers:  # find the culprit
                assert not self._others([frames[number]], [times[number]])
                alone = self.decoded([(frames[number], times[number])])
                assert agree(self.rows.take_out(), alone), (frames[number], alone.rejected)
            raise AssertionError("only together")
        return len(numbers)

    def _others(self, frames: list[bytes], times: list[int]) -> list[int]:
        """Return the places of frames that no shape takes. Each is the first of its connection."""
        counters: list[FrameCounter] = [self._first() for _ in frames if self.taker.is_counted]
        others = self.taker.take_each(frames, times, 0, counters)
        return [place for some in others for place in some]

    def _first(self) -> FrameCounter:
        adapter = self.adapter(self.market, self.symbols)
        assert isinstance(adapter, CountsFrames)
        return adapter

    def decoded(self, frames: list[tuple[bytes, int]]) -> Sealed:
        buffer, counts = ColumnBuffer(self.table), FrameCounts()
        adapter = self.adapter(self.market, self.symbols)
        session = Session(0, adapter, (), buffer, counts, SessionEvents(), self.market)
        for payload, ts_recv in frames:
            if isinstance(adapter, CountsFrames):
                adapter.next_number = 0
            session.receive(payload, ts_recv)
        assert counts.control == counts.filtered == counts.duplicate == 0
        return buffer.seal(self.table)


def agree(taken: Taken, sealed: Sealed) -> bool:
    return (
        not sealed.rejected
        and taken.trades.tobytes() == sealed.trades.tobytes()
        and taken.quotes.tobytes() == sealed.quotes.tobytes()
        and len(taken.updates) == len(sealed.updates)
        and all((taken.updates[name] == sealed.updates[name]).all() for name in SAME)
        and np.array_equal(taken.levels[:, 0], sealed.prices)
        and np.array_equal(taken.levels[:, 1], sealed.sizes)
    )


def check_mutated(venue: str, market: str, count: int, seed: int) -> None:
    both, random = BothWays(venue, market), Random(seed)
    taken = sum(
        both.compare(mixed(both.shapes, TOGETHER, random)) for _ in range(count // TOGETHER)
    )
    assert taken > count / 30, "hardly anything was compared"


@pytest.mark.parametrize(("venue", "market"), MARKETS)
def test_mutated_frames_are_left_or_give_the_same_rows(venue: str, market: str) -> None:
    check_mutated(venue, market, 100_000 // len(MARKETS) + TOGETHER, 1)


@pytest.mark.long(minutes=3)
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("venue", "market"), MARKETS)
def test_a_million_mutated_frames_are_left_or_give_the_same_rows(venue: str, market: str) -> None:
    check_mutated(venue, market, 1_000_000 // len(MARKETS) + TOGETHER, 2)


@pytest.mark.parametrize(("venue", "market"), MARKETS)
def test_every_shape_takes_frames(venue: str, market: str) -> None:
    both, random = BothWays(venue, market), Random(3)
    for shape in both.shapes:
        both.compare([make(shape, random) for _ in range(TOGETHER)])
    assert all(both.taker.frames_by_shape), both.taker.frames_by_shape


@pytest.mark.parametrize(("venue", "market"), MARKETS)
def test_a_stream_cut_anywhere_gives_the_same_rows(venue: str, market: str) -> None:
    """The bytes of a connection in two reads: what the first leaves is read again."""
    both, random = BothWays(venue, market), Random(4)
    frames = [make(random.choice(both.shapes), random, number) for number in range(12)]
    data = b"".join(map(header, frames))

    def read(cut: int) -> tuple[Sealed, FrameCounts]:
        buffer = ColumnBuffer(both.table)
        frame_queue = FrameQueue(both.adapter, market, both.symbols, buffer)
        adapter = both.adapter(market, both.symbols)
        session = Session(
            0, adapter, (), buffer, frame_queue.counts, SessionEvents(), market, frame_queue.decode
        )
        take = take_reads(frame_queue, lambda: None)
        assert take is not None
        end = take(session, data[:cut], 0, 1 << 20, TS_RECV)
        assert end <= cut
        rest = data[end:]
        assert take(session, rest, 0, 1 << 20, TS_RECV) == len(rest)
        sealed = buffer.seal(both.table)
        frame_queue.counts.seal()
        return sealed, frame_queue.counts

    whole, counts = read(len(data))
    assert counts.frames == len(frames)
    for cut in random.sample(range(len(data)), 20):
        sealed, again = read(cut)
        assert sealed.trades.tobytes() == whole.trades.tobytes()
        assert sealed.quotes.tobytes() == whole.quotes.tobytes()
        assert all((sealed.updates[name] == whole.updates[name]).all() for name in SAME)
        assert np.array_equal(sealed.prices, whole.prices)
        assert again == counts
