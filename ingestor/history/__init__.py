"""Read recordings, Parquet files and topics back through one interface."""

from ingestor.history.readable import (
    Form,
    Readable,
)
from ingestor.history.recordings import (
    Recording,
    open,  # noqa: A004  # called as history.open, as one opens a file
)
from ingestor.model.timestamps import Time, time_ns

__all__ = [
    "Form",
    "Readable",
    "Recording",
    "Time",
    "open",
    "time_ns",
]
