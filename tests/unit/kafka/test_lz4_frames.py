"""LZ4 frames that every client reads: no checksums of blocks."""

from __future__ import annotations

import random

import cramjam
import pytest

from ingestor.kafka.aiokafka_compat import (
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
    use_fast_compression,
)
from ingestor.kafka.lz4_frames import BLOCK_MAX, compressed, frame_of

FLAGS_AT, BLOCK_CHECKSUM = 4, 0x10
SIZES = [0, 1, 1_000, BLOCK_MAX - 1, BLOCK_MAX, BLOCK_MAX + 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["text", "noise"])
def test_a_frame_gives_back_what_was_compressed(size: int, kind: str) -> None:
    text = b"0123456789" * (size // 10 + 1)
    data = random.Random(size).randbytes(size) if kind == "noise" else text[:size]
    frame = compressed(data)
    assert frame[:4] == bytes.fromhex("04224d18")
    assert not frame[FLAGS_AT] & BLOCK_CHECKSUM
    assert len(frame) < size + 64, "what does not shrink is stored"
    assert bytes(cramjam.lz4.decompress(frame)) == data


def test_the_frame_of_one_block() -> None:
    block = bytes(cramjam.lz4.compress_block(b"abc" * 100, store_size=False))
    assert bytes(cramjam.lz4.decompress(frame_of(block))) == b"abc" * 100


def test_batches_of_aiokafkas_builder_have_such_frames() -> None:
    """pierrec/lz4 before 4.1.22 refuses checksums of blocks, and kafka-go 0.4.51 with it."""
    use_fast_compression()
    builder = DefaultRecordBatchBuilder(2, 3, 0, 5, 1, 7, 1 << 20)
    builder.append(0, 1_000, None, b"0123456789" * 100, [])
    batch = bytes(builder.build())
    frame = batch[batch.index(bytes.fromhex("04224d18")) :]
    assert not frame[FLAGS_AT] & BLOCK_CHECKSUM
    assert [one.value for one in DefaultRecordBatch(batch)] == [b"0123456789" * 100]
