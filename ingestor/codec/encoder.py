"""TickBatch rows <-> Kafka records, in two encodings; and which partition a row belongs to.

`JsonEncoder` (ingestor.codec.json_encoder) and `BinaryEncoder` (ingestor.codec.binary) turn the
rows of one partition into records; `decode` reads either back into the same rows.

    encode_into = encoder("binary", table, session)
    for key, value, ts_ms, rows in encode_into.encode(RowClass.TRADE, trades, first_sequence): ...
    decoded = decode(value)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ingestor.codec import binary as codec_binary
from ingestor.codec import json_decoder as codec_json_read
from ingestor.codec.binary import BinaryEncoder
from ingestor.codec.json_encoder import JsonEncoder
from ingestor.codec.record import (
    Decoded,
    Part,
    Record,
)
from ingestor.model.batch import Instruments
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows


class Encoder(Protocol):
    """Rows -> records."""

    @property
    def encoding(self) -> str: ...

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of some rows, in order; their row counts add up.

        Args:
            row_class: Class of the rows.
            rows: Consecutive rows of one partition, at least one.
            first_sequence: Number of the first row in its partition.
        """

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Return the records of each part; small ones cost less together than one by one."""


_ENCODERS: Final[dict[str, Callable[[Instruments, bytes], Encoder]]] = {
    "json": JsonEncoder,
    "binary": BinaryEncoder,
}


def encoder(encoding: str, instruments: Instruments, session: bytes) -> Encoder:
    """Return an encoder.

    Args:
        encoding: "json" or "binary".
        instruments: Instruments of the rows.
        session: 16 bytes that identify this run.
    """
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
