"""Reading the JSON encoding back into the rows that were written."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, error
from typing import Any, Final

import numpy as np
import orjson

from ingestor.codec.json_encoder import CAUSE_NAMES, KIND_NAMES, SIDE_NAMES
from ingestor.codec.record import CodecError, Decoded, WireInstrument
from ingestor.model.batch import TickBatch
from ingestor.model.rows import (
    CLASS_OF,
    CONTROL_FIELDS,
    DTYPE_OF,
    LEVEL,
    NUMBERS,
    QUOTE,
    TRADE,
    Flag,
    Kind,
    RowClass,
    Side,
)

_KINDS: Final = {name: kind for kind, name in KIND_NAMES.items()}
_SIDES: Final = {name: side for side, name in SIDE_NAMES.items()}
_CAUSES: Final = {name: cause for cause, name in CAUSE_NAMES.items()}
_MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, OverflowError, error)
_TRADE: Final = Struct("<qqQIHBBqqQQ")
_QUOTE: Final = Struct("<qqQIHBBqqqq")
_LEVEL: Final = Struct("<qqQIHBBqq")
_FLAGS: Final = Struct("<H")
_FLAGS_AT: Final = 28  # offset of `flags` in a row
_LAST: Final = int(Flag.LAST)
_UINT64_MAX: Final = 2**64 - 1
assert (_TRADE.size, _QUOTE.size, _LEVEL.size) == (TRADE.itemsize, QUOTE.itemsize, LEVEL.itemsize)
_INSTRUMENTS_MAX: Final = 100_000

_known: dict[tuple[str, int, int, int], list[WireInstrument]] = {}


def decode(value: bytes) -> Decoded:
    """Read a record's value. The batch's instrument table holds the record's one instrument.

    Raises CodecError for what does not follow the schema.
    """
    try:
        message = orjson.loads(value)
        session = bytes.fromhex(message["session"])
        row_class = CLASS_OF[message["channel"]]
        kind = _KINDS[message["kind"]]
        packed, exponents = _READERS.get(kind, _read_mark)(row_class, kind, message)
        rows = np.frombuffer(packed, DTYPE_OF[row_class])
        if len(rows) != message["rows"]:
            raise CodecError(f"{len(rows)} rows where {message['rows']} are announced")
        batch = TickBatch(row_class, rows, _instruments(message, exponents))
        return Decoded(session, message["seq"], batch)
    except _MALFORMED as failure:
        raise CodecError(f"{type(failure).__name__}: {failure}") from failure


def position(value: bytes) -> tuple[bytes, int, int]:
    """Return (session, first sequence number, rows) of a record's value.

    Raises CodecError for what does not follow the schema.
    """
    try:
        message = orjson.loads(value)
        return bytes.fromhex(message["session"]), message["seq"], message["rows"]
    except _MALFORMED as failure:
        raise CodecError(f"{type(failure).__name__}: {failure}") from failure


_Packed = tuple[bytes | bytearray, tuple[int, int]]  # rows, and the exponents of price and size


def _read_trade(_row_class: RowClass, kind: Kind, message: Any) -> _Packed:
    price, size, trade_id = message["price"], message["size"], message["trade_id"]
    number = int(trade_id.replace("-", ""), 16) if "-" in trade_id else int(trade_id)
    packed = _TRADE.pack(
        message["ts_event"],
        message["ts_recv"],
        message["sequence"],
        0,
        message["flags"],
        _SIDES[message["side"]],
        kind,
        _digits(price),
        _digits(size),
        number >> 64,
        number & _UINT64_MAX,
    )
    return packed, (_decimals(price), _decimals(size))


def _read_quote(_row_class: RowClass, kind: Kind, message: Any) -> _Packed:
    texts = [message[field] for field in NUMBERS[RowClass.QUOTE]]
    head = (message["ts_event"], message["ts_recv"], message["sequence"])
    packed = _QUOTE.pack(*head, 0, message["flags"], 0, kind, *map(_digits, texts))
    return packed, (_decimals(texts[0]), _decimals(texts[1]))


def _read_book(_row_class: RowClass, kind: Kind, message: Any) -> _Packed:
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


def _read_mark(row_class: RowClass, kind: Kind, message: Any) -> _Packed:
    rows = np.zeros(1, DTYPE_OF[row_class])
    for field in ("ts_event", "ts_recv", "sequence", "flags"):
        rows[field] = message[field]
    rows["kind"], rows["side"] = kind, _CAUSES[message["cause"]]
    first, last = CONTROL_FIELDS[row_class]
    rows[first], rows[last] = message["first"], message["last"]
    price, size = message["decimals"]
    return rows.tobytes(), (price, size)


_READERS: Final[dict[Kind, Callable[[RowClass, Kind, Any], _Packed]]] = {
    Kind.TRADE: _read_trade,
    Kind.QUOTE: _read_quote,
    Kind.LEVEL: _read_book,
}


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
