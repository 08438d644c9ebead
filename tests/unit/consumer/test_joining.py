"""Records of one row or many become few arrays, whose instruments have one table."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.codec import decode, encoder
from ingestor.consumer.joining import Joiner, Piece
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from tests.fakes.rows import MAKERS, by_key, table_of

TABLE = table_of()


def decoded(row_class: RowClass, rows: Rows, encoding: str) -> list[TickBatch]:
    values = [one[1] for one in encoder(encoding, TABLE, bytes(16)).encode(row_class, rows, 0)]
    return [decode(value).batch for value in values]


@pytest.mark.parametrize("encoding", ["json", "binary"])
@pytest.mark.parametrize("row_class", tuple(MAKERS))
def test_rows_are_those_of_the_records(row_class: RowClass, encoding: str) -> None:
    rows = MAKERS[row_class](60)
    batches = [one for part in (rows[:30], rows[30:]) for one in decoded(row_class, part, encoding)]
    joiner = Joiner()
    [chunk] = joiner.join([Piece.of(batch, 10 + n) for n, batch in enumerate(batches)])
    assert chunk.batch.row_class is row_class
    assert by_key([chunk.batch]) == by_key(batches) == by_key([TickBatch(row_class, rows, TABLE)])
    assert chunk.ends[-1] == len(rows)
    assert chunk.next_offset(0) is None
    assert chunk.next_offset(len(rows)) == 10 + len(batches) - 1
    [again] = joiner.join([Piece.of(batches[0], 1)])
    assert again.batch.instruments is chunk.batch.instruments
    assert len(joiner.instruments) == 12


def test_a_run_of_each_class_is_one_chunk() -> None:
    trades, quotes = (
        decoded(row_class, MAKERS[row_class](2), "json")
        for row_class in (RowClass.TRADE, RowClass.QUOTE)
    )
    chunks = list(Joiner().join([Piece.of(one, 0) for one in [*trades, *quotes, *trades]]))
    assert [(one.batch.row_class.name, len(one.batch)) for one in chunks] == [
        ("TRADE", 2),
        ("QUOTE", 2),
        ("TRADE", 2),
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.data())
def test_an_offset_is_behind_the_last_whole_record(lengths: list[int], data: st.DataObject) -> None:
    """Records come one by one, or several in a piece."""
    [batch] = decoded(RowClass.TRADE, MAKERS[RowClass.TRADE](1), "json")
    cuts = data.draw(st.sets(st.integers(1, len(lengths))))
    pieces = []
    for start, end in pairwise(sorted({0, len(lengths)} | cuts)):
        ends = np.cumsum(lengths[start:end])
        rows = np.repeat(batch.rows, ends[-1])
        offsets = np.arange(start, end) + 100
        pieces.append(Piece(TickBatch(batch.row_class, rows, batch.instruments), ends, offsets))
    [chunk] = Joiner().join(pieces)
    first = data.draw(st.integers(0, sum(lengths)))
    whole = [n for n in range(len(lengths)) if sum(lengths[: n + 1]) <= first]
    assert len(chunk.batch) == sum(lengths)
    assert chunk.next_offset(first) == (100 + whole[-1] if whole else None)
