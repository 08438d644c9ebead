"""The binary encoding: one record for the rows of one flush and partition, without a key.

A compacted topic gets a record with a key for each row, or for each event where rows are levels.

Little-endian. Every part begins at a multiple of 8 bytes, so that `numpy.frombuffer` reads the
rows where they are.

| offset | bytes | field |
|---|---|---|
| 0 | 3 | magic "MDR" |
| 3 | 1 | schema version, 1 |
| 4 | 1 | row class: 1 trades, 2 quotes, 3 book, ... (`ingestor.model.row_classes`) |
| 5 | 1 | bytes per row |
| 6 | 2 | 0 |
| 8 | 16 | session id |
| 24 | 8 | sequence number of the first row |
| 32 | 4 | rows |
| 36 | 4 | instruments |
| 40 | 4 | bytes of the instrument table, a multiple of 8 |
| 44 | 4 | 0 |
| 48 | | instrument table |
| 48 + table | | rows: the dtypes of `ingestor.model.rows`; `instrument` indexes the table |

An entry of the table: key length u2, price exponent u1, size exponent u1, metadata revision u4,
the key `venue:market:symbol` in UTF-8. Zeros fill the table up to its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, compress, pairwise
from operator import not_
from struct import Struct, error
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.codec.record import (
    RECORD_BYTES_MAX,
    VERSION,
    CodecError,
    Decoded,
    Part,
    Pieces,
    Record,
    WireInstrument,
    event_starts,
    joined,
    keyed,
)
from ingestor.model.batch import Instruments, TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Rows

MAGIC: Final = b"MDR"
HEAD: Final = Struct("<3sBBBH16sQIIII")
ENTRY: Final = Struct("<HBBI")
assert (HEAD.size, ENTRY.size) == (48, 8)

_INSTRUMENT_AT: Final = 24  # offset of `instrument` in a row of any class
_FEW: Final = 32  # rows
_TOGETHER_MAX: Final = 4_096  # rows; copies of more would leave the processor's cache
_MS: Final = 1_000_000
_CACHED_TABLES: Final = 1_024
_NO_BOUNDS: Final = np.empty(0, np.int64)


class BinaryEncoder:
    """Rows -> records. Keeps the table entry of each instrument seen."""

    encoding: Final = "binary"

    def __init__(self, instruments: Instruments, session: bytes) -> None:
        """instruments: by number, may grow. session: 16 bytes."""
        assert len(session) == 16
        self._instruments = instruments
        self._session = session
        self._entries = Pieces(self._entry, instruments)
        self._scratch = np.zeros(0, np.int64)

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of `rows`, in order. Values are at most RECORD_BYTES_MAX long.

        Args:
            row_class: Class of the rows.
            rows: Consecutive rows of one partition.
            first_sequence: Number of the first row in its partition.
        """
        return self.encode_parts(row_class, [(rows, first_sequence)])[0]

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Return the records of each part, in order."""
        if row_class.is_compacted:
            return [self._each(row_class, rows, first) for rows, first in parts]
        if len(parts) > 1 and sum(len(rows) for rows, _ in parts) > _TOGETHER_MAX:
            return [self._encode(row_class, [part])[0] for part in parts]
        is_few = [len(rows) <= _FEW for rows, _ in parts]
        if len({*is_few}) == 1:
            return self._encode(row_class, parts)
        few = iter(self._encode(row_class, list(compress(parts, is_few))))
        many = iter(self._encode(row_class, list(compress(parts, map(not_, is_few)))))
        return [next(few if item else many) for item in is_few]

    def _encode(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Encode parts of which all or none have few rows."""
        rows = joined([rows for rows, _ in parts])
        bounds = [0, *accumulate(len(rows) for rows, _ in parts)]
        entries, cuts, local = self._tables(rows["instrument"], np.array(bounds))
        out = bytearray(rows.tobytes())
        row_bytes = rows.dtype.itemsize
        np.ndarray(len(rows), "<u4", out, _INSTRUMENT_AT, (row_bytes,))[:] = local
        view = memoryview(out)
        times_ns = rows["ts_recv"]
        encoded = []
        for index, (part, first_sequence) in enumerate(parts):
            start, end = bounds[index], bounds[index + 1]
            table = b"".join(entries[cuts[index] : cuts[index + 1]])
            table += bytes(-len(table) % 8)
            if HEAD.size + len(table) + part.nbytes > RECORD_BYTES_MAX and end - start > 1:
                encoded.append(self._halves(row_class, part, first_sequence))
                continue
            head = HEAD.pack(
                MAGIC,
                VERSION,
                row_class.id,
                row_bytes,
                0,
                self._session,
                first_sequence,
                end - start,
                cuts[index + 1] - cuts[index],
                len(table),
                0,
            )
            value = b"".join((head, table, view[start * row_bytes : end * row_bytes]))
            encoded.append([(None, value, int(times_ns[end - 1]) // _MS, end - start)])
        return encoded

    def _each(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return a record with a key for each row or event, since Kafka compacts by keys."""
        starts = event_starts(rows, _NO_BOUNDS) if row_class.has_levels else np.arange(len(rows))
        spans = pairwise([*starts.tolist(), len(rows)])
        each = [(rows[start:end], first_sequence + start) for start, end in spans]
        heads = rows[starts]
        names = [self._instruments[number].key.encode() for number in heads["instrument"].tolist()]
        encoded = self._encode(row_class, each)
        return [
            (key, *record[1:])
            for key, [record] in zip(keyed(row_class, names, heads), encoded, strict=True)
        ]

    def _halves(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        half = len(rows) // 2
        return self.encode(row_class, rows[:half], first_sequence) + self.encode(
            row_class, rows[half:], first_sequence + half
        )

    def _tables(
        self, column: NDArray[np.uint32], bounds: NDArray[np.int64]
    ) -> tuple[list[bytes], list[int], NDArray[np.int64]]:
        """Return the table entries of all parts; where each part's begin, and the end; and each
        row's index into the table of its part.

        Instruments are in order of their numbers, so that tables are often the same again; where
        there are few rows, in order of appearance.
        """
        parts, width = len(bounds) - 1, len(self._instruments)
        places = column.astype(np.intp)  # by part and instrument
        if parts > 1:
            places += (np.arange(parts) * width).repeat(np.diff(bounds))
        if len(self._scratch) < parts * width:
            self._scratch = np.zeros(2 * parts * width, np.int64)
        scratch = self._scratch
        if bounds[1] <= _FEW:
            numbers = np.arange(len(places))
            scratch[places[::-1]] = numbers[::-1]  # the last of equal indices stays
            is_first = scratch.take(places) == numbers
            found = places[is_first]
            cuts = is_first.nonzero()[0].searchsorted(bounds)
        else:
            seen = np.zeros(parts * width, np.bool_)
            seen[places] = True
            found = seen.nonzero()[0]
            cuts = found.searchsorted(np.arange(parts + 1) * width)
        scratch[found] = np.arange(len(found)) - cuts[:-1].repeat(np.diff(cuts))
        entries, _ = self._entries.take(found % width)
        return entries, cuts.tolist(), scratch.take(places)

    def _entry(self, number: int) -> bytes:
        one = self._instruments[number]
        key = one.key.encode()
        return ENTRY.pack(len(key), one.price_exponent, one.size_exponent, one.revision) + key


_tables: dict[bytes, list[WireInstrument]] = {}


def decode(value: bytes) -> Decoded:
    """Read a record's value; its rows are a read-only view of `value`.

    Raises CodecError for anything that isn't a whole record of a known version.
    """
    row_class, session, first_sequence, rows, instruments, table_bytes = _head(value)
    dtype = row_class.dtype
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
    magic, version, number, row_bytes, _, session, first, rows, instruments, table_bytes, _ = (
        HEAD.unpack_from(value)
    )
    if magic != MAGIC or version != VERSION:
        raise CodecError(f"magic {magic!r}, version {version} is not known here")
    try:
        row_class = ROW_CLASSES.of_id(number)
    except KeyError:
        raise CodecError(f"row class {number} is not known here") from None
    if row_bytes != row_class.dtype.itemsize:
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
