"""The binary encoding: one record for the rows of one flush and partition, without a key.

Little-endian. Every part begins at a multiple of 8 bytes, so that `numpy.frombuffer` reads the
rows where they are.

| offset | bytes | field |
|---|---|---|
| 0 | 3 | magic "MDR" |
| 3 | 1 | schema version, 1 |
| 4 | 1 | row class: 1 trades, 2 quotes, 3 book |
| 5 | 1 | bytes per row |
| 6 | 2 | 0 |
| 8 | 16 | session id |
| 24 | 8 | sequence number of the first row |
| 32 | 4 | rows |
| 36 | 4 | instruments |
| 40 | 4 | bytes of the instrument table, a multiple of 8 |
| 44 | 4 | 0 |
| 48 | | instrument table |
| 48 + table | | rows: the dtypes of `ingestor.rows`; `instrument` indexes the table |

An entry of the table: key length u2, price exponent u1, size exponent u1, metadata revision u4,
the key `venue:market:symbol` in UTF-8. Zeros fill the table up to its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, error
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.batch import Instruments, TickBatch
from ingestor.codec.wire import (
    RECORD_BYTES_MAX,
    VERSION,
    CodecError,
    Decoded,
    Part,
    Record,
    WireInstrument,
)
from ingestor.rows import DTYPE_OF, RowClass, Rows

MAGIC: Final = b"MDR"
HEAD: Final = Struct("<3sBBBH16sQIIII")
ENTRY: Final = Struct("<HBBI")
assert (HEAD.size, ENTRY.size) == (48, 8)

_INSTRUMENT_AT: Final = 24  # offset of `instrument` in a row of any class
_FEW: Final = 32  # rows up to which a dict beats the lookup array
_CACHED_TABLES: Final = 1_024


class BinaryEncoder:
    """Rows -> records. Keeps the table entry of each instrument seen."""

    encoding: Final = "binary"

    def __init__(self, instruments: Instruments, session: bytes) -> None:
        """instruments: by number, may grow. session: 16 bytes."""
        assert len(session) == 16
        self._instruments = instruments
        self._session = session
        self._entries = _Entries(instruments)
        self._local = np.zeros(0, np.uint32)

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Return the records of each part, in order."""
        return [self.encode(row_class, *part) for part in parts]

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of `rows`, in order. Values are at most RECORD_BYTES_MAX long."""
        numbers, local = self._renumber(rows["instrument"])
        table = b"".join(map(self._entries.__getitem__, numbers))
        table += bytes(-len(table) % 8)
        if HEAD.size + len(table) + rows.nbytes > RECORD_BYTES_MAX and len(rows) > 1:
            half = len(rows) // 2
            return self.encode(row_class, rows[:half], first_sequence) + self.encode(
                row_class, rows[half:], first_sequence + half
            )
        head = HEAD.pack(
            MAGIC,
            VERSION,
            row_class,
            rows.dtype.itemsize,
            0,
            self._session,
            first_sequence,
            len(rows),
            len(numbers),
            len(table),
            0,
        )
        out = bytearray(rows.tobytes())
        np.ndarray(len(rows), "<u4", out, _INSTRUMENT_AT, (rows.dtype.itemsize,))[:] = local
        ts_ms = int(rows["ts_recv"][-1]) // 1_000_000
        return [(None, b"".join((head, table, out)), ts_ms, len(rows))]

    def _renumber(self, column: NDArray[np.uint32]) -> tuple[list[int], NDArray[np.uint32]]:
        """Return the distinct instruments, and each row's index into them."""
        if len(column) <= _FEW:
            cells = column.tolist()
            index = {number: at for at, number in enumerate(dict.fromkeys(cells))}
            return list(index), np.array([index[number] for number in cells], np.uint32)
        if len(self._local) < len(self._instruments):
            self._local = np.zeros(len(self._instruments) + 1_024, np.uint32)
        seen = np.zeros(len(self._local), np.bool_)
        seen[column] = True
        numbers = np.flatnonzero(seen)
        self._local[numbers] = np.arange(len(numbers), dtype=np.uint32)
        return numbers.tolist(), self._local[column]


class _Entries(dict[int, bytes]):
    """The table entries of instruments, each made once."""

    def __init__(self, instruments: Instruments) -> None:
        super().__init__()
        self._instruments = instruments

    def __missing__(self, number: int) -> bytes:
        one = self._instruments[number]
        key = one.key.encode()
        fields = (len(key), one.price_exponent, one.size_exponent, one.revision)
        entry = self[number] = ENTRY.pack(*fields) + key
        return entry


_tables: dict[bytes, list[WireInstrument]] = {}


def decode(value: bytes) -> Decoded:
    """Read a record's value; its rows are a read-only view of `value`.

    Raises CodecError for anything that isn't a whole record of a known version.
    """
    row_class, session, first_sequence, rows, instruments, table_bytes = _head(value)
    dtype = DTYPE_OF[row_class]
    start = HEAD.size + table_bytes
    if len(value) != start + rows * dtype.itemsize:
        raise CodecError(f"{len(value)} bytes do not hold {rows} rows")
    batch = TickBatch(
        row_class,
        np.frombuffer(value, dtype, rows, start),
        _table(value[HEAD.size : start], instruments),
    )
    if rows and int(batch.rows["instrument"].max()) >= instruments:
        raise CodecError("a row's instrument is not in the table")
    return Decoded(session, first_sequence, batch)


def position(value: bytes) -> tuple[bytes, int, int]:
    """Return (session, first sequence number, rows) of a record's value, without its rows."""
    _, session, first_sequence, rows, _, _ = _head(value)
    return session, first_sequence, rows


def _head(value: bytes) -> tuple[RowClass, bytes, int, int, int, int]:
    if len(value) < HEAD.size:
        raise CodecError(f"{len(value)} bytes are no record")
    magic, version, row_class, row_bytes, _, session, first, rows, instruments, table_bytes, _ = (
        HEAD.unpack_from(value)
    )
    if magic != MAGIC or version != VERSION:
        raise CodecError(f"magic {magic!r}, version {version} is not known here")
    try:
        row_class = RowClass(row_class)
    except ValueError:
        raise CodecError(f"row class {row_class} is not known here") from None
    if row_bytes != DTYPE_OF[row_class].itemsize:
        raise CodecError(f"{row_class.name} rows of {row_bytes} bytes are not known here")
    return row_class, session, first, rows, instruments, table_bytes


def _table(raw: bytes, count: int) -> list[WireInstrument]:
    table = _tables.get(raw)
    if table is not None and len(table) == count:
        return table
    table, at = [], 0
    try:
        for _ in range(count):
            length, price_exponent, size_exponent, revision = ENTRY.unpack_from(raw, at)
            at += ENTRY.size + length
            key = raw[at - length : at].decode()
            table.append(WireInstrument(key, price_exponent, size_exponent, revision))
    except (error, UnicodeDecodeError) as failure:
        raise CodecError(f"instrument table: {failure}") from None
    if at > len(raw):
        raise CodecError("instrument table is cut short")
    if len(_tables) >= _CACHED_TABLES:
        _tables.clear()
    _tables[raw] = table
    return table
