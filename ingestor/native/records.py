"""Write the records of a Kafka batch with the compiled library, plain or as an LZ4 block."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.native.layouts import (
    FIELD,
    FIELDS_MAX,
    KNOWN,
    CWriter,
    FieldKind,
    WriterResult,
    address,
)
from ingestor.native.library import native

RECORD_BYTES_MAX: Final = 320 << 10  # 4,096 levels of 56 bytes, and more than all else
END_BYTES_MIN: Final = 12  # an LZ4 block ends with so many literals: those of a record's end
_POLYNOMIAL: Final = 0x82F63B78  # CRC32C, its bits reversed
_KNOWN_MIN: Final = 64
_SPARE: Final = (0,) * 6


@dataclass(frozen=True, slots=True)
class Field:
    """Describe the text before a value and the value's origin. at: bytes from the row's begin."""

    text: bytes
    kind: FieldKind
    at: int = 0


@dataclass(frozen=True, slots=True)
class Name:
    """Hold what all records of an instrument have in common."""

    key: bytes
    prefix: bytes
    price_exponent: int
    size_exponent: int


@dataclass(frozen=True, slots=True)
class Written:
    """Records. data: they, or the LZ4 block of them. plain_bytes: before compression."""

    data: bytes
    records: int
    plain_bytes: int


class RecordWriter:
    """Writes the records of one class of rows."""

    def __init__(
        self,
        library: ctypes.CDLL,
        row_class: RowClass,
        fields: Sequence[Field],
        closing: int,
        name_of: Callable[[int], Name],
        bytes_max: int,
    ) -> None:
        """Create the record writer.

        Args:
            library: the compiled one.
            row_class: of the rows.
            fields: in order; the last one's text closes the value and has the record's headers.
            closing: how many bytes of it belong to the value.
            name_of: returns what the records of an instrument's number have in common.
            bytes_max: of a batch before compression.
        """
        assert len(fields) <= FIELDS_MAX
        assert len(fields[-1].text) >= END_BYTES_MIN
        self._write = library.native_records
        self._name_of = name_of
        self._texts = np.frombuffer(b"".join(field.text for field in fields), np.uint8)
        self._fields = np.zeros(len(fields), FIELD)
        at = 0
        for row, field in zip(self._fields, fields, strict=True):
            row["text_at"], row["length"], row["at"] = at, len(field.text), field.at
            row["kind"] = field.kind
            at += len(field.text)
        room = max(bytes_max, RECORD_BYTES_MAX)
        self._out = np.empty(room + room // 255 + RECORD_BYTES_MAX, np.uint8)
        self._levels = np.empty(RECORD_BYTES_MAX, np.uint8)
        self._known = np.zeros(_KNOWN_MIN, KNOWN)
        self._names = bytearray()
        self._writer = CWriter(
            fields=address(self._fields),
            texts=address(self._texts),
            out=address(self._out),
            levels=address(self._levels),
            fields_count=len(fields),
            room=len(self._out),
            levels_room=len(self._levels),
            row_bytes=row_class.dtype.itemsize,
            row_kind=row_class.id,
            closing=closing,
        )
        self._address = ctypes.addressof(self._writer)
        self._point()

    def write(
        self,
        rows: Rows,
        starts: NDArray[np.int64],
        first_sequence: int,
        bytes_max: int,
        *,
        lz4: bool,
    ) -> Written | None:
        """Write as many records as fit, at least one; None for rows that no template can write.

        Args:
            rows: consecutive ones of one partition, at least one.
            starts: int64[records + 1]: where each record's rows begin, and where the last's end.
            first_sequence: the number of the first row.
            bytes_max: of the batch, before compression.
            lz4: whether to make an LZ4 block.
        """
        rows, starts = np.ascontiguousarray(rows), np.ascontiguousarray(starts)
        base_ms = int(rows["ts_recv"][starts[1] - 1]) // 1_000_000
        while True:
            result = self._write(
                self._address,
                address(rows),
                address(starts),
                *(len(starts) - 1, first_sequence, base_ms, bytes_max, int(lz4)),
            )
            if result != WriterResult.UNKNOWN:
                break
            self._learn(self._writer.unknown)
        if result != WriterResult.DONE:
            return None
        writer = self._writer
        data = self._out[: writer.out_bytes].tobytes()
        return Written(data, writer.records, writer.plain_bytes)

    def _learn(self, number: int) -> None:
        """Ask for an instrument. Raises what `name_of` raises."""
        name = self._name_of(number)
        if number >= len(self._known):
            larger = np.zeros(max(2 * len(self._known), number + 1), KNOWN)
            larger[: len(self._known)] = self._known
            self._known = larger
        at = len(self._names)
        exponents = (name.price_exponent, name.size_exponent)
        prefix_at = at + len(name.key)
        lengths = (at, len(name.key), prefix_at, len(name.prefix))
        self._known[number] = (*lengths, exponents, _SPARE)
        self._names = self._names + name.key + name.prefix
        self._point()

    def _point(self) -> None:
        """Tell the library where the instruments are."""
        self._names_array = np.frombuffer(bytes(self._names) or b"\0", np.uint8)
        self._places = np.zeros((len(self._known), 2), np.int64)
        self._writer.known, self._writer.known_count = address(self._known), len(self._known)
        self._writer.names = address(self._names_array)
        self._writer.places = address(self._places)


def crc32c(data: bytes, *, portable: bool = False) -> int:
    """Return the checksum of a Kafka batch. portable: without the processor's instruction."""
    tables, library = _tables(), native().library
    assert library is not None
    checksum: int = library.native_crc32c(data, len(data), address(tables), int(portable))
    return checksum


@cache
def _tables() -> NDArray[np.uint32]:
    """Return uint32[8, 256]: what a byte does to the checksum, 0 to 7 bytes before the end."""
    tables = np.zeros((8, 256), np.uint32)
    first: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (first & 1) * np.uint32(_POLYNOMIAL)
        first = ((first >> 1) ^ odd).astype(np.uint32)
    tables[0] = first
    for index in range(1, 8):
        before = tables[index - 1]
        tables[index] = (before >> 8) ^ first[before & 0xFF]
    return tables
