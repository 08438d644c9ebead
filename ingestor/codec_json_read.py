"""Reading the JSON encoding back into the rows that were written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from ingestor.batch import TickBatch
from ingestor.codec_json import CAUSE_NAMES, KIND_NAMES, NUMBERS, SIDE_NAMES
from ingestor.codec_wire import CodecError, Decoded, WireInstrument
from ingestor.rows import CLASS_OF, DTYPE_OF, MARK_FIELDS, Flag, Kind, RowClass, Rows, Side

_KINDS: Final = {name: kind for kind, name in KIND_NAMES.items()}
_SIDES: Final = {name: side for side, name in SIDE_NAMES.items()}
_CAUSES: Final = {name: cause for cause, name in CAUSE_NAMES.items()}
_MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
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
        rows = np.zeros(message["rows"], DTYPE_OF[row_class])
        rows["ts_event"] = message["ts_event"]
        rows["ts_recv"] = message["ts_recv"]
        rows["sequence"] = message["sequence"]
        rows["flags"] = message["flags"]
        rows["kind"] = kind
        exponents = _READERS.get(kind, _read_mark)(row_class, rows, message)
        instruments = _instruments(message, exponents)
        return Decoded(session, message["seq"], TickBatch(row_class, rows, instruments))
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


def _read_trade(row_class: RowClass, rows: Rows, message: Any) -> tuple[int, int]:
    rows["side"] = _SIDES[message["side"]]
    trade_id = message["trade_id"]
    if "-" in trade_id:
        number = int(trade_id.replace("-", ""), 16)
        rows["trade_id_high"], rows["trade_id_low"] = number >> 64, number & (1 << 64) - 1
    else:
        rows["trade_id_low"] = int(trade_id)
    return _read_numbers(row_class, rows, message)


def _read_numbers(row_class: RowClass, rows: Rows, message: Any) -> tuple[int, int]:
    for field in NUMBERS[row_class]:
        rows[field] = int(message[field].replace(".", "", 1))
    price, size = (_decimals(message[field]) for field in NUMBERS[row_class][:2])
    return price, size


def _read_book(row_class: RowClass, rows: Rows, message: Any) -> tuple[int, int]:
    bids, levels = len(message["bids"]), message["bids"] + message["asks"]
    rows["side"][:bids] = Side.BID
    rows["side"][bids:] = Side.ASK
    rows["flags"][:-1] &= ~np.uint16(Flag.LAST)
    rows["price"] = [int(price.replace(".", "", 1)) for price, _ in levels]
    rows["size"] = [int(size.replace(".", "", 1)) for _, size in levels]
    return _decimals(levels[0][0]), _decimals(levels[0][1])


def _read_mark(row_class: RowClass, rows: Rows, message: Any) -> tuple[int, int]:
    rows["side"] = _CAUSES[message["cause"]]
    first, last = MARK_FIELDS[row_class]
    rows[first], rows[last] = message["first"], message["last"]
    price, size = message["decimals"]
    return price, size


_READERS: Final[dict[Kind, Callable[[RowClass, Rows, Any], tuple[int, int]]]] = {
    Kind.TRADE: _read_trade,
    Kind.QUOTE: _read_numbers,
    Kind.LEVEL: _read_book,
}


def _decimals(text: str) -> int:
    return len(text) - 1 - text.index(".") if "." in text else 0


def _instruments(message: Any, exponents: tuple[int, int]) -> list[WireInstrument]:
    key = f"{message['venue']}:{message['market']}:{message['symbol']}"
    identity = (key, *exponents, message["revision"])
    found = _known.get(identity)
    if found is None:
        if len(_known) >= _INSTRUMENTS_MAX:
            _known.clear()
        found = _known[identity] = [WireInstrument(*identity)]
    return found
