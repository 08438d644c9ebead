"""Runs of records, and why each ends; tests/unit/codec/test_record_batches.py compares the rows."""

from __future__ import annotations

import pytest

from ingestor.codec.json_encoder import value_prefix
from ingestor.codec.record_shapes import READ, record_shape
from ingestor.model.row_classes import RowClass
from ingestor.native import KnownPrefix, ReadResult, RecordReader, native
from ingestor.native.reading import RECORDS_MAX
from tests.fakes.rows import trades
from tests.unit.codec.test_record_batches import SESSION, TABLE, KeyValue, json_pairs, records_of

CLASS = RowClass.TRADE


@pytest.fixture
def reader() -> RecordReader:
    library = native().library
    if library is None:
        pytest.skip(native().reason)
    reader = RecordReader(library, [record_shape(row_class) for row_class in READ])
    reader.know(
        KnownPrefix(
            one.key.encode(),
            value_prefix(one.key, one.revision, CLASS, SESSION.hex()),
            CLASS,
            number + 100,
            7,
            (one.price_exponent, one.size_exponent),
        )
        for number, one in enumerate(TABLE)
    )
    return reader


def test_a_run_has_the_numbers_that_its_prefixes_were_given(reader: RecordReader) -> None:
    pairs = json_pairs(CLASS, trades(24), 5)
    reader.begin(24, 0, 23)
    run, result = reader.run(records_of(pairs))
    assert result is ReadResult.ALL
    assert run is not None
    assert (run.session, run.first_sequence, run.row_class) == (7, 5, CLASS)
    assert run.rows["instrument"].tolist() == [100 + (n + 1) % 12 for n in range(24)]
    assert run.ends.tolist() == [*range(1, 25)]
    assert run.deltas.tolist() == [*range(24)]


def test_what_is_not_known_is_handed_back_in_its_place(reader: RecordReader) -> None:
    pairs = json_pairs(CLASS, trades(3))
    strange: list[KeyValue] = [*pairs[:2], (b"k", b"value"), (b"k", None), pairs[2]]
    data = records_of(strange)
    reader.begin(5, 0, 4)
    run, result = reader.run(data)
    assert run is not None
    assert (len(run.rows), result) == (2, ReadResult.OTHER)
    assert reader.other(data) == (b"value", 2)
    assert reader.run(data) == (None, ReadResult.EMPTY)
    run, result = reader.run(data)
    assert run is not None
    assert (len(run.rows), result) == (1, ReadResult.ALL)


def test_a_run_ends_when_its_arrays_are_full(reader: RecordReader) -> None:
    count = RECORDS_MAX + 5
    data = records_of(json_pairs(CLASS, trades(count)))
    reader.begin(count, 0, count)
    lengths = []
    result = ReadResult.CUT
    while result is not ReadResult.ALL:
        run, result = reader.run(data)
        assert run is not None
        lengths.append(len(run.rows))
    assert lengths == [RECORDS_MAX, 5]


def test_bytes_that_are_no_records_are_said_to_be_none(reader: RecordReader) -> None:
    reader.begin(1, 0, 0)
    assert reader.run(b"\xff" * 20) == (None, ReadResult.BROKEN)
