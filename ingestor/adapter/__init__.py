"""Define the contract between the program and a venue: the only package that a feed imports."""

from ingestor.adapter.contract import (
    Ack,
    Audited,
    BookRule,
    Continuity,
    Control,
    DecodeMany,
    DecodesMany,
    Endpoint,
    FeedAdapter,
    Filtered,
    Limits,
    Market,
    Notice,
    Reconnect,
    Refused,
    Reply,
    RestRequest,
    RestSnapshot,
    SnapshotSource,
    Subscription,
)
from ingestor.adapter.grouping import (
    by_kind,
    flat,
)
from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealing import ColumnReader, set_column
from ingestor.model.decimals import (
    INT64_MAX,
)
from ingestor.model.errors import (
    BadNumber,
    DecodeError,
    UnknownInstrument,
    UnknownMessage,
)
from ingestor.model.instruments import (
    Contract,
    Instrument,
    SizeUnit,
    instrument,
)
from ingestor.model.rows import (
    Cause,
    Flag,
    Rows,
    Side,
)
from ingestor.model.timestamps import (
    MILLISECOND,
    SECOND,
    iso_column_ns,
    iso_ns,
    iso_text,
    milliseconds_ns,
)

__all__ = [
    "INT64_MAX",
    "MILLISECOND",
    "SECOND",
    "Ack",
    "Audited",
    "BadNumber",
    "BookRule",
    "Cause",
    "ColumnBuffer",
    "ColumnReader",
    "Continuity",
    "Contract",
    "Control",
    "DecodeError",
    "DecodeMany",
    "DecodesMany",
    "Endpoint",
    "FeedAdapter",
    "Filtered",
    "Flag",
    "Instrument",
    "Limits",
    "Market",
    "Notice",
    "Reconnect",
    "Refused",
    "Reply",
    "RestRequest",
    "RestSnapshot",
    "Rows",
    "Side",
    "SizeUnit",
    "SnapshotSource",
    "Subscription",
    "UnknownInstrument",
    "UnknownMessage",
    "by_kind",
    "flat",
    "instrument",
    "iso_column_ns",
    "iso_ns",
    "iso_text",
    "milliseconds_ns",
    "set_column",
]
