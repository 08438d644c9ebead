"""The headers of a batch's first record are read as aiokafka reads them."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from ingestor.codec.record_batches import RecordBatch
from ingestor.consumer.trace_links import first_headers
from ingestor.kafka.aiokafka_compat import DefaultRecordBatchBuilder
from ingestor.kafka.fetched_batches import FetchedBatch

HEAD = 61  # bytes before the records of a batch

headers = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=200)), max_size=4)


def records_of(key: bytes | None, value: bytes, some: list[tuple[str, bytes]]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, 1, 0, 0, 1 << 20)
    builder.append(0, 1_000, key, value, some)
    builder.append(1, 2_000, b"another", b"value", [("none", b"of these")])
    return bytes(builder.build())[HEAD:]


@given(st.none() | st.binary(max_size=300), st.binary(max_size=300), headers)
def test_headers_of_the_first_record(
    key: bytes | None, value: bytes, some: list[tuple[str, bytes]]
) -> None:
    records = records_of(key, value, some)
    assert first_headers(records) == some
    for size in range(min(len(records), 40)):
        first_headers(records[:size])  # cut short: it raises nothing


@pytest.mark.parametrize("junk", [b"", b"\xff" * 40, b"\x80" * 40])
def test_what_is_no_record(junk: bytes) -> None:
    assert first_headers(junk) == [] or len(first_headers(junk)) <= 32


def test_a_batch_names_its_first_record() -> None:
    batch = RecordBatch(records_of(b"k", b"v", [("traceparent", b"x")]), 2, 7)
    one = FetchedBatch(TopicPartition("t", 0), 7, 9, batch, b"")
    assert first_headers(one.batch.records) == [("traceparent", b"x")]
