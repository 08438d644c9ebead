"""The memory that Python and C share: the twins of the structures in src/native.h."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.rows import HEADER, UPDATE

ROW_BYTES: Final = 64
CHOICES_MAX: Final = 4
EXPONENT_MAX: Final = 18
# Where a level that is being read stands, behind the bytes of the row.
LEVEL_PRICE, LEVEL_SIZE, LEVEL_SIDE = 64, 72, 80
RECORD_FIRST, RECORD_ROWS = 88, 96  # what a record says of itself


class Op(IntEnum):
    """Name the steps of a shape."""

    LITERAL = 0
    SYMBOL = 1
    INTEGER = 2
    MS = 3
    DECIMAL = 4
    CHOICE = 5
    TEXT = 6
    DIGITS = 7
    ISO = 8
    UUID = 9
    EACH = 10
    NEXT = 11
    LEVEL = 12
    ROW = 13
    WORD = 14
    NUMBER = 15
    SAME = 16
    EXACT = 17
    ID = 18
    LEVEL_ROW = 19
    LEVELS_END = 20
    COUNT = 21
    END = 22


_CHOICE: Final = np.dtype([("text_at", "<u4"), ("length", "<u2"), ("value", "u1"), ("spare", "u1")])
OPERATION: Final = np.dtype(
    [
        *((name, "u1") for name in ("kind", "width", "choices", "spare")),
        ("at", "<u2"),
        ("at2", "<u2"),
        ("jump", "<u4"),
        ("text_at", "<u4"),
        ("length", "<u4"),
        ("spare2", "<u4"),
        ("least", "<u8"),
        ("most", "<u8"),
        ("choice", _CHOICE, CHOICES_MAX),
    ]
)
SHAPE: Final = np.dtype(
    [
        ("first", "<u4"),
        ("row_class", "u1"),
        ("newest_first", "u1"),
        ("spare", "u1", 2),
        ("row", "u1", ROW_BYTES),
    ]
)
SYMBOL: Final = np.dtype(
    [
        ("hash", "<u8"),
        ("text_at", "<u4"),
        ("length", "<u4"),
        ("number", "<u4"),
        ("exponents", "u1", 2),
        ("spare", "u1", 2),
    ]
)
OTHER_WIDTH: Final = 3  # offset, length, frame of a frame that no shape takes


class CShapes(ctypes.Structure):
    """Describe one market's frames, and its symbols."""

    _fields_ = (
        ("operations", ctypes.c_void_p),
        ("shapes", ctypes.c_void_p),
        ("texts", ctypes.c_void_p),
        ("symbols", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("symbols_mask", ctypes.c_uint64),
        ("taken", ctypes.c_void_p),
        ("shape_count", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
        ("is_counted", ctypes.c_uint64),
        ("next", ctypes.c_uint64),
    )


class CRowArray(ctypes.Structure):
    """An array of rows, and the frame that each came with."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("frames", ctypes.c_void_p),
        ("used", ctypes.c_uint64),
        ("room", ctypes.c_uint64),
    )


class COutput(ctypes.Structure):
    """Say where rows go. rows: trades, quotes and updates."""

    _fields_ = (
        ("rows", CRowArray * 3),
        ("levels", ctypes.c_void_p),
        ("asks", ctypes.c_void_p),
        ("levels_used", ctypes.c_uint64),
        ("levels_room", ctypes.c_uint64),
    )


class CTake(ctypes.Structure):
    """Hold what does not change between calls, and what the last one found."""

    _fields_ = (
        ("shapes", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("others", ctypes.c_void_p),
        ("others_max", ctypes.c_uint64),
        ("others_count", ctypes.c_uint64),
        ("frames", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("is_full", ctypes.c_uint64),
        ("connections", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
    )


FIELDS_MAX: Final = 16  # of a record's template


class FieldKind(IntEnum):
    """Name the origin of the value of a record's field."""

    SEQUENCE = 0
    ROWS = 1
    INTEGER = 2
    FLAGS = 3
    SIDE = 4
    PRICE = 5
    SIZE = 6
    TRADE_ID = 7
    BIDS = 8
    ASKS = 9
    END = 10


FIELD: Final = np.dtype(
    [
        ("text_at", "<u4"),
        ("length", "<u4"),
        ("at", "<u2"),
        ("kind", "u1"),
        ("spare", "u1", 5),
    ]
)
KNOWN: Final = np.dtype(
    [
        *((name, "<u4") for name in ("key_at", "key_length", "prefix_at", "prefix_length")),
        ("exponents", "u1", 2),
        ("spare", "u1", 6),
    ]
)


class WriterResult(IntEnum):
    """Hold the result of writing records."""

    DONE = 0
    ODD_ROW = 1  # a row that a template can't write
    NO_ROOM = 2
    UNKNOWN = 3  # an instrument that is not known yet


class CWriter(ctypes.Structure):
    """A template, its instruments, and where the records go."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("fields", "texts", "known", "names", "places", "out", "levels")
        ),
        *(
            (name, ctypes.c_uint64)
            for name in ("fields_count", "known_count", "room", "levels_room", "row_bytes")
        ),
        *((name, ctypes.c_uint64) for name in ("row_kind", "closing")),
        *((name, ctypes.c_uint64) for name in ("records", "plain_bytes", "out_bytes", "unknown")),
    )


PREFIX: Final = np.dtype(
    [
        *((name, "<u4") for name in ("text_at", "length", "next", "number", "session")),
        ("exponents", "u1", 2),
        ("shape", "u1"),
        ("spare", "u1"),
    ]
)


class ReadResult(IntEnum):
    """Name the reason for which a run of records is over."""

    ALL = 0
    OTHER = 1  # the record behind it is for Python to read
    CUT = 2  # the next record belongs to another run, or there is no room
    EMPTY = 3  # the record behind it has no value
    BROKEN = 4  # what follows is no record


class CReading(ctypes.Structure):
    """Hold how records begin, where their rows go, and the run that the last call found."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("shapes", "output", "prefixes", "texts", "ends", "deltas")
        ),
        *((name, ctypes.c_uint64) for name in ("records_max", "at", "left")),
        *((name, ctypes.c_int64) for name in ("least_delta", "most_delta")),
        *((name, ctypes.c_uint64) for name in ("records", "row_class", "session")),
        *((name, ctypes.c_uint64) for name in ("first_sequence", "value_at", "value_bytes")),
        ("delta", ctypes.c_int64),
    )


