"""Reading the JSON encoding back into the rows that were written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from struct import Struct
from typing import Any, Final

import numpy as np
import orjson

from ingestor.codec.fields import (
    CAUSE_NAMES,
    Form,
    JsonField,
    json_fields,
    names_decimals,
    row_struct,
)
from ingestor.codec.record import CodecError, Decoded, WireInstrument
from ingestor.model.batch import TickBatch
from ingestor.model.decimals import parse_decimal
from ingestor.model.errors import MALFORMED
from ingestor.model.row_classes import RATE_EXPONENT, ROW_CLASSES, Exponent, RowClass
from ingestor.model.rows import ABSENT, Flag, Kind, Side

_CONTROLS: Final = {ROW_CLASSES.kind_name(kind): kind for kind in (Kind.GAP, Kind.RESET)}
_CAUSES: Final = {name: cause for cause, name in CAUSE_NAMES.items()}
_LEVEL: Final = Struct(row_struct(RowClass.LEVEL))
_FLAGS: Final = Struct("<H")
_FLAGS_AT: Final = 28  # offset of `flags` in a row
_LAST: Final = int(Flag.LAST)
_UINT64_MAX: Final = 2**64 - 1
_INSTRUMENTS_MAX: Final = 100_000

_known: dict[tuple[str, int, int, int], list[WireInstrument]] = {}


def decode(value: bytes) -> Decoded:
    """Read a record's value. The batch's instrument table holds the record's one instrument.

    Raises CodecError for what does not follow the schema.
    """
    try:
        message = orjson.loads(value)
        session = bytes.fromhex(message["session"])
        row_class = ROW_CLASSES.of_channel(message["channel"])
        control = _CONTROLS.get(message["kind"])
        if control is not None:
            packed, exponents = _read_control(row_class, control, message)
        elif message["kind"] != row_class.kind_name:
            raise CodecError(f"a record of {message['kind']} among {row_class.channel}")
        elif row_class.has_levels:
            packed, exponents = _read_book(row_class.id, message)
        else:
            packed, exponents = _reader(row_class)(message)
        rows = np.frombuffer(packed, row_class.dtype)
        if len(rows) != message["rows"]:
            raise CodecError(f"{len(rows)} rows where {message['rows']} are announced")
        batch = TickBatch(row_class, rows, _instruments(message, exponents))
        return Decoded(session, message["seq"], batch)
    except MALFORMED as failure:
        raise CodecError(f"{type(failure).__name__}: {failure}") from failure


def position(value: bytes) -> tuple[bytes, int, int]:
    """Return (session, first sequence number, rows) of a record's value.

    Raises CodecError for what does not follow the schema.
    """
    try:
        message = orjson.loads(value)
        return bytes.fromhex(message["session"]), message["seq"], message["rows"]
    except MALFORMED as failure:
        raise CodecError(f"{type(failure).__name__}: {failure}") from failure


_Packed = tuple[bytes | bytearray, tuple[int, int]]  # rows, and the exponents of price and size


@cache
def _reader(row_class: RowClass) -> Callable[[Any], _Packed]:
    """Return what reads the records of one row of a class."""
    pack, kind = Struct(row_struct(row_class)).pack, row_class.id
    sides = {name: int(side) for side, name in row_class.names.get("side", {}).items()}
    made_of = {
        source: (field.name, parse)
        for field in json_fields(row_class)
        for source, parse in zip(field.sources, _parsers(row_class, field), strict=True)
    }
    parts = [made_of[name] for name in row_class.fields]
    telling = {
        unit: name
        for name, unit in reversed([*row_class.numbers.items()])
        if name not in row_class.optional
    }
    price, size = telling.get(Exponent.PRICE), telling.get(Exponent.SIZE)
    is_told = names_decimals(row_class)

    def read(message: Any) -> _Packed:
        packed = pack(
            message["ts_event"],
            message["ts_recv"],
            message["sequence"],
            0,
            message["flags"],
            sides[message["side"]] if sides else 0,
            kind,
            *[parse(message[name]) for name, parse in parts],
        )
        if is_told:
            price_exponent, size_exponent = message["decimals"]
            return packed, (price_exponent, size_exponent)
        return packed, (_decimals(message[price]), _decimals(message[size]))

    return read


def _parsers(row_class: RowClass, field: JsonField) -> Sequence[Callable[[Any], int]]:
    """Return what makes the fields of the row of a field of the record."""
    parsers = _parsers_of_form(field)
    if field.name not in row_class.optional:
        return parsers
    return [partial(_or_absent, parse) for parse in parsers]


def _or_absent(parse: Callable[[Any], int], value: Any) -> int:
    return ABSENT if value is None else parse(value)


def _parsers_of_form(field: JsonField) -> Sequence[Callable[[Any], int]]:
    if field.form is Form.NUMBER:
        is_rate = field.exponent is Exponent.RATE
        return [partial(parse_decimal, exponent=RATE_EXPONENT) if is_rate else _digits]
    if field.form is Form.ID:
        return [_high_half, _low_half]
    if field.form is Form.NAME:
        return [{name: value for value, name in field.names.items()}.__getitem__]
    return [int]


def _high_half(text: str) -> int:
    return int(text.replace("-", ""), 16) >> 64 if "-" in text else 0


def _low_half(text: str) -> int:
    return int(text.replace("-", ""), 16) & _UINT64_MAX if "-" in text else int(text)


def _read_book(kind: int, message: Any) -> _Packed:
    bids, asks, flags = message["bids"], message["asks"], message["flags"]
    head = (message["ts_event"], message["ts_recv"], message["sequence"], 0)
    before_last = flags & ~_LAST
    packed = bytearray()
    for side, side_levels in ((Side.BID, bids), (Side.ASK, asks)):
        number = int(side)
        for price, size in side_levels:
            packed += _LEVEL.pack(*head, before_last, number, kind, _digits(price), _digits(size))
    _FLAGS.pack_into(packed, len(packed) - _LEVEL.size + _FLAGS_AT, flags)
    price, size = (bids or asks)[0]
    return packed, (_decimals(price), _decimals(size))


def _read_control(row_class: RowClass, kind: Kind, message: Any) -> _Packed:
    row = np.zeros(1, row_class.control)
    for name in ("ts_event", "ts_recv", "sequence", "flags", "first", "last"):
        row[name] = message[name]
    row["kind"], row["cause"] = kind, _CAUSES[message["cause"]]
    price, size = message["decimals"]
    return row.tobytes(), (price, size)


def _digits(text: str) -> int:
    return int(text.replace(".", "", 1))


def _decimals(text: str) -> int:
    return len(text) - 1 - text.index(".") if "." in text else 0


def _instruments(message: Any, exponents: tuple[int, int]) -> list[WireInstrument]:
    identity = (
        f"{message['venue']}:{message['market']}:{message['symbol']}",
        *exponents,
        message["revision"],
    )
    found = _known.get(identity)
    if found is None:
        if len(_known) >= _INSTRUMENTS_MAX:
            _known.clear()
        found = _known[identity] = [WireInstrument(*identity)]
    return found
