"""The records of JSON batches, written by the compiled library.

The values are byte for byte those of `JsonEncoder`. What a template can't write
(control rows, negative numbers) is left to it.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.codec.json_encoder import JsonEncoder
from ingestor.codec.record import Headers, event_starts
from ingestor.model.batch import Instruments
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.native import Field, FieldKind, RecordWriter, Written
from ingestor.native.records import Name

_NO_BOUNDS: Final = np.empty(0, np.int64)

_WRITTEN: Final = (RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL)


class JsonBatches:
    """Writes the records of trades, quotes and levels; the encoder writes those of others."""

    def __init__(
        self,
        library: ctypes.CDLL,
        encoder: JsonEncoder,
        instruments: Instruments,
        headers: dict[RowClass, Headers],
        bytes_max: int,
    ) -> None:
        """Create the JSON batches.

        Args:
            library: the compiled one.
            encoder: whose values they are.
            instruments: by number, may grow.
            headers: of each record, by class.
            bytes_max: of a batch before compression.
        """
        self._encoder = encoder
        self._instruments = instruments
        self._writers = {
            row_class: self._writer(library, row_class, of_class, bytes_max)
            for row_class, of_class in headers.items()
            if row_class in _WRITTEN
        }

    def write(
        self, row_class: RowClass, rows: Rows, first_sequence: int, bytes_max: int, *, lz4: bool
    ) -> tuple[Written, NDArray[np.int64]] | None:
        """Write as many records as fit.

        Args:
            row_class: Class of the rows.
            rows: Consecutive rows of one partition.
            first_sequence: Number of the first row in its partition.
            bytes_max: Most bytes of the batch.
            lz4: Compress the batch.

        Returns:
            The batch, and int64[n + 1], where the rows of each record begin and end; None where the
            encoder must write the rows.
        """
        starts = np.arange(len(rows) + 1, dtype=np.int64)
        if row_class is RowClass.LEVEL:
            starts = np.append(event_starts(rows, _NO_BOUNDS), len(rows)).astype(np.int64)
        writer = self._writers.get(row_class)
        if writer is None:
            return None
        written = writer.write(rows, starts, first_sequence, bytes_max, lz4=lz4)
        return None if written is None else (written, starts[: written.records + 1])

    def _writer(
        self, library: ctypes.CDLL, row_class: RowClass, headers: Headers, bytes_max: int
    ) -> RecordWriter:
        fields, closing = _fields(row_class)
        end = Field(closing + _headers(headers), FieldKind.END)

        def name_of(number: int) -> Name:
            one = self._instruments[number]
            prefix = self._encoder.prefix(number, row_class)
            return Name(one.key.encode(), prefix, one.price_exponent, one.size_exponent)

        return RecordWriter(library, row_class, [*fields, end], len(closing), name_of, bytes_max)


def _fields(row_class: RowClass) -> tuple[list[Field], bytes]:
    """Return the fields of a class's values behind their prefix, and what closes a value."""
    dtype = row_class.dtype.fields
    assert dtype is not None
    at = {name: int(field[1]) for name, field in dtype.items()}
    fields = [
        Field(b"", FieldKind.SEQUENCE),
        Field(b',"rows":', FieldKind.ROWS),
        Field(b',"ts_event":', FieldKind.INTEGER, at["ts_event"]),
        Field(b',"ts_recv":', FieldKind.INTEGER, at["ts_recv"]),
        Field(b',"sequence":', FieldKind.INTEGER, at["sequence"]),
        Field(b',"flags":', FieldKind.FLAGS, at["flags"]),
    ]
    if row_class is RowClass.LEVEL:
        fields += [
            Field(b',"bids":[', FieldKind.BIDS),
            Field(b'],"asks":[', FieldKind.ASKS),
        ]
        return fields, b"]}"
    quote = b","
    if row_class is RowClass.TRADE:
        fields.append(Field(b',"side":"', FieldKind.SIDE, at["side"]))
        quote = b'",'
    for index, name in enumerate(row_class.numbers):
        kind = FieldKind.SIZE if index % 2 else FieldKind.PRICE
        fields.append(Field(quote + b'"%b":"' % name.encode(), kind, at[name]))
        quote = b'",'
    if row_class is RowClass.TRADE:
        fields.append(Field(b'","trade_id":"', FieldKind.TRADE_ID, at["trade_id_high"]))
    return fields, b'"}'


def _headers(headers: Headers) -> bytes:
    """Return the headers of a record as Kafka has them."""
    encoded = [_varint(len(headers))]
    for name, value in headers:
        key = name.encode()
        encoded += [_varint(len(key)), key, _varint(len(value)), value]
    return b"".join(encoded)


def _varint(number: int) -> bytes:
    """Return a length as Kafka's records have it."""
    rest = number << 1
    encoded = bytearray()
    while rest >= 128:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
