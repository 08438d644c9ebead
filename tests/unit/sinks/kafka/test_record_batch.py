"""Batches around records that are written already are those of aiokafka's builder."""

from __future__ import annotations

import pytest

from ingestor.kafka.aiokafka_compat import DefaultRecordBatch, DefaultRecordBatchBuilder
from ingestor.kafka.lz4_frames import compressed
from ingestor.native import crc32c, native
from ingestor.sinks.kafka.record_batch import HEAD_BYTES, record_batch


@pytest.mark.skipif(native().library is None, reason=native().reason)
@pytest.mark.parametrize("codec", [0, 3])
def test_a_batch_is_that_of_aiokafkas_builder(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, 5, 1, 7, 1 << 20)
    for number in range(3):
        builder.append(number, 1_000 - number, b"key", b"value" * 9, [("schema", b"x")])
    expected = bytes(builder.build())
    records = expected[HEAD_BYTES:]
    if codec:
        records = compressed(records)
    batch = record_batch(records, 3, codec, 1_000, 1_000, 5, 1, 7, crc32c)
    if not codec:
        assert bytes(batch) == expected
    read = DefaultRecordBatch(bytes(batch))
    assert read.validate_crc()
    assert [(one.key, one.value, one.timestamp) for one in read] == [
        (b"key", b"value" * 9, 1_000 - number) for number in range(3)
    ]
