"""Hands over what a fetch brought batch by batch, with no object for each record.

A consumer whose `value_deserializer` is `whole_batches` gets `FetchedBatch` where others get
records, as far as the broker has batches of format 2; `getmany` returns both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any, Final

import cramjam
from aiokafka import ConsumerRecord, TopicPartition, errors

from ingestor.codec.record_batches import RecordBatch
from ingestor.kafka.aiokafka_compat import (
    READ_UNCOMMITTED,
    MemoryRecords,
    PartitionRecords,
    decompress,
    fetch_with,
)
from ingestor.native import crc32c

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and largest
# timestamp in ms, producer id, epoch and sequence, records.
_HEAD: Final = Struct(">qiibIhiqqqhii")
_MAGIC: Final = 2
_BEFORE_LENGTH_ENDS: Final = 12  # bytes that the length does not count
_CHECKED_AT: Final = 21
_CODEC: Final = 0x07
_CONTROL: Final = 0x20
_LZ4: Final = 3


@dataclass(frozen=True, slots=True)
class FetchedBatch:
    """One batch. data: as it was fetched.

    Records from first_offset on are wanted, up to before next_offset.
    """

    partition: TopicPartition
    first_offset: int
    next_offset: int
    batch: RecordBatch
    data: bytes

    def records(self) -> list[ConsumerRecord]:
        """Return the records, as a consumer gets them that is not marked."""
        kept = MemoryRecords(self.data)
        found = PartitionRecords(
            *(self.partition, kept, [], self.first_offset, None, None, False, READ_UNCOMMITTED)
        )
        return [item for item in found if item.offset < self.next_offset]


def until(
    one: ConsumerRecord | FetchedBatch, end_offset: int
) -> ConsumerRecord | FetchedBatch | None:
    """Return what of a record or a batch lies before an offset, None for nothing."""
    if not isinstance(one, FetchedBatch):
        return one if one.offset < end_offset else None
    if one.first_offset >= end_offset:
        return None
    return replace(one, next_offset=min(one.next_offset, end_offset))


def whole_batches(value: bytes) -> bytes:
    """Mark a consumer that takes whole batches. Values of records stay as they are."""
    return value


def hand_over_whole_batches() -> None:
    """Let consumers that are marked get whole batches. May be called again."""
    fetch_with(KeptRecords, _records_of_partition)


class KeptRecords(MemoryRecords):  # type: ignore[misc]  # aiokafka has no types
    """Records of a fetch, which keep their bytes: aiokafka's are of C, and show none."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


def _records_of_partition(
    partition: TopicPartition, records: KeptRecords, *rest: Any
) -> PartitionRecords:
    """Return what gives a partition's records to who asks for them.

    Args:
        partition: whose records they are.
        records: what was fetched.
        rest: as aiokafka's PartitionRecords has them.
    """
    _aborted, _fetch_offset, _keys, values, _checks, isolation = rest
    is_marked = values is whole_batches and isolation == READ_UNCOMMITTED
    return (BatchesOfPartition if is_marked else PartitionRecords)(partition, records, *rest)


class BatchesOfPartition(PartitionRecords):  # type: ignore[misc]
    """Gives the batches of a partition one by one, in the place of aiokafka's records."""

    _records: Any
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[FetchedBatch | ConsumerRecord]:
        data, at = self._records.data, 0
        while len(data) - at >= _HEAD.size:
            base, length, _, magic, crc, attributes, last, *_, count = _HEAD.unpack_from(data, at)
            end = at + _BEFORE_LENGTH_ENDS + length
            if end > len(data):
                return  # cut short by the most bytes that were asked for
            if magic != _MAGIC:
                self._records = MemoryRecords(data[at:])
                yield from super()._unpack_records()
                return
            if self._check_crcs and crc32c(data[at + _CHECKED_AT : end]) != crc:
                raise errors.CorruptRecordException(f"Invalid CRC - {self._tp}")
            first, self.next_fetch_offset = self.next_fetch_offset, base + last + 1
            if not attributes & _CONTROL and self.next_fetch_offset > first:
                records = _plain(data[at + _HEAD.size : end], attributes & _CODEC)
                batch = RecordBatch(records, count, base)
                yield FetchedBatch(self._tp, first, self.next_fetch_offset, batch, data[at:end])
            at = end


def _plain(records: bytes, codec: int) -> bytes:
    if codec == _LZ4:
        plain = lz4_plain(records)
        if plain is not None:
            return plain
    return decompress(records, codec)


# LZ4 frame format 1.6.3.
_LZ4_MAGIC: Final = bytes.fromhex("04224d18")
_VERSION_AND_INDEPENDENT: Final = 0x60
_DICTIONARY: Final = 0x01
_CONTENT_CHECKSUM: Final = 0x04
_CONTENT_SIZE: Final = 0x08
_BLOCK_CHECKSUM: Final = 0x10
_BLOCK_MAX: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_STORED: Final = 1 << 31


def lz4_plain(frame: bytes) -> bytes | None:
    """Return what a frame of independent blocks holds, None for another frame.

    A block costs a ninth of what it costs in a reader of frames. Checksums are left alone: the
    batch's covers them.

    Raises:
        CorruptRecordException: the frame is broken.
    """
    if frame[:4] != _LZ4_MAGIC or len(frame) < 7:
        return None
    flags, block_max = frame[4], _BLOCK_MAX.get(frame[5] >> 4)
    known = _VERSION_AND_INDEPENDENT | _CONTENT_CHECKSUM | _CONTENT_SIZE | _BLOCK_CHECKSUM
    if flags & ~known or flags & 0xE0 != _VERSION_AND_INDEPENDENT or block_max is None:
        return None
    at = 7 + (8 if flags & _CONTENT_SIZE else 0)
    parts: list[bytes] = []
    while size := int.from_bytes(frame[at : at + 4], "little"):
        at += 4
        block = frame[at : at + (size & ~_STORED)]
        if len(block) != size & ~_STORED:
            raise errors.CorruptRecordException("an LZ4 frame is cut short")
        parts.append(block if size & _STORED else _block_plain(block, block_max))
        at += len(block) + (4 if flags & _BLOCK_CHECKSUM else 0)
    return parts[0] if len(parts) == 1 else b"".join(parts)


_scratch = bytearray()


def _block_plain(block: bytes, block_max: int) -> bytes:
    if len(_scratch) < block_max:
        _scratch.extend(bytes(block_max - len(_scratch)))
    try:
        size = cramjam.lz4.decompress_block_into(block, _scratch, output_len=block_max)
    except cramjam.DecompressionError as failure:
        raise errors.CorruptRecordException(f"an LZ4 block is broken: {failure}") from None
    return bytes(memoryview(_scratch)[:size])
