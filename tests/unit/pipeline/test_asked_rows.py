"""Rows stand where their class and instrument are subscribed to, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from ingestor.adapter import BookRule, Continuity, add_funding, add_mark_price
from ingestor.decode.frame_counts import FrameCounts
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind
from ingestor.pipeline.pipeline import Pipeline

NOW = 1_790_000_000_000_000_000


class Connection:
    """A connection to a stream of all symbols. carries: instruments, by class."""

    def __init__(self, carries: dict[RowClass, Sequence[int]]) -> None:
        self._carries = carries
        self.counts = FrameCounts()

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return self._carries.get(row_class, ())

    def count_refused(self, reason: str) -> None:
        self.counts.refuse_pending(reason)


def pipeline_of(count: int) -> Pipeline:
    table = InstrumentTable(
        instrument("acme", "perp", f"S{number}", f"S{number}-USD", "S", "USD", "0.01", "0.01")
        for number in range(count)
    )
    return Pipeline(table, lambda _number: BookRule(Continuity.INCREMENT))


def test_two_connections_to_one_stream_give_each_row_once() -> None:
    pipeline = pipeline_of(3)  # nobody subscribes to the last one
    first, second = Connection({RowClass.FUNDING: [0]}), Connection({RowClass.FUNDING: [1]})
    for source in (first, second, first):
        pipeline.buffer.begin(source, b"")
        for number in range(3):
            add_funding(pipeline.buffer, number, NOW, rate="0.1")
    [batch] = pipeline.flush(NOW).batches
    assert batch.rows["instrument"].tolist() == [0, 1, 0]
    assert pipeline.ledger().unaccounted == 0
    assert pipeline.metrics.total("decoded") == 3


def test_a_class_that_is_not_asked_for_stays_out() -> None:
    pipeline = pipeline_of(1)
    pipeline.buffer.begin(Connection({RowClass.MARK_PRICE: [0]}), b"")
    add_mark_price(pipeline.buffer, 0, NOW, mark_price="1")
    add_funding(pipeline.buffer, 0, NOW, rate="0.1")
    [batch] = pipeline.flush(NOW).batches
    assert batch.row_class is RowClass.MARK_PRICE
    assert pipeline.ledger().unaccounted == 0


def test_a_gap_stands_between_the_rows_that_are_left() -> None:
    pipeline = pipeline_of(2)
    source = Connection({RowClass.FUNDING: [1]})
    pipeline.buffer.begin(source, b"")
    for number in (0, 1, 0):
        add_funding(pipeline.buffer, number, NOW, rate="0.1")
    pipeline.buffer.hole(Cause.SEQUENCE, NOW)
    for number in (0, 1):
        add_funding(pipeline.buffer, number, NOW, rate="0.1")
    [batch] = pipeline.flush(NOW).batches
    assert batch.rows["kind"].tolist() == [Kind.FUNDING, Kind.GAP, Kind.FUNDING]
    assert batch.rows["instrument"].tolist() == [1, 1, 1]
