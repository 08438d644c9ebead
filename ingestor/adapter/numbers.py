"""Types and readers of numbers, as venues write them in JSON and as our fields can hold them.

Types for msgspec's structs check an integer while it is parsed, which costs nothing. A price or a
size is `Any` there, with `float_hook=str`: text and bare numbers then have the same digits, and
what is neither is refused when the columns are sealed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta

from ingestor.model.decimals import INT64_MAX, format_decimal
from ingestor.model.integers import Integers
from ingestor.model.timestamps import MICROSECOND, MILLISECOND, TIME_MAX, TIME_MIN

Sequential = Annotated[int, Meta(ge=0, le=INT64_MAX)]  # a number of a trade or an update; 0 = none
Counted = Annotated[int, Meta(ge=1, le=INT64_MAX)]  # the same, where the venue always has one
Milliseconds = Annotated[
    int, Meta(ge=TIME_MIN // MILLISECOND, le=TIME_MAX // MILLISECOND)
]  # since the epoch
# Milliseconds, or microseconds where that was asked for: `either_ns` tells them apart.
MilliOrMicroseconds = Annotated[int, Meta(ge=TIME_MIN // MILLISECOND, le=TIME_MAX // MICROSECOND)]
Nanoseconds = Annotated[int, Meta(ge=TIME_MIN, le=TIME_MAX)]

_PLAIN: Final = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)
_TIME_DIGITS_MAX: Final = 19
_FEW: Final = 16  # so many texts are read faster one by one

parse_levels: Final = msgspec.json.Decoder(list[list[Any]], float_hook=str).decode


def plain_integers(texts: Sequence[str]) -> Integers:
    """Return integers that are written with ASCII digits alone. Raises ValueError for others, such
    as those with a sign, with blanks, or with underscores."""
    if len(texts) > _FEW:
        raw = "\n".join(texts).encode()
        if raw.translate(None, b"0123456789") == b"\n" * (len(texts) - 1):
            values = np.fromstring(raw, np.int64, sep="\n")  # leaves out what is empty
            if len(values) == len(texts) and np.maximum.reduce(values) < INT64_MAX:  # its ceiling
                return values
    digits = "".join(texts).encode()
    if not digits.isdigit():  # of bytes: ASCII alone, and faster than of text
        raise ValueError(f"{digits[:40]!r} has more than digits")
    return list(map(int, texts))


def scaled_text(value: int, exponent: int) -> str:
    """Return a scaled integer as decimal text: 1234500 with exponent 4 is "123.4500".

    Raises ValueError for what is no integer of 63 bits.
    """
    if type(value) is not int or not -INT64_MAX <= value <= INT64_MAX:
        raise ValueError(f"{value!r:.40} is no integer of 63 bits")
    return format_decimal(value, exponent)


def unsigned(text: object) -> tuple[str, bool]:
    """Return a number's text without its sign, and whether it was negative.

    A number that msgspec read as an integer is taken too. Raises ValueError for anything else.
    """
    if type(text) is int:
        text = str(text)
    if type(text) is not str or not text:
        raise ValueError(f"{text!r:.40} is no number")
    return (text[1:], True) if text[0] == "-" else (text, False)


def decimal_ns(value: object, unit_ns: int) -> int:
    """Return a time that is a decimal number of seconds, or of another unit, exactly as ns.

    Args:
        value: decimal text, or an integer.
        unit_ns: ns in one unit: SECOND or MILLISECOND.

    Raises:
        ValueError: for what is no plain decimal, and for a time outside 2010 to 2100.
    """
    text = str(value) if type(value) is int else value
    if type(text) is not str or _PLAIN.fullmatch(text) is None:
        raise ValueError(f"{value!r:.40} is no time")
    whole, _, part = text.partition(".")
    digits = len(str(unit_ns)) - 1
    if len(whole) > _TIME_DIGITS_MAX:
        raise ValueError(f"{text:.40} is no time between 2010 and 2100")
    ns = int(whole) * unit_ns + int(part[:digits].ljust(digits, "0") or "0")
    if not TIME_MIN <= ns <= TIME_MAX:
        raise ValueError(f"{text:.40} is no time between 2010 and 2100")
    return ns
