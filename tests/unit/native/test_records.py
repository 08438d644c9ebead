"""Records that C writes are those of the encoder and of aiokafka's builder, byte for byte."""

from __future__ import annotations

import cramjam
import numpy as np
import pytest

from ingestor.codec import encoder, headers
from ingestor.codec.json_batches import JsonBatches
from ingestor.kafka.aiokafka_compat import DefaultRecordBatchBuilder
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Kind, Rows
from ingestor.native import crc32c, native
from ingestor.sinks.kafka.record_batch import HEAD_BYTES
from tests.unit.native.rows import random_rows, random_table

LIBRARY = native().library
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=native().reason)

TABLE = random_table()
CODEC = encoder("json", TABLE, bytes(range(16)))
HEADERS = {row_class: headers(row_class, "json") for row_class in STANDARD_CLASSES}
BYTES_MAX = 1 << 20


def batches() -> JsonBatches:
    assert LIBRARY is not None
    return JsonBatches(LIBRARY, CODEC, TABLE, HEADERS, BYTES_MAX)  # type: ignore[arg-type]


def built(row_class: RowClass, rows: Rows, first: int) -> tuple[bytes, int]:
    """Return the records that aiokafka's builder makes of the encoder's, and how many."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, 5, 1, 0, 1 << 26)
    records = CODEC.encode(row_class, rows, first)
    for number, (key, value, ts_ms, _) in enumerate(records):
        assert builder.append(number, ts_ms, key, value, HEADERS[row_class]) is not None
    return bytes(builder.build())[HEAD_BYTES:], len(records)


@pytest.mark.parametrize("row_class", tuple(STANDARD_CLASSES))
def test_records_equal_those_of_the_builder(row_class: RowClass) -> None:
    writer, generator = batches(), np.random.default_rng(1)
    for turn in range(30):
        rows, first = random_rows(row_class, TABLE, generator, turn), turn * 10**turn % 2**40
        expected, count = built(row_class, rows, first)
        for lz4 in (False, True):
            found = writer.write(row_class, rows, first, BYTES_MAX, lz4=lz4)
            assert found is not None
            written, starts = found
            data = unpacked(written.data, written.plain_bytes) if lz4 else written.data
            assert (data, written.plain_bytes) == (expected, len(expected))
            assert (written.records, starts[-1]) == (count, len(rows))


def unpacked(block: bytes, size: int) -> bytes:
    return bytes(cramjam.lz4.decompress_block(block, output_len=size))


def test_a_batch_has_as_many_records_as_fit() -> None:
    rows = random_rows(RowClass.TRADE, TABLE, np.random.default_rng(2), 1)
    expected, count = built(RowClass.TRADE, rows, 7)
    for bytes_max in (1, 500, 5_000):
        found = batches().write(RowClass.TRADE, rows, 7, bytes_max, lz4=True)
        assert found is not None
        written, starts = found
        assert 0 < written.records < count
        assert starts[-1] == written.records
        assert written.records == 1 or written.plain_bytes + HEAD_BYTES <= bytes_max
        assert expected.startswith(unpacked(written.data, written.plain_bytes))


@pytest.mark.parametrize("row_class", tuple(STANDARD_CLASSES))
def test_rows_that_no_template_writes_are_left_to_the_encoder(row_class: RowClass) -> None:
    generator = np.random.default_rng(3)
    for name, value in (
        ("kind", int(Kind.GAP)),
        ("ts_event", -1),
        *((name, -1) for name in row_class.numbers),
    ):
        rows = random_rows(row_class, TABLE, generator, 1)
        rows[name][len(rows) // 2] = value
        assert batches().write(row_class, rows, 0, BYTES_MAX, lz4=True) is None


def test_an_instrument_that_is_nowhere_raises_as_the_encoder_does() -> None:
    rows = random_rows(RowClass.TRADE, TABLE, np.random.default_rng(4), 1)
    rows["instrument"][0] = len(TABLE)
    with pytest.raises(IndexError):
        batches().write(RowClass.TRADE, rows, 0, BYTES_MAX, lz4=False)


def test_the_checksum_is_that_of_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720 appendix B.4 has more
    generator = np.random.default_rng(5)
    for size in (0, 1, 7, 8, 9, 1_000):
        data = generator.integers(0, 256, size, dtype=np.uint8).tobytes()
        assert crc32c(data) == crc32c(data, portable=True)
