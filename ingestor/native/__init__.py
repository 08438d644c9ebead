"""Turn frequent frames into rows in C, where a library was compiled; README.md explains it."""

from ingestor.native.books import LentBooks
from ingestor.native.flush import PYTHON_WAY, Durations, RowCounts, TradeFollower, take_highest
from ingestor.native.layouts import (
    RECORD_FIRST,
    RECORD_ROWS,
    FieldKind,
    Op,
    ReadResult,
    UpdateResult,
)
from ingestor.native.library import Native, native
from ingestor.native.reading import KnownPrefix, ReadRun, RecordReader
from ingestor.native.records import Field, RecordWriter, Written, crc32c
from ingestor.native.steps import CompiledShape, Step, as_printed
from ingestor.native.taker import FrameCounter, FrameTaker, Taken, TakenRows

__all__ = [
    "PYTHON_WAY",
    "RECORD_FIRST",
    "RECORD_ROWS",
    "CompiledShape",
    "Durations",
    "Field",
    "FieldKind",
    "FrameCounter",
    "FrameTaker",
    "KnownPrefix",
    "LentBooks",
    "Native",
    "Op",
    "ReadResult",
    "ReadRun",
    "RecordReader",
    "RecordWriter",
    "RowCounts",
    "Step",
    "Taken",
    "TakenRows",
    "TradeFollower",
    "UpdateResult",
    "Written",
    "as_printed",
    "crc32c",
    "native",
    "take_highest",
]
