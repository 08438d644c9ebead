"""Turn frequent frames into rows in C, where a library was compiled; README.md explains it."""

from ingestor.native.layouts import FieldKind
from ingestor.native.library import Native, native
from ingestor.native.records import Field, RecordWriter, Written, crc32c
from ingestor.native.steps import CompiledShape, Step
from ingestor.native.taker import FrameTaker, Taken, TakenRows

__all__ = [
    "CompiledShape",
    "Field",
    "FieldKind",
    "FrameTaker",
    "Native",
    "RecordWriter",
    "Step",
    "Taken",
    "TakenRows",
    "Written",
    "crc32c",
    "native",
]