_SIDE: Final = np.dtype([("keys", "<u8"), ("sizes", "<u8"), ("used", "<u4"), ("room", "<u4")])
BOOK: Final = np.dtype(
    [
        ("sides", _SIDE, 2),
        ("last", "<u8"),
        ("limit", "<u4"),
        ("rule", "u1"),
        ("is_lent", "u1"),
        ("spare", "u1", 2),
    ]
)


class UpdateResult(IntEnum):
    """Name what became of an update of a book."""

    LEFT = 0
    DONE = 1
    APPLIED = 2  # the book is crossed or too long now


class CDurations(ctypes.Structure):
    """Durations by bins."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("counts", "sums", "edges")),
        ("bins", ctypes.c_uint64),
    )


class CRowCounts(ctypes.Structure):
    """The memory that rows are counted into."""

    _fields_ = (
        ("feed_of", ctypes.c_void_p),
        ("instruments", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("seen_rows", "seen_recv", "seen_event")),
        *((name, ctypes.c_void_p) for name in ("last_recv", "least_raw", "rows")),
        ("lag", CDurations),
        ("waited", CDurations),
        ("row_bytes", ctypes.c_uint32),
        ("wanted", ctypes.c_uint16),
        ("no_raw", ctypes.c_uint16),
        ("kind", ctypes.c_uint8),
        ("are_updates", ctypes.c_uint8),
        ("spare", ctypes.c_uint8 * 6),
    )


# In the order of `native_size`.
SIZES: Final = (
    OPERATION.itemsize,
    SHAPE.itemsize,
    SYMBOL.itemsize,
    ctypes.sizeof(CShapes),
    ctypes.sizeof(COutput),
    ctypes.sizeof(CTake),
    FIELD.itemsize,
    KNOWN.itemsize,
    ctypes.sizeof(CWriter),
    PREFIX.itemsize,
    ctypes.sizeof(CReading),
    BOOK.itemsize,
    UPDATE.itemsize,
    np.dtype(HEADER).itemsize,
    ctypes.sizeof(CRowCounts),
)


def address(array: NDArray[np.generic]) -> int:
    """Return where an array's memory begins. The array must be kept as long as C uses it."""
    return int(array.ctypes.data)
