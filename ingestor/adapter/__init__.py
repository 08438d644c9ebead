"""Define the contract between the program and a venue: the only package that a feed imports."""

from ingestor.adapter.contract import (
    Ack,
    Audited,
    AuditImage,
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
    SnapshotSource,
    Subscription,
)
from ingestor.adapter.grouping import (
    by_kind,
    flat,
)
from ingestor.columns.buffer import TickBuffer
from ingestor.columns.sealing import Reader, fill
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
    "AuditImage",
    "Audited",
    "BadNumber",
    "BookRule",
    "Cause",
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
    "Reader",
    "Reconnect",
    "Refused",
    "Reply",
    "RestRequest",
    "Rows",
    "Side",
    "SizeUnit",
    "SnapshotSource",
    "Subscription",
    "TickBuffer",
    "UnknownInstrument",
    "UnknownMessage",
    "by_kind",
    "fill",
    "flat",
    "instrument",
    "iso_column_ns",
    "iso_ns",
    "iso_text",
    "milliseconds_ns",
]
