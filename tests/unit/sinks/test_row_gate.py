"""Rows that another worker still publishes wait, in order, and nothing else does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.sinks.row_gate import RowGate

TRADE, QUOTE = RowClass.TRADE, RowClass.QUOTE


class Kept:
    """A sink that keeps (class, instrument, sequence) of each row, and what was dropped."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int]] = []
        self.dropped = 0

    def submit(self, batch: TickBatch, _now_ns: int) -> None:
        pairs = zip(batch.rows["instrument"].tolist(), batch.rows["sequence"].tolist(), strict=True)
        self.rows += [(batch.row_class.name, *pair) for pair in pairs]

    async def drain(self, _timeout_s: float) -> int:
        return 0

    def drop(self, _row_class: RowClass, rows: Rows) -> None:
        self.dropped += len(rows)


def batch(row_class: RowClass, *pairs: tuple[int, int]) -> TickBatch:
    rows = np.zeros(len(pairs), row_class.dtype)
    rows["instrument"] = [pair[0] for pair in pairs]
    rows["sequence"] = [pair[1] for pair in pairs]
    return TickBatch(row_class, rows, [])


def test_held_streams_wait_and_others_pass() -> None:
    sink = Kept()
    gate = RowGate(sink, sink.drop)
    gate.hold(5, [(TRADE, 1), (TRADE, 900)])
    gate.submit(batch(TRADE, (1, 1), (2, 1), (900, 1), (1, 2)), 0)
    gate.submit(batch(QUOTE, (1, 1)), 0)
    assert sink.rows == [("TRADE", 2, 1), ("QUOTE", 1, 1)]
    assert gate.rows == 3
    assert not gate.open(5)
    assert sink.rows[2:] == [("TRADE", 1, 1), ("TRADE", 900, 1), ("TRADE", 1, 2)]
    gate.submit(batch(TRADE, (1, 3)), 0)
    assert sink.rows[-1] == ("TRADE", 1, 3)
    assert (gate.rows, sink.dropped) == (0, 0)


def test_what_is_given_up_is_counted() -> None:
    sink = Kept()
    gate = RowGate(sink, sink.drop)
    gate.hold(1, [(TRADE, 1)])
    gate.hold(2, [(TRADE, 2)])
    gate.submit(batch(TRADE, (1, 1), (2, 1), (2, 2)), 0)
    gate.drop(1)
    assert (sink.dropped, gate.rows) == (1, 2)
    gate.end()
    assert (sink.dropped, gate.rows, sink.rows) == (3, 0, [])


def test_no_more_is_held_than_there_is_room_for() -> None:
    sink = Kept()
    gate = RowGate(sink, sink.drop, rows_max=3)
    gate.hold(1, [(TRADE, 1)])
    for sequence in range(5):
        gate.submit(batch(TRADE, (1, sequence)), 0)
    assert gate.rows <= 3
    assert gate.open(1)  # the caller declares a hole
    assert len(sink.rows) + sink.dropped == 5
    assert sink.rows[-1] == ("TRADE", 1, 4)


def test_a_new_revision_of_an_instrument_is_held_too() -> None:
    sink = Kept()
    gate = RowGate(sink, sink.drop)
    gate.hold(1, [(TRADE, 1)])
    gate.replace_instruments({1: 70})
    gate.submit(batch(TRADE, (70, 1), (1, 0)), 0)
    assert sink.rows == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30), st.integers(0, 29))
def test_no_row_is_lost_and_order_is_kept(pairs: list[tuple[int, int]], at: int) -> None:
    sink = Kept()
    gate = RowGate(sink, sink.drop)
    gate.hold(0, [(TRADE, 1)])
    gate.hold(1, [(TRADE, 3), (TRADE, 4)])
    for place, pair in enumerate(pairs):
        if place == at:
            gate.open(0)
        gate.submit(batch(TRADE, pair), 0)
    gate.open(0)
    gate.open(1)
    for number in range(5):
        sent = [sequence for one, sequence in pairs if one == number]
        assert [row[2] for row in sink.rows if row[1] == number] == sent
