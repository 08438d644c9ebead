"""Turn rows into Kafka records and records into rows, in JSON and in binary."""

from ingestor.codec.encoder import Encoder, decode, encoder, position
from ingestor.codec.record import (
    ENCODINGS,
    RECORD_BYTES_MAX,
    CodecError,
    Decoded,
    Headers,
    Part,
    Record,
    WireInstrument,
    headers,
    joined,
    schema_name,
)

__all__ = [
    "ENCODINGS",
    "RECORD_BYTES_MAX",
    "CodecError",
    "Decoded",
    "Encoder",
    "Headers",
    "Part",
    "Record",
    "WireInstrument",
    "decode",
    "encoder",
    "headers",
    "joined",
    "position",
    "schema_name",
]
