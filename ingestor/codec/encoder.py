"""TickBatch rows <-> Kafka records, in two encodings; and which partition a row belongs to.

`JsonEncoder` (ingestor.codec.json_encoder) and `BinaryEncoder` (ingestor.codec.binary) turn the
rows of one partition into records; `decode` reads either back into the same rows.

    encode_into = encoder("binary", table, session)
    for key, value, ts_ms, rows in encode_into.encode(RowClass.TRADE, trades, first_sequence): ...
    decoded = decode(value)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

from ingestor.codec import binary as codec_binary
from ingestor.codec import json_decoder as codec_json_read
from ingestor.codec.binary import BinaryEncoder
from ingestor.codec.json_encoder import JsonEncoder
from ingestor.codec.record import (
    ENCODINGS,
    RECORD_BYTES_MAX,
    CodecError,
    Decoded,
    Headers,
    Part,
    Record,
    WireInstrument,
    headers,
    joined,
    schema_name,
)
from ingestor.columns.buffer import Instruments
from ingestor.model.rows import RowClass, Rows

__all__ = [
    "ENCODINGS",
    "RECORD_BYTES_MAX",
    "CodecError",
    "Decoded",
    "Encoder",
    "Headers",
    "Part",
    "Partitions",
    "Record",
    "WireInstrument",
    "decode",
    "encoder",
    "headers",
    "joined",
    "partition_of_key",
    "position",
    "schema_name",
]


class Encoder(Protocol):
    """Rows -> records."""

    @property
    def encoding(self) -> str: ...

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of consecutive rows (at least one) of one partition, in order; their
        row counts add up."""

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Return the records of each part; small ones cost less together than one by one."""


_ENCODERS: Final[dict[str, Callable[[Instruments, bytes], Encoder]]] = {
    "json": JsonEncoder,
    "binary": BinaryEncoder,
}


def encoder(encoding: str, instruments: Instruments, session: bytes) -> Encoder:
    """Return an encoder. encoding: "json" or "binary". session: 16 bytes."""
    return _ENCODERS[encoding](instruments, session)


def decode(value: bytes) -> Decoded:
    """Read a record's value of either encoding. Raises CodecError."""
    if value[:3] == codec_binary.MAGIC:
        return codec_binary.decode(value)
    return codec_json_read.decode(value)


def position(value: bytes) -> tuple[bytes, int, int]:
    """Return (session, first sequence number, rows) of a record's value. Raises CodecError."""
    if value[:3] == codec_binary.MAGIC:
        return codec_binary.position(value)
    return codec_json_read.position(value)


def partition_of_key(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's Java client gives to a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


class Partitions:
    """Splits rows by the partition of their instrument's key, for one number of partitions."""

    def __init__(self, instruments: Instruments, count: int) -> None:
        """instruments: by number, may grow."""
        self.count = count
        self._instruments = instruments
        # (Of 16 bits, since numpy sorts those by counting.)
        self._partition_of: NDArray[np.uint16] = np.empty(0, np.uint16)

    def split(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Yield (partition, its rows in order), for partitions that have rows."""
        known = self._partition_of
        if len(known) < len(self._instruments):
            known = self._learn()
        if self.count == 1:
            yield 0, rows
            return
        partitions = known.take(rows["instrument"])
        counts = np.bincount(partitions).tolist()
        if counts[-1] == len(rows):
            yield len(counts) - 1, rows
            return
        # An index would copy field by field, ten times as slow.
        rows = rows.take(partitions.argsort(kind="stable"))
        end = 0
        for partition, count in enumerate(counts):
            if count:
                start, end = end, end + count
                yield partition, rows[start:end]

    def of(self, instrument: int) -> int:
        """Return the partition of one instrument."""
        known = self._partition_of
        return int((known if instrument < len(known) else self._learn())[instrument])

    def _learn(self) -> NDArray[np.uint16]:
        more = range(len(self._partition_of), len(self._instruments))
        keys = (self._instruments[number].key.encode() for number in more)
        found = [partition_of_key(key, self.count) for key in keys]
        self._partition_of = np.concatenate((self._partition_of, np.array(found, np.uint16)))
        return self._partition_of
