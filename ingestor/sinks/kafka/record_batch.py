"""The frame of a Kafka record batch around records that are written already."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and largest
# timestamp in ms, producer id, epoch and sequence, records.
_HEAD: Final = Struct(">qiibIhiqqqhii")
_MAGIC: Final = 2
_NO_EPOCH: Final = -1  # of the leader: the broker puts in its own
_BEFORE_LENGTH_ENDS: Final = 12  # bytes that the length does not count
_CRC_AT: Final = 17
_CHECKED_AT: Final = 21
HEAD_BYTES: Final = _HEAD.size


def record_batch(
    records: bytes,
    count: int,
    codec: int,
    first_ms: int,
    last_ms: int,
    producer_id: int,
    epoch: int,
    sequence: int,
    checksum: Callable[[bytes], int],
) -> bytearray:
    """Return a batch.

    Args:
        records: as the codec left them.
        count: of records.
        codec: how they are compressed, as Kafka numbers it.
        first_ms: the timestamp of the first record, ms since the epoch.
        last_ms: the largest one.
        producer_id: of the producer.
        epoch: of the producer.
        sequence: of the first record.
        checksum: CRC32C.
    """
    length = _HEAD.size - _BEFORE_LENGTH_ENDS + len(records)
    head = _HEAD.pack(
        *(0, length, _NO_EPOCH, _MAGIC, 0, codec, count - 1),
        *(first_ms, last_ms, producer_id, epoch, sequence, count),
    )
    batch = bytearray(head + records)
    crc = checksum(bytes(memoryview(batch)[_CHECKED_AT:]))
    batch[_CRC_AT:_CHECKED_AT] = crc.to_bytes(4, "big")
    return batch
