"""Record batches are those that aiokafka's builder makes, and what its reader reads."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from cramjam import lz4
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.codec import Record
from ingestor.codec.framing import frame
from ingestor.edge.kafka.recordbatch import HEAD_BYTES, lz4_encode, pack

HEADERS = [("schema", b"md.trades.v1+json/1"), ("more", b"1")]
PRODUCER = (4_711, 3, 2**31 - 5)  # id, epoch, sequence number
CODECS = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
RANDOM = Random(1).randbytes(150_000)

KEYS = st.none() | st.binary(max_size=70)
VALUES = st.binary(max_size=300) | st.integers(0, 20_000).map(bytes)
TIMES = st.integers(-100_000, 100_000).map(lambda ms: 1_700_000_000_000 + ms)
RECORDS = st.lists(st.tuples(KEYS, VALUES, TIMES, st.just(1)), min_size=1, max_size=100)


def theirs(records: list[Record], codec: str | None, bytes_max: int) -> tuple[bytearray, int, int]:
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], 0, *PRODUCER, bytes_max)
    count = 0
    for key, value, ts_ms, _ in records:
        if builder.append(count, ts_ms, key, value, HEADERS) is None:
            break
        count += 1
    size: int = builder.size()
    return builder.build(), count, size


def read(batch: bytearray) -> list[tuple[Any, ...]]:
    records = MemoryRecords(bytes(batch))
    [one] = iter(records.next_batch, None)
    assert one.validate_crc()
    return [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in one]


@given(records=RECORDS, bytes_max=st.integers(1, 30_000))
@settings(deadline=None)
def test_a_batch_is_as_theirs(records: list[Record], bytes_max: int) -> None:
    batch, count, size = theirs(records, None, bytes_max)
    framed = frame(records, HEADERS, bytes_max - HEAD_BYTES)
    assert (framed.records, HEAD_BYTES + len(framed.body)) == (count, size)
    assert pack(framed, None, *PRODUCER) == batch


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [b"tick" * 20, bytes(200_000), RANDOM, b"", b"1"])
def test_a_compressed_batch_is_read_as_theirs(codec: str | None, value: bytes) -> None:
    records: list[Record] = [(b"key", value, 1_700_000_000_000 + ms, 1) for ms in (5, 0, 70)]
    framed = frame(records, HEADERS, 1 << 20)
    batch = pack(framed, codec, *PRODUCER)
    expected, _, _ = theirs(records, codec, 1 << 20)
    assert read(batch) == read(expected)
    # All of the head but length, checksum and codec.
    assert (batch[:8], batch[12:17], batch[23:61]) == (
        expected[:8],
        expected[12:17],
        expected[23:61],
    )
    gained = len(batch) < HEAD_BYTES + len(framed.body)
    assert int.from_bytes(batch[21:23]) == (CODECS[codec] if gained else 0)
    assert gained or value is RANDOM or codec is None


@pytest.mark.parametrize("parts", [[], [bytes(70_000)], [RANDOM], [b"abc" * 9, RANDOM, bytes(9)]])
def test_lz4_frames_are_read_by_others(parts: list[bytes]) -> None:
    payload = b"".join(parts)
    assert bytes(lz4.decompress(lz4_encode(payload))) == payload
