"""What a fetch brought comes batch by batch, and holds what aiokafka's records hold."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import cramjam
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition, errors

from ingestor.codec.record_batches import RecordBatchReader, RecordRun
from ingestor.kafka.aiokafka_compat import DefaultRecordBatchBuilder
from ingestor.kafka.fetched_batches import (
    BatchesOfPartition,
    FetchedBatch,
    KeptRecords,
    hand_over_whole_batches,
    lz4_plain,
    until,
    whole_batches,
)
from ingestor.kafka.lz4_frames import compressed, frame_of
from ingestor.model.row_classes import RowClass
from ingestor.native import crc32c, native
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import trades
from tests.unit.codec.test_record_batches import json_pairs, python_runs, same

TOPIC = TopicPartition("md.trades.v1", 0)

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)


def batch(
    values: Sequence[bytes], base: int, codec: int = 0, *, magic: int = 2, control: bool = False
) -> bytes:
    """Return a batch of records without keys, as a broker has it."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for delta, value in enumerate(values):
        builder.append(delta, 1_000 + delta, None, value, [])
    built = bytearray(builder.build())
    built[:8] = struct.pack(">q", base)
    built[16] = magic
    if control:
        built[22] |= 0x20
        built[17:21] = struct.pack(">I", crc32c(bytes(built[21:])))
    return bytes(built)


def given(data: bytes, offset: int, *, checks: bool = True) -> list[Any]:
    return list(
        BatchesOfPartition(TOPIC, KeptRecords(data), [], offset, None, whole_batches, checks, 0)
    )


def test_batches_have_their_offsets_and_only_what_is_wanted() -> None:
    data = batch([b"a", b"b"], 10) + batch([b"c"], 12, control=True) + batch([b"d"], 13)
    first, second = given(data, 11)
    assert (first.first_offset, first.next_offset, first.batch.base_offset) == (11, 12, 10)
    assert (second.first_offset, second.next_offset) == (13, 14)
    assert given(data, 12)[0].batch.base_offset == 13


def test_what_is_cut_short_waits_for_the_next_fetch() -> None:
    whole = batch([b"a"], 0)
    for size in range(len(whole)):
        assert given(whole + batch([b"b"], 1)[:size], 0)[0].next_offset == 1
        assert len(given(whole + batch([b"b"], 1)[:size], 0)) == 1


def test_a_wrong_checksum_is_an_error_unless_nobody_asks() -> None:
    broken = bytearray(batch([b"value"], 0))
    broken[-3] ^= 1
    with pytest.raises(errors.CorruptRecordException):
        given(bytes(broken), 0)
    assert len(given(bytes(broken), 0, checks=False)) == 1


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_each_compression_is_read(codec: int) -> None:
    plain = given(batch([b"x" * 500, b"y"], 0), 0)[0].batch.records
    assert given(batch([b"x" * 500, b"y"], 0, codec), 0)[0].batch.records == plain


def test_frames_of_lz4() -> None:
    data = bytes(range(256)) * 40_000
    ours = compressed(data)
    assert lz4_plain(ours) == data, "several blocks"
    stored = bytes.fromhex("04224d18607073") + struct.pack("<I", 3 | 1 << 31) + b"abc" + bytes(4)
    assert lz4_plain(stored) == b"abc"
    assert lz4_plain(b"\x1f\x8b") is None
    linked = bytearray(ours)
    linked[4] &= ~0x20
    assert lz4_plain(bytes(linked)) is None, "for a reader of frames"
    other = bytes(cramjam.lz4.compress(data))
    assert lz4_plain(other) in (data, None)
    for size in (20, len(ours) - 5):
        with pytest.raises(errors.CorruptRecordException):
            lz4_plain(ours[:size])
    with pytest.raises(errors.CorruptRecordException):
        lz4_plain(frame_of(b"\xf0\xff\xff"))


def test_a_batch_ends_where_reading_ends_and_gives_records_too() -> None:
    [whole] = given(batch([b"a", b"b", b"c"], 10), 11)
    assert [one.value for one in whole.records()] == [b"b", b"c"]
    cut = until(whole, 12)
    assert isinstance(cut, FetchedBatch)
    assert [(one.offset, one.value) for one in cut.records()] == [(11, b"b")]
    assert until(whole, 99) == whole
    assert until(whole, 11) is None


@asynccontextmanager
async def consumer(servers: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    kafka = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, **options)
    await kafka.start()
    kafka.assign([TOPIC])
    await kafka.seek_to_beginning(TOPIC)
    try:
        yield kafka
    finally:
        await kafka.stop()


async def read_all(kafka: AIOKafkaConsumer, end: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(100):
        if await kafka.position(TOPIC) == end:
            break
        for records in (await kafka.getmany(timeout_ms=200)).values():
            found += records
    return found


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
async def test_a_broker_gives_the_same_both_ways(compression: str | None) -> None:
    pairs = json_pairs(RowClass.TRADE, trades(500))
    hand_over_whole_batches()
    with DevBroker({TOPIC.topic: 1}) as broker:
        servers = broker.bootstrap_servers
        async with AIOKafkaProducer(
            bootstrap_servers=servers, compression_type=compression, linger_ms=5
        ) as producer:
            sent = [await producer.send(TOPIC.topic, v, key=k, partition=0) for k, v in pairs]
            await asyncio.gather(*sent)
        async with consumer(servers) as plain:
            records = await read_all(plain, len(pairs))
        async with consumer(servers, value_deserializer=whole_batches) as whole:
            batches = await read_all(whole, len(pairs))
    assert all(isinstance(one, ConsumerRecord) for one in records), "who asks for records gets them"
    assert [one.value for one in records] == [value for _, value in pairs]
    assert all(isinstance(one, FetchedBatch) for one in batches)
    reader = RecordBatchReader()
    for one in batches * 8:
        reader.read(one.batch)  # it learns
    runs = [run for one in batches for run in reader.read(one.batch, one.first_offset)]
    expected = [decoded for run in python_runs(pairs) for decoded in run]
    at = 0
    for run in runs:
        assert isinstance(run, RecordRun)
        same(run, expected[at : at + len(run.ends)])
        at += len(run.ends)
        assert run.next_offsets[-1] == at
    assert at == len(pairs)
