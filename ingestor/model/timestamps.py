"""Venue time text -> ns since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np

from ingestor.model.errors import ConfigError

Time = int | str | datetime  # as people write one: see `time_ns`

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
# What a venue's time can be: 2010-01-01 to 2100-01-01. Outside it is a unit taken for another, or
# nonsense.
TIME_MIN: Final = 1_262_304_000 * SECOND
TIME_MAX: Final = 4_102_444_800 * SECOND
_MILLISECONDS_MIN: Final = TIME_MIN // MILLISECOND
_MILLISECONDS_MAX: Final = TIME_MAX // MILLISECOND
# What one unit of a fraction of so many digits is.
_FRACTION_NS: Final[tuple[int, ...]] = tuple(10 ** (9 - digits) for digits in range(10))
# What one unit is of each digit from the tens of seconds on.
_DIGITS_NS: Final = 10 ** np.arange(10, -1, -1, dtype=np.int64)
_OFFSET: Final = re.compile(r"([+-])([01]\d|2[0-3]):?([0-5]\d)")  # of a zone, at the end of a time
_COLUMN_MIN: Final = 32  # fewer texts are read faster one by one
_FEW: Final = 16  # so many integers are compared faster one by one


def iso_ns(text: str) -> int:
    """Return RFC 3339 text in UTC ("2026-08-01T02:53:53.184174Z") as ns since the epoch.

    Up to nine fractional digits, all kept. Raises ValueError for anything else.
    """
    fraction = text[20:-1]
    if len(text) < 20 or text[-1] != "Z" or len(fraction) > 9 or not text.isascii():
        raise ValueError(f"{text[:40]!r} is no UTC timestamp")
    whole = _second(text[:19])
    if len(text) == 20:
        return whole
    if text[19] != "." or not fraction.isdigit():
        raise ValueError(f"{text[:40]!r} is no UTC timestamp")
    return whole + int(fraction) * _FRACTION_NS[len(fraction)]


@lru_cache(maxsize=256)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def time_ns(time: Time) -> int:
    """Return a time that a person wrote as ns since the epoch.

    Args:
        time: ns since the epoch; a datetime with a zone; or text: ns, or a date and perhaps a time
            of day, such as "2026-08-01T02:53:53.184174Z" or "2026-08-01T04:53:53+02:00". Text
            without a zone is UTC.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ConfigError(f"{time!r} has no zone")
        seconds = int(time.replace(microsecond=0).timestamp())
        return seconds * SECOND + time.microsecond * MICROSECOND
    if isinstance(time, int):
        return time
    try:
        return int(time) if time.isdecimal() else _text_ns(time)
    except ValueError:
        what = f"{time!r} is no time: ns since the epoch, or like 2026-08-01T02:53:53Z"
        raise ConfigError(what) from None


def _text_ns(text: str) -> int:
    if len(text) == len("2026-08-01"):
        text += "T00:00:00"
    offset_s = 0
    if (zone := _OFFSET.fullmatch(text[19:][-6:])) or (zone := _OFFSET.fullmatch(text[19:][-5:])):
        sign, hours, minutes = zone.groups()
        offset_s = (int(hours) * 60 + int(minutes)) * (-60 if sign == "-" else 60)
        text = text[: -len(zone[0])]
    return iso_ns(text if text.endswith("Z") else text + "Z") - offset_s * SECOND


def iso_event_ns(text: str) -> int:
    """Return `iso_ns` of a venue's time.

    Raises ValueError for one that is not between 2010 and 2100, too.
    """
    ns = iso_ns(text)
    if not TIME_MIN <= ns <= TIME_MAX:
        raise ValueError(f"{text[:40]!r} is no time between 2010 and 2100")
    return ns


def either_ns(time: int) -> int:
    """Return a time in ms or in us as ns: no time of 2010 to 2100 is one in both units.

    Raises ValueError for what is a time in neither.
    """
    found = time * (MILLISECOND if time <= TIME_MAX // MILLISECOND else MICROSECOND)
    if not TIME_MIN <= found <= TIME_MAX:
        raise ValueError(f"{time} is no time, in ms or us, between 2010 and 2100")
    return found


def iso_text(ns: int) -> str:
    """Return ns since the epoch as RFC 3339 text in UTC with nine fractional digits."""
    seconds, fraction = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
