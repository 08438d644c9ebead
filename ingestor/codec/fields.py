"""Describe the fields of a JSON record behind its header, for any class of rows.

The writer, the reader, the schema and `ingestor consume` follow this description. Book levels have
a form of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.decimals import EXPONENT_MAX, format_decimal
from ingestor.model.row_classes import OWN_EXPONENT_MAX, RATE_EXPONENT, Exponent, RowClass
from ingestor.model.rows import ABSENT, Cause, Rows

NO_CAUSE: Final = "none"
NULL: Final = b"null"  # what the venue doesn't say
CAUSE_NAMES: Final = {0: NO_CAUSE, **{int(cause): cause.name.lower() for cause in Cause}}

_CODES: Final = {"i8": "q", "u8": "Q", "i4": "i", "u4": "I", "i2": "h", "u2": "H", "u1": "B"}
assert RATE_EXPONENT <= EXPONENT_MAX


class Form(Enum):
    """Name the form in which a field is written."""

    NUMBER = "number"  # decimal text with exactly as many decimals as its exponent
    ID = "id"  # text: decimal digits, or a UUID where it is wider than 64 bits
    NAME = "name"  # one of some names
    INTEGER = "integer"


@dataclass(frozen=True, slots=True)
class JsonField:
    """One field of a record. sources: the fields of the row that it is made of."""

    name: str
    form: Form
    sources: tuple[str, ...]
    exponent: Exponent | None = None
    names: Mapping[int, str] = field(default_factory=dict)


@cache
def json_fields(row_class: RowClass) -> tuple[JsonField, ...]:
    """Return the fields of a record of one row: the side, the numbers, and all others."""
    fields = [
        JsonField(name, Form.NUMBER, (name,), unit) for name, unit in row_class.numbers.items()
    ]
    if "side" in row_class.names:
        fields.insert(0, JsonField("side", Form.NAME, ("side",), names=row_class.names["side"]))
    id_of = {pair[0]: (name, pair) for name, pair in row_class.ids.items()}
    written = {*row_class.numbers, *(pair[1] for pair in row_class.ids.values())}
    for name in row_class.fields:
        if name in id_of:
            fields.append(JsonField(id_of[name][0], Form.ID, id_of[name][1]))
        elif name in row_class.names:
            fields.append(JsonField(name, Form.NAME, (name,), names=row_class.names[name]))
        elif name not in written:
            fields.append(JsonField(name, Form.INTEGER, (name,)))
    return tuple(fields)


@cache
def other_fields(row_class: RowClass) -> tuple[JsonField, ...]:
    """Return the fields behind the numbers."""
    fields = json_fields(row_class)
    return tuple(
        field for field in fields if field.form is not Form.NUMBER and field.name != "side"
    )


@cache
def number_fields(row_class: RowClass) -> tuple[JsonField, ...]:
    """Return the fields that hold decimal numbers."""
    return tuple(
        json_field for json_field in json_fields(row_class) if json_field.form is Form.NUMBER
    )


def is_whole(row_class: RowClass, field: JsonField) -> bool:
    """Return whether a field's texts are written with their quotes, or have none: integers, what
    may be `null`, and numbers whose decimals differ from row to row.
    """
    may_be_null = field.name in row_class.optional
    return field.form is Form.INTEGER or may_be_null or field.exponent is Exponent.OWN


@cache
def whole_numbers(row_class: RowClass) -> tuple[bool, ...]:
    """Return `is_whole` of each decimal number."""
    return tuple(is_whole(row_class, field) for field in number_fields(row_class))


def whole_texts(
    unit: Exponent,
    numbers: NDArray[np.int64],
    rows: Rows,
    exponents: NDArray[np.int64],
    *,
    is_optional: bool,
) -> list[bytes]:
    """Return numbers as JSON, quoted, `null` where they are absent.

    Args:
        unit: of the numbers.
        numbers: int64[rows].
        rows: the rows.
        exponents: int64[rows], where the unit is not OWN.
        is_optional: whether they may be absent.
    """
    if unit is Exponent.OWN:  # a control row may have any number there; it is written anew
        exponents = np.minimum(rows["exponent"], OWN_EXPONENT_MAX)
    absent = ABSENT if is_optional else None
    return [
        NULL if value == absent else b'"%b"' % format_decimal(value, exponent).encode()
        for value, exponent in zip(numbers.tolist(), exponents.tolist(), strict=True)
    ]


@cache
def names_decimals(row_class: RowClass) -> bool:
    """Return whether records say `decimals`, since their numbers don't tell both exponents."""
    always = {unit for name, unit in row_class.numbers.items() if name not in row_class.optional}
    return not {Exponent.PRICE, Exponent.SIZE} <= always


@cache
def row_struct(row_class: RowClass) -> str:
    """Return the format of a row for `struct`."""
    dtype = row_class.dtype
    return "<" + "".join(_CODES[dtype[name].str[1:]] for name in dtype.names or ())


def id_text(high: int, low: int) -> str:
    """Return a 128-bit id: decimal digits, or a UUID where it is wider than 64 bits."""
    if high == 0:
        return str(low)
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def decimals_of(exponent: Exponent, price_exponent: int, size_exponent: int) -> int:
    """Return how many decimals a number has.

    Args:
        exponent: The number's kind or its own exponent.
        price_exponent: That of its instrument.
        size_exponent: That of its instrument.
    """
    if exponent is Exponent.PRICE:
        return price_exponent
    return size_exponent if exponent is Exponent.SIZE else RATE_EXPONENT


def number_text(exponent: Exponent, value: int, price_exponent: int, size_exponent: int) -> str:
    """Return the decimal text of a number.

    Args:
        exponent: The number's kind or its own exponent.
        value: The integer in a row.
        price_exponent: That of its instrument.
        size_exponent: That of its instrument.
    """
    return format_decimal(value, decimals_of(exponent, price_exponent, size_exponent))
