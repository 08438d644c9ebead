"""The JSON encoding: one record per venue event, keyed `venue:market:symbol`.

schemas/*.schema.json describe the values. Trades and quotes are one row each; a book event is its
levels up to the row flagged LAST, as `bids` and `asks`; a mark (gap, reset) is a record of its
own. Prices and sizes are decimal strings with exactly as many decimals as the instrument has, so
that a reader learns the exponents from the text.

Every value is made by one `%` of a template in which whatever is constant for an instrument, kind,
side and flags is already written. The few rows that a template can't write (marks, negative
numbers) are written anew one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise, repeat
from operator import mod
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from ingestor.codec.digits import decimal_texts, integer_texts
from ingestor.codec.fields import (
    CAUSE_NAMES,
    NULL,
    Form,
    JsonField,
    decimals_of,
    id_text,
    is_whole,
    json_fields,
    names_decimals,
    number_text,
    other_fields,
    whole_numbers,
    whole_texts,
)
from ingestor.codec.record import Part, Pieces, Record, event_starts, joined, keyed
from ingestor.model.batch import Instruments
from ingestor.model.decimals import format_decimal
from ingestor.model.row_classes import ROW_CLASSES, Exponent, RowClass
from ingestor.model.rows import ABSENT, TRADE, Rows, Side

_TOGETHER_MAX: Final = 1_024  # rows; the columns of more would leave the processor's cache
_MS: Final = 1_000_000
_CODE_WORD: Final = TRADE.fields["instrument"][1] // 8  # type: ignore[index]  # it has fields
_TIMES: Final = b'"ts_event":%b,"ts_recv":%b,"sequence":%b,"flags":'
_TIMES_COUNT: Final = 3
_PAIR: Final = b'["%b","%b"]'

_Columns = list[list[bytes]]


class JsonEncoder:
    """Rows -> records. Keeps the templates of each instrument seen."""

    encoding: Final = "json"

    def __init__(self, instruments: Instruments, session: bytes) -> None:
        """instruments: by number, may grow. session: 16 bytes."""
        assert len(session) == 16
        self._instruments = instruments
        self._session = session.hex()
        self._keys = Pieces(lambda number: instruments[number].key.encode(), instruments)
        self._templates = {
            row_class: _Cache(
                partial(
                    self._book_template if row_class.has_levels else self._row_template, row_class
                )
            )
            for row_class in ROW_CLASSES
        }
        # Of each number of a class, by instrument: int64[instruments, numbers].
        self._exponents = {
            row_class: np.zeros((0, len(row_class.numbers)), np.int64) for row_class in ROW_CLASSES
        }

    def encode(self, row_class: RowClass, rows: Rows, first_sequence: int) -> list[Record]:
        """Return the records of `rows`, in order.

        Args:
            row_class: Class of the rows.
            rows: Consecutive rows of one partition.
            first_sequence: Number of the first row in its partition.
        """
        return self.encode_parts(row_class, [(rows, first_sequence)])[0]

    def encode_parts(self, row_class: RowClass, parts: Sequence[Part]) -> list[list[Record]]:
        """Return the records of each part, in order."""
        if len(parts) > 1 and sum(len(rows) for rows, _ in parts) > _TOGETHER_MAX:
            return [self.encode(row_class, *part) for part in parts]
        rows = joined([rows for rows, _ in parts])
        bounds = np.array([0, *accumulate(len(rows) for rows, _ in parts)])
        # What a row's index is to be raised by to be its sequence number, by part.
        offsets = np.array([first for _, first in parts]) - bounds[:-1]
        encode = self._book if row_class.has_levels else self._single_rows
        records, cuts = encode(row_class, rows, bounds, offsets)
        return [records[start:end] for start, end in pairwise(cuts)]

    def _single_rows(
        self,
        row_class: RowClass,
        rows: Rows,
        bounds: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> tuple[list[Record], list[int]]:
        """A record holds one row. Returns the records, and where each part's begin and end."""
        numbers = _numbers(row_class, rows)
        times = _times(rows)
        sequences = np.arange(len(rows)) + np.repeat(offsets, np.diff(bounds))
        columns = [integer_texts(sequences), *times, *self._decimals(row_class, rows, numbers)]
        columns += [
            _column(field, rows, times[-1], is_optional=field.name in row_class.optional)
            for field in other_fields(row_class)
        ]
        values = _fill(self._templates[row_class], _codes(rows), columns)
        for index in _odd(row_class, rows, numbers):
            values[index] = self._one(row_class, rows[index], int(sequences[index]))
        keys, _ = self._keys.take(rows["instrument"].astype(np.intp))
        if row_class.key_fields or row_class.is_compacted:
            keys = keyed(row_class, keys, rows)
        ts_ms = (rows["ts_recv"] // _MS).tolist()
        return list(zip(keys, values, ts_ms, repeat(1), strict=False)), bounds.tolist()

    def _book(
        self,
        row_class: RowClass,
        rows: Rows,
        bounds: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> tuple[list[Record], list[int]]:
        """A record holds consecutive rows that differ in side, price, size and LAST alone."""
        numbers = _numbers(row_class, rows)
        prices, sizes = self._decimals(row_class, rows, numbers)
        levels = list(map(mod, repeat(_PAIR), zip(prices, sizes, strict=True)))
        for index in _odd(row_class, rows, numbers):
            levels[index] = self._level(row_class, rows[index])
        starts = event_starts(rows, bounds[1:-1])
        ends = np.append(starts[1:], len(rows))
        cuts = np.searchsorted(starts, bounds)
        sequences = starts + np.repeat(offsets, np.diff(cuts))
        asks_before = np.concatenate(([0], np.cumsum(rows["side"] == Side.ASK)))
        splits = (ends - asks_before[ends] + asks_before[starts]).tolist()  # where asks begin
        spans = list(zip(starts.tolist(), splits, ends.tolist(), strict=True))
        heads = rows.take(ends - 1)
        lengths = ends - starts
        columns: _Columns = [
            integer_texts(sequences),
            integer_texts(lengths),
            *_times(heads),
            [b",".join(levels[start:split]) for start, split, _ in spans],
            [b",".join(levels[split:end]) for _, split, end in spans],
        ]
        values = _fill(self._templates[row_class], _codes(heads), columns)
        for index in np.flatnonzero(heads["kind"] != row_class.id).tolist():
            values[index] = self._control(row_class, heads[index], int(sequences[index]))
        keys, _ = self._keys.take(heads["instrument"].astype(np.intp))
        if row_class.is_compacted:
            keys = keyed(row_class, keys, heads)
        ts_ms = (heads["ts_recv"] // _MS).tolist()
        return list(zip(keys, values, ts_ms, lengths.tolist(), strict=True)), cuts.tolist()

    def _decimals(self, row_class: RowClass, rows: Rows, numbers: NDArray[np.int64]) -> _Columns:
        """Return a column of texts for each column of `numbers`. Negative ones come out as 0."""
        width = numbers.shape[1]
        if not width:
            return []
        exponents = self._exponents[row_class]
        if len(exponents) < len(self._instruments):
            known = [self._instruments[number] for number in range(len(self._instruments))]
            units = row_class.exponents
            exponents = self._exponents[row_class] = np.array(
                [
                    [decimals_of(unit, item.price_exponent, item.size_exponent) for unit in units]
                    for item in known
                ],
                np.int64,
            )
        values = np.maximum(numbers, 0).ravel().view(np.uint64)
        of_rows = exponents[rows["instrument"]]
        texts = decimal_texts(values, of_rows.ravel())
        columns = [texts[index::width] for index in range(width)]
        whole = whole_numbers(row_class)
        for index, (name, unit) in enumerate(row_class.numbers.items()):
            if whole[index]:
                columns[index] = whole_texts(
                    unit,
                    numbers[:, index],
                    rows,
                    of_rows[:, index],
                    is_optional=name in row_class.optional,
                )
        return columns

    def _prefix(self, code: int, row_class: RowClass) -> bytes:
        one = self._instruments[_instrument(code)]
        kind = ROW_CLASSES.kind_name(_kind(code))
        return value_prefix(one.key, one.revision, row_class, self._session, kind)

    def prefix(self, number: int, row_class: RowClass) -> bytes:
        """Return how every value of an instrument's rows begins, up to its sequence number."""
        return self._prefix(number | row_class.id << 56, row_class)

    def _row_template(self, row_class: RowClass, code: int) -> bytes:
        fields = [field for field in json_fields(row_class) if field.name != "side"]
        if _kind(code) != row_class.id:  # written as a control row: swallow all arguments
            return b"%.0a" * (1 + _TIMES_COUNT + len(fields))
        parts = [self._prefix(code, row_class).replace(b"%", b"%%"), b'%b,"rows":1,', _TIMES]
        parts.append(b"%d," % _flags(code) + self._constants(row_class, code))
        forms = [b'"%b":%%b' if is_whole(row_class, field) else b'"%b":"%%b"' for field in fields]
        names = [field.name.encode() for field in fields]
        return b"".join(parts) + b",".join(map(mod, forms, names)) + b"}"

    def _constants(self, row_class: RowClass, code: int) -> bytes:
        """Return the fields that are equal in all rows of a code, each with a comma behind it."""
        constants = b""
        if names_decimals(row_class):
            one = self._instruments[_instrument(code)]
            constants = b'"decimals":[%d,%d],' % (one.price_exponent, one.size_exponent)
        if "side" in row_class.names:
            constants += b'"side":"%b",' % row_class.names["side"][_side(code)].encode()
        return constants

    def _book_template(self, row_class: RowClass, code: int) -> bytes:
        prefix = self._prefix(code, row_class).replace(b"%", b"%%")
        flags = b"%d," % _flags(code)
        return prefix + b'%b,"rows":%b,' + _TIMES + flags + b'"bids":[%b],"asks":[%b]}'

    def _level(self, row_class: RowClass, row: np.void) -> bytes:
        one = self._instruments[int(row["instrument"])]
        price, size = (
            number_text(unit, int(row[name]), one.price_exponent, one.size_exponent)
            for name, unit in row_class.numbers.items()
        )
        return f'["{price}","{size}"]'.encode()

    def _one(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        """Write one row the long way: a control row, or one with a negative number."""
        if row["kind"] != row_class.id:
            return self._control(row_class, row, sequence)
        one = self._instruments[int(row["instrument"])]
        fields: dict[str, object] = {}
        if names_decimals(row_class):
            fields["decimals"] = [one.price_exponent, one.size_exponent]
        fields |= row_values(row_class, row, one.price_exponent, one.size_exponent)
        return self._start(row_class, row, sequence) + orjson.dumps(fields)[1:]

    def _control(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        one = self._instruments[int(row["instrument"])]
        control = row.view(row_class.control)
        fields = {
            "cause": CAUSE_NAMES[int(control["cause"])],
            "first": int(control["first"]),
            "last": int(control["last"]),
            "decimals": [one.price_exponent, one.size_exponent],
        }
        return self._start(row_class, row, sequence) + orjson.dumps(fields)[1:]

    def _start(self, row_class: RowClass, row: np.void, sequence: int) -> bytes:
        code = int(_codes(row.reshape(1))[0])
        times = tuple(b"%d" % row[field] for field in ("ts_event", "ts_recv", "sequence"))
        prefix = self._prefix(code, row_class)
        return prefix + b'%d,"rows":1,' % sequence + _TIMES % times + b"%d," % _flags(code)


def value_prefix(
    key: str, revision: int, row_class: RowClass, session: str, kind: str | None = None
) -> bytes:
    """Return how every value of an instrument's rows begins, up to its sequence number.

    Args:
        key: of the instrument.
        revision: of its metadata.
        row_class: of the rows.
        session: of the publisher, 32 hexadecimal digits.
        kind: the name of their kind; None: the class's own.
    """
    venue, market, symbol = (orjson.dumps(part).decode() for part in key.split(":", 2))
    return (
        f'{{"venue":{venue},"market":{market},"symbol":{symbol},"revision":{revision},'
        f'"channel":"{row_class.channel}","kind":"{kind or row_class.kind_name}",'
        f'"session":"{session}","seq":'
    ).encode()


def row_values(
    row_class: RowClass, row: np.void, price_exponent: int, size_exponent: int
) -> dict[str, object]:
    """Return what stands behind the header of a record of one row, as JSON types.

    Args:
        row_class: its class.
        row: the row, no control row.
        price_exponent: of its instrument.
        size_exponent: of its instrument.
    """
    values: dict[str, object] = {}
    own = int(row["exponent"]) if Exponent.OWN in row_class.exponents else 0
    for field in json_fields(row_class):
        number, *low = (int(row[name]) for name in field.sources)
        if number == ABSENT and field.name in row_class.optional:
            values[field.name] = None
        elif field.exponent is Exponent.OWN:
            values[field.name] = format_decimal(number, own)
        elif field.exponent is not None:
            text = number_text(field.exponent, number, price_exponent, size_exponent)
            values[field.name] = text
        elif field.form is Form.ID:
            values[field.name] = id_text(number, *low)
        else:
            values[field.name] = field.names[number] if field.names else number
    return values


class _Cache(dict[int, bytes]):
    """Keep the result of `make` for each number."""

    def __init__(self, make: Callable[[int], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, number: int) -> bytes:
        made = self[number] = self._make(number)
        return made


def _fill(templates: _Cache, codes: NDArray[np.uint64], columns: _Columns) -> list[bytes]:
    return list(map(mod, map(templates.__getitem__, codes.tolist()), zip(*columns, strict=True)))


def _numbers(row_class: RowClass, rows: Rows) -> NDArray[np.int64]:
    """Return int64[rows, numbers of the class]."""
    numbers = np.empty((len(rows), len(row_class.numbers)), np.int64)
    for index, name in enumerate(row_class.numbers):
        numbers[:, index] = rows[name]
    return numbers


def _times(rows: Rows) -> _Columns:
    """Return the texts of ts_event, ts_recv and sequence."""
    fields = ("ts_event", "ts_recv", "sequence")
    return [integer_texts(np.ascontiguousarray(rows[field])) for field in fields]


def _column(
    field: JsonField, rows: Rows, sequences: list[bytes], *, is_optional: bool
) -> list[bytes]:
    """Return the texts of a field that is no decimal number.

    Args:
        field: the field.
        rows: at least one.
        sequences: the texts of the rows' sequence numbers.
        is_optional: whether it may be absent.
    """
    first = rows[field.sources[0]]
    if is_optional:
        return [NULL if value == ABSENT else b"%d" % value for value in first.tolist()]
    if field.form is Form.ID:
        low = rows[field.sources[1]]
        if first.any():
            ids = map(id_text, first.tolist(), low.tolist())
            return [text.encode() for text in ids]
        if (low == rows["sequence"]).all():  # most venues count trades by their ids
            return sequences
        return integer_texts(np.ascontiguousarray(low))
    if field.form is Form.NAME:
        # (A control row may have any number there; it is written anew.)
        return [field.names.get(value, "").encode() for value in first.tolist()]
    wide: Any = np.int64 if first.dtype.kind == "i" else np.uint64
    return integer_texts(first.astype(wide))


def _odd(row_class: RowClass, rows: Rows, numbers: NDArray[np.int64]) -> list[int]:
    """Return the rows that no template can write: control rows, and those with negative numbers
    that `whole_texts` doesn't write.
    """
    whole = whole_numbers(row_class)
    if any(whole):
        numbers = numbers[:, [not item for item in whole]]
    has_negatives = numbers.size and numbers.min() < 0
    if rows["kind"].tobytes().count(row_class.id) == len(rows) and not has_negatives:
        return []
    is_odd = (rows["kind"] != row_class.id) | (numbers < 0).any(axis=1)
    odd: list[int] = np.flatnonzero(is_odd).tolist()
    return odd


def _codes(rows: Rows) -> NDArray[np.uint64]:
    """Return what decides a row's template, as it stands in the row: uint64[n] of instrument (32
    bits), flags (16), side (8) and kind (8).
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    return words[_CODE_WORD :: rows.dtype.itemsize // 8]


def _instrument(code: int) -> int:
    return code & 0xFFFFFFFF


def _flags(code: int) -> int:
    return code >> 32 & 0xFFFF


def _side(code: int) -> int:
    return code >> 48 & 0xFF


def _kind(code: int) -> int:
    return code >> 56
