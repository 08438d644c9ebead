"""One flush: every decoded row ends as published, duplicate, filtered or held; marks in place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ingestor.adapter import BookRule, Continuity
from ingestor.decode.frame_counts import FrameCounts
from ingestor.derived.settings import DerivedSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Side
from ingestor.pipeline.pipeline import FlushResult, Pipeline

RESENT = int(Flag.SNAPSHOT | Flag.LAST)
NOW = 1_000


class Connection:
    def __init__(self, *instruments: int) -> None:
        self._instruments = instruments
        self.counts = FrameCounts()

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return self._instruments if row_class.is_standard else ()

    def count_refused(self, reason: str) -> None:
        self.counts.refuse_pending(reason)


@pytest.fixture
def pipeline() -> Pipeline:
    table = InstrumentTable(
        instrument("acme", "spot", name, f"{name}-USD", name, "USD", "0.01", "0.01")
        for name in ("A", "B")
    )
    return Pipeline(table, lambda _number: BookRule(Continuity.INCREMENT))


def trade(pipeline: Pipeline, number: int, sequence: int, flags: int = int(Flag.LAST)) -> None:
    pipeline.buffer.add_trade(number, 1, 1, sequence, "1", "1", Side.BID, sequence, flags=flags)


def batch(result: FlushResult, row_class: RowClass) -> TickBatch:
    (found,) = [one for one in result.batches if one.row_class is row_class]
    return found


def test_one_batch_for_each_class_that_has_rows(pipeline: Pipeline) -> None:
    source = Connection(0, 1)
    assert pipeline.flush(NOW).batches == []
    pipeline.buffer.begin(source, b"")
    trade(pipeline, 0, 1)
    pipeline.buffer.add_quote(1, 1, 1, 1, "1", "1", "2", "1")
    result = pipeline.flush(NOW)
    assert [one.row_class for one in result.batches] == [RowClass.TRADE, RowClass.QUOTE]
    assert pipeline.ledger().unaccounted == 0
    assert (pipeline.ledger().decoded, pipeline.ledger().published) == (2, 2)


def test_resent_trades_are_dropped_once_seen(pipeline: Pipeline) -> None:
    source = Connection(0, 1)
    pipeline.buffer.begin(source, b"")
    for sequence in (5, 6):
        trade(pipeline, 0, sequence, RESENT)  # the first connection: history is new to us
    trade(pipeline, 0, 7)
    assert batch(pipeline.flush(NOW), RowClass.TRADE).rows["sequence"].tolist() == [5, 6, 7]
    pipeline.buffer.begin(source, b"")
    for sequence in (6, 7, 8):  # after a reconnect: 8 was missed meanwhile
        trade(pipeline, 0, sequence, RESENT)
    trade(pipeline, 1, 3, RESENT)  # another instrument
    trade(pipeline, 0, 9)
    trade(pipeline, 0, 8, RESENT)
    rows = batch(pipeline.flush(NOW), RowClass.TRADE).rows
    assert rows["sequence"].tolist() == [8, 3, 9]
    ledger = pipeline.ledger()
    assert (ledger.decoded, ledger.published, ledger.duplicate) == (9, 6, 3)
    assert ledger.unaccounted == 0


def test_a_hole_is_marked_where_it_is_for_each_instrument(pipeline: Pipeline) -> None:
    source = Connection(0, 1)
    pipeline.buffer.begin(source, b"")
    trade(pipeline, 0, 1)
    pipeline.buffer.hole(Cause.SEQUENCE, 77, first=2, last=4)
    pipeline.buffer.hole(Cause.SEQUENCE, 77, first=2, last=4)  # said twice, marked once
    trade(pipeline, 1, 5)
    rows = batch(pipeline.flush(NOW), RowClass.TRADE).rows
    assert rows["kind"].tolist() == [Kind.TRADE, Kind.GAP, Kind.GAP, Kind.TRADE]
    assert rows["instrument"].tolist() == [0, 0, 1, 1]
    gap = rows[1]
    assert (gap["side"], gap["price"], gap["size"], gap["ts_recv"]) == (Cause.SEQUENCE, 2, 4, 77)
    metrics = pipeline.metrics
    # trades, quotes and book of both instruments
    assert metrics.total("gaps") == metrics.total("marks")
    assert pipeline.ledger().unaccounted == 0


def test_holes_of_two_causes_are_the_same_marks_in_one_flush_or_three(pipeline: Pipeline) -> None:
    source = Connection(0)
    causes = [Cause.REJECTED, Cause.REJECTED, Cause.SEQUENCE, Cause.REJECTED]
    for cause in causes:
        pipeline.buffer.begin(source, b"")
        pipeline.buffer.hole(cause, 1)
    rows = batch(pipeline.flush(NOW), RowClass.TRADE).rows
    assert rows["side"].tolist() == [Cause.REJECTED, Cause.SEQUENCE, Cause.REJECTED]


def test_quotes_of_a_book_have_their_gaps_where_the_holes_are() -> None:
    one = instrument("acme", "spot", "A", "A-USD", "A", "USD", "1", "1")
    rule = BookRule(Continuity.INCREMENT, quotes_from_book=True)
    pipeline = Pipeline(InstrumentTable([one]), lambda _number: rule)
    source, buffer = Connection(0), pipeline.buffer
    for number, price in ((1, "1"), (2, "2")):
        buffer.begin(source, b"")
        buffer.add_book_update(
            0, 1, 1, [[price, "1"]], [["9", "1"]], first=number, last=number, flags=RESENT
        )
        buffer.hole(Cause.SEQUENCE, 1)
    rows = batch(pipeline.flush(NOW), RowClass.QUOTE).rows
    assert rows["kind"].tolist() == [Kind.QUOTE, Kind.GAP, Kind.QUOTE, Kind.GAP]
    assert rows["bid_price"][[0, 2]].tolist() == [1, 2]
    assert pipeline.metrics.total("gaps") == 5  # trades (one place), 2 quotes, 2 books
    assert pipeline.ledger().unaccounted == 0


def test_a_hole_may_name_its_instruments(pipeline: Pipeline) -> None:
    source = Connection(0)
    pipeline.buffer.begin(source, b"")
    pipeline.buffer.hole(Cause.REJECTED, 1, instruments=[0, 1])  # 1 is not subscribed to here
    rows = batch(pipeline.flush(NOW), RowClass.QUOTE).rows
    assert rows["instrument"].tolist() == [0]


def test_a_frame_refused_at_sealing_is_counted_once(pipeline: Pipeline) -> None:
    source = Connection(0, 1)
    source.counts.frames = source.counts.pending = 2
    for price in ("1.00", "1.001"):
        pipeline.buffer.begin(source, price.encode())
        pipeline.buffer.add_trade(0, 1, 1, 1, price, "1", Side.BID)
    result = pipeline.flush(NOW)
    source.counts.seal()  # as the pipeline does for the counts of its queues
    assert [one.payload for one in result.rejected] == [b"1.001"]
    assert (source.counts.decoded, source.counts.rejected) == (1, 1)
    assert source.counts.unaccounted == 0
    assert pipeline.ledger().decoded == 1


def test_books_come_last_and_levels_are_all_accounted_for(pipeline: Pipeline) -> None:
    source = Connection(0)
    buffer = pipeline.buffer
    buffer.begin(source, b"")
    buffer.add_book_update(
        0, 1, 1, [["0.50", "1"]], [], first=9, last=9
    )  # before its snapshot: held or filtered
    buffer.add_book_update(
        0, 1, 1, [["1", "1"]], [["2", "1"]], first=10, last=10, flags=int(Flag.SNAPSHOT)
    )
    buffer.add_book_update(0, 1, 1, [["1", "0"]], [["3", "1"]], first=11, last=11)
    rows = batch(pipeline.flush(NOW), RowClass.LEVEL).rows
    kinds = rows["kind"].tolist()
    assert kinds[0] == Kind.RESET
    assert kinds[1:] == [Kind.LEVEL] * 4
    assert rows["price"][1:].tolist() == [100, 200, 100, 300]
    ledger = pipeline.ledger()
    assert (ledger.decoded, ledger.published) == (5, 4)
    assert ledger.unaccounted == 0


def test_derived_rows_that_raise_cost_themselves_and_begin_anew(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = 1_000_000_000
    pipeline.derive(lambda _: DerivedSettings((second,), 0))

    def candles(number: int) -> tuple[FlushResult, int]:
        pipeline.buffer.begin(Connection(0), b"")
        pipeline.buffer.add_trade(
            0, number * second, number * second, number, "1", "1", Side.BID, number
        )
        result = pipeline.flush(number * second + 1)
        return result, sum(len(one) for one in result.batches if one.row_class is RowClass.CANDLE)

    assert [candles(number)[1] for number in (5, 6, 7)] == [0, 1, 1]
    with monkeypatch.context() as patch:
        patch.setattr("ingestor.derived.derived.Candles.take", lambda *_: 1 / 0)
        result, count = candles(8)
    assert isinstance(result.derived_bug, ZeroDivisionError)
    assert (len(batch(result, RowClass.TRADE)), count) == (1, 0)
    assert candles(9)[1] == 0
    result, count = candles(10)
    assert (result.derived_bug, count) == (None, 1)
    assert batch(result, RowClass.CANDLE).rows["flags"][0] & Flag.PARTIAL
    assert pipeline.ledger().unaccounted == 0
