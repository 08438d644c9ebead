"""Types and readers of numbers, as venues write them in JSON and as our fields can hold them.

Types for msgspec's structs check an integer while it is parsed, which costs nothing. A price or a
size is `Any` there, with `float_hook=str`: text and bare numbers then have the same digits, and
what is neither is refused when the columns are sealed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ingestor.model.decimals import INT64_MAX, format_decimal, parse_decimal
from ingestor.model.timestamps import MICROSECOND, MILLISECOND, SECOND, TIME_MAX, TIME_MIN

Sequential = Annotated[int, Meta(ge=0, le=INT64_MAX)]  # a number of a trade or an update; 0 = none
Counted = Annotated[int, Meta(ge=1, le=INT64_MAX)]  # the same, where the venue always has one
Milliseconds = Annotated[
    int, Meta(ge=TIME_MIN // MILLISECOND, le=TIME_MAX // MILLISECOND)
]  # since the epoch
# Milliseconds, or microseconds where that was asked for: `either_ns` tells them apart.
MilliOrMicroseconds = Annotated[int, Meta(ge=TIME_MIN // MILLISECOND, le=TIME_MAX // MICROSECOND)]
Nanoseconds = Annotated[int, Meta(ge=TIME_MIN, le=TIME_MAX)]

_DIGITS_MAX: Final = 19  # of an integer of 63 bits

parse_levels: Final = msgspec.json.Decoder(list[list[Any]], float_hook=str).decode


def whole_number(value: object) -> int:
    """Return an integer that a venue writes bare or as text.

    Raises ValueError for what is none, what is negative, and what is beyond 63 bits.
    """
    if type(value) is str and len(value) <= _DIGITS_MAX and value.isascii() and value.isdigit():
        value = int(value)
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise ValueError(f"{value!r:.40} is no number of 63 bits")
    return value


def time_ns(value: object, unit: int = MILLISECOND) -> int:
    """Return a time as ns since the epoch.

    Args:
        value: an integer, bare or as text.
        unit: ns in 1 of it.

    Raises:
        ValueError: it is no integer, or no time between 2010 and 2100.
    """
    time = whole_number(value) * unit
    if not TIME_MIN <= time <= TIME_MAX:
        raise ValueError(f"{value!r:.40} is no time between 2010 and 2100")
    return time


def optional_ns(value: object, unit: int = MILLISECOND) -> int | None:
    """Return a time as `time_ns` does; None for a null, an empty text and a zero."""
    return None if value in {None, "", "0", 0} else time_ns(value, unit)


def decimal_ns(value: object, unit_ns: int) -> int:
    """Return a decimal time as ns since the epoch, exactly; what is finer than that is cut.

    Args:
        value: decimal text, as `float_hook=str` leaves bare numbers, or an integer.
        unit_ns: ns in one unit: SECOND or MILLISECOND.

    Raises:
        ValueError: it is no plain decimal, or no time between 2010 and 2100.
    """
    text = str(value) if type(value) is int else value
    if type(text) is not str or not text.isascii():
        raise ValueError(f"{value!r:.40} is no time")
    whole, _, part = text.partition(".")
    digits = len(str(unit_ns)) - 1
    if not whole.isdigit() or (part and not part.isdigit()):
        raise ValueError(f"{text!r:.40} is no time")
    return time_ns(whole + part[:digits].ljust(digits, "0"), 1)


def seconds_ns(value: object) -> int:
    """Return a time in seconds as ns since the epoch, as `decimal_ns` does."""
    return decimal_ns(value, SECOND)


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


def plain_number(number: object, exponent: int | None) -> str:
    """Return a price or size as plain decimal text, as it is kept for quotes to come.

    Args:
        number: Decimal text, or an integer.
        exponent: The decimals that the instrument has room for; None = as many as there are.

    Raises:
        ValueError: It would be refused when the columns are sealed.
    """
    text = number if isinstance(number, str) else str(number)
    decimals = len(text.partition(".")[2]) if exponent is None else exponent
    if parse_decimal(number, decimals) < 0:
        raise ValueError(f"{text[:40]!r} is negative")
    if text.replace(".", "", 1).isdecimal():
        return text
    return format_decimal(parse_decimal(number, decimals), decimals)
