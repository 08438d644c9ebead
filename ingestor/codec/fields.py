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

from ingestor.model.decimals import EXPONENT_MAX, format_decimal
from ingestor.model.row_classes import RATE_EXPONENT, Exponent, RowClass
from ingestor.model.rows import Cause

NO_CAUSE: Final = "none"
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
    return tuple(one for one in fields if one.form is not Form.NUMBER and one.name != "side")


@cache
def names_decimals(row_class: RowClass) -> bool:
    """Return whether records say `decimals`, since their numbers don't tell both exponents."""
    return not {Exponent.PRICE, Exponent.SIZE} <= {*row_class.exponents}


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
