"""Rows of the library and rows of Python stand in the order of their frames."""

from __future__ import annotations

import pytest

from ingestor.adapter.shapes import shape
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealed import Gap, Source
from ingestor.decode.frame_counts import FrameCounts
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause
from ingestor.native import FrameTaker, TakenRows, native
from ingestor.sources.registry import adapter_of

LIBRARY = native().library
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=native().reason)

TRADE = shape(
    RowClass.TRADE,
    '{"i":<int:sequence>,"s":"<symbol>","p":"<price:price>","q":"<size:size>","m":<side:b=1|s=2>}',
)
BOOK = shape(
    RowClass.LEVEL,
    '{"i":<int:last>,"s":"<symbol>","b":<[*>["<price>","<size>"]<level:bids><]>}',
)
TABLE = InstrumentTable([instrument("acme", "spot", "A", "A-B", "A", "B", "1", "1")])


class Bench:
    """A buffer that frames of both ways go to."""

    def __init__(self) -> None:
        assert LIBRARY is not None
        self.buffer = ColumnBuffer(TABLE)
        self.buffer.taken = TakenRows()
        self.taker = FrameTaker(LIBRARY, [TRADE, BOOK], self.buffer.taken)
        self.taker.set_symbols([("A", 0, 0, 0)])
        adapter = adapter_of("simulated")("spot", {})
        self.source: Source = Session(0, adapter, (), self.buffer, FrameCounts(), SessionEvents())

    def compiled(self, *payloads: bytes) -> None:
        frames = self.buffer.begin_many([self.source] * len(payloads), payloads)
        assert not [*self.taker.take_each(payloads, [1] * len(payloads), frames.start)]

    def in_python(self, number: int, price: str = "1") -> None:
        self.buffer.begin(self.source, b"python")
        self.buffer.add_trade(0, 1, 1, number, price, "1", 1)
        self.buffer.add_book_update(0, 1, 1, [(price, "1")] * number, [], last=number)


def trade(number: int) -> bytes:
    return b'{"i":%d,"s":"A","p":"1","q":"1","m":b}' % number


def book(number: int) -> bytes:
    levels = b",".join([b'["%d","1"]' % number] * number)
    return b'{"i":%d,"s":"A","b":[%b]}' % (number, levels)


def test_rows_stand_in_the_order_of_their_frames() -> None:
    bench = Bench()
    bench.compiled(trade(1), book(1))
    bench.in_python(2)
    bench.compiled(trade(3), book(3))
    bench.in_python(4)
    sealed = bench.buffer.seal(TABLE)
    assert sealed.trades["sequence"].tolist() == [1, 2, 3, 4]
    assert sealed.updates["last"].tolist() == [1, 2, 3, 4]
    assert sealed.updates["bids"].tolist() == [1, 2, 3, 4]
    assert sealed.prices.tolist() == [1, *[1] * 2, *[3] * 3, *[1] * 4]
    assert bench.buffer.is_empty
    assert bench.buffer.rows == 0


def test_a_frame_that_had_its_number_before_keeps_its_place() -> None:
    bench = Bench()
    payloads = (trade(1), b"of no shape", trade(3))
    frames = bench.buffer.begin_many([bench.source] * 3, payloads)
    assert [*bench.taker.take_each(payloads, [1] * 3, frames.start)] == [[1]]
    bench.buffer.resume(1, payloads[1])
    bench.buffer.add_trade(0, 1, 1, 2, "1", "1", 1)
    bench.buffer.hole(Cause.SEQUENCE, 1)
    bench.buffer.resume_last()
    bench.buffer.hole(Cause.DISCONNECT, 1, source=bench.source)
    sealed = bench.buffer.seal(TABLE)
    assert sealed.trades["sequence"].tolist() == [1, 2, 3]
    assert [hole.trade for hole in sealed.holes] == [2, 3]


def test_a_refused_frame_leaves_the_others_and_a_hole_at_its_place() -> None:
    bench = Bench()
    bench.compiled(trade(1), book(1))
    bench.in_python(2, price="0.5")
    bench.compiled(trade(3), book(3))
    sealed = bench.buffer.seal(TABLE)
    assert [one.payload for one in sealed.rejected] == [b"python"]
    assert sealed.trades["sequence"].tolist() == [1, 3]
    assert sealed.updates["last"].tolist() == [1, 3]
    assert sealed.prices.tolist() == [1, 3, 3, 3]
    places = {(hole.row_class, hole.trade, hole.update) for hole in sealed.holes}
    assert places == {(RowClass.TRADE, 1, 1), (RowClass.LEVEL, 1, 1)}


def test_a_bug_in_a_reader_costs_its_own_frame() -> None:
    bench = Bench()
    bench.compiled(trade(1))
    bench.buffer.begin(bench.source, b"python")
    bench.buffer.add_trade(99, 1, 1, 2, "1", "1", 1)  # no instrument has this number
    bench.compiled(trade(3))
    sealed = bench.buffer.seal(TABLE)
    assert sealed.trades["sequence"].tolist() == [1, 3]
    assert [type(bug) for bug in sealed.bugs] == [IndexError]
    hole: Gap = sealed.holes[0]
    assert hole.trade == 1
