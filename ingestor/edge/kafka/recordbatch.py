"""A record batch as Kafka keeps it (KIP-98, "RecordBatch", magic 2): head, checksum, compression.

The same as aiokafka's builder makes, which takes a call and some tuples for each record. The head:

| offset | bytes | field |
|---|---|---|
| 0 | 8 | offset of the first record, which the broker sets |
| 8 | 4 | bytes that follow |
| 12 | 4 | epoch of the partition's leader, which the broker sets; -1 |
| 16 | 1 | magic, 2 |
| 17 | 4 | CRC32C of what follows |
| 21 | 2 | attributes; the three lowest bits are the codec |
| 23 | 4 | the last record's offset delta |
| 27 | 8 | time of the first record, ms |
| 35 | 8 | the latest time, ms |
| 43 | 8 | producer's id |
| 51 | 2 | producer's epoch |
| 53 | 4 | sequence number of the first record |
| 57 | 4 | records, which follow, compressed all together |
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

import cramjam
from aiokafka.codec import gzip_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c

from ingestor.codec.framing import Framed

HEAD_BYTES: Final = 61
_START: Final = Struct(">qiibI")
_REST: Final = Struct(">hiqqqhii")
_AFTER_LENGTH: Final = 12
_MAGIC: Final = 2
assert _START.size + _REST.size == HEAD_BYTES

# LZ4 frame format: magic, version 1 with independent blocks (KIP-57), blocks of at most 64 KiB, and
# the checksum of these two octets.
_LZ4_HEAD: Final = bytes.fromhex("04224d18604082")
_LZ4_BLOCK_BYTES: Final = 64 << 10
_LZ4_AS_IT_IS: Final = 1 << 31  # a block that compression doesn't make smaller
_LZ4_END: Final = bytes(4)
_SIZE: Final = Struct("<I")


def lz4_encode(payload: bytes) -> bytes:
    """Return an LZ4 frame, made at the fastest level.

    Not by cramjam's compressor of frames, which adds a checksum to each block: the batch has its
    own.
    """
    parts = [_LZ4_HEAD]
    for start in range(0, len(payload), _LZ4_BLOCK_BYTES):
        part = payload[start : start + _LZ4_BLOCK_BYTES]
        block = bytes(cramjam.lz4.compress_block(part, store_size=False))
        if len(block) < len(part):
            parts += (_SIZE.pack(len(block)), block)
        else:
            parts += (_SIZE.pack(len(part) | _LZ4_AS_IT_IS), part)
    parts.append(_LZ4_END)
    return b"".join(parts)


# Name -> number in the attributes, and how to compress.
_CODECS: Final[dict[str | None, tuple[int, Callable[[bytes], bytes]]]] = {
    None: (0, bytes),
    "gzip": (1, gzip_encode),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}


def pack(
    framed: Framed, codec: str | None, producer_id: int, producer_epoch: int, sequence: int
) -> bytearray:
    """Return a batch of some records. codec: name, or None. It isn't used where it gains nothing.
    sequence: of the first record."""
    number, compress = _CODECS[codec]
    body = compress(framed.body)
    if len(body) >= len(framed.body):
        number, body = 0, framed.body
    head = _REST.pack(
        number,
        framed.records - 1,
        framed.first_ms,
        framed.latest_ms,
        producer_id,
        producer_epoch,
        sequence,
        framed.records,
    )
    rest = head + body
    length = _START.size + len(rest) - _AFTER_LENGTH
    batch = bytearray(_START.pack(0, length, -1, _MAGIC, calc_crc32c(rest)))
    batch += rest
    return batch
