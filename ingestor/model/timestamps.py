"""Venue time text -> ns since the epoch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.errors import ConfigError
from ingestor.model.integers import Integers, int64_column

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
    """Return `iso_ns` of a venue's time. Raises ValueError for one that is not between 2010 and
    2100, too."""
    ns = iso_ns(text)
    if not TIME_MIN <= ns <= TIME_MAX:
        raise ValueError(f"{text[:40]!r} is no time between 2010 and 2100")
    return ns


def milliseconds_ns(times: Integers) -> NDArray[np.int64]:
    """Return times in ms as ns, int64[n]. Raises ValueError for those before TIME_MIN or after
    TIME_MAX, and OverflowError for what is beyond int64."""
    values = int64_column(times)
    if len(values) <= _FEW:
        least, most = min(times, default=_MILLISECONDS_MIN), max(times, default=_MILLISECONDS_MAX)
    else:
        least, most = np.minimum.reduce(values), np.maximum.reduce(values)
    if not (least >= _MILLISECONDS_MIN and most <= _MILLISECONDS_MAX):
        raise ValueError("a time in ms that is not between 2010 and 2100")
    return values * MILLISECOND


def either_ns(times: Integers) -> NDArray[np.int64]:
    """Return times in ms or in us as ns, int64[n]: no time of 2010 to 2100 is one in both units.

    Raises ValueError for what is a time in neither, and OverflowError as `milliseconds_ns` does.
    """
    try:
        return milliseconds_ns(times)
    except ValueError:
        values = int64_column(times)
    units = np.where(values <= _MILLISECONDS_MAX, MILLISECOND, MICROSECOND)
    if not (values.min() >= _MILLISECONDS_MIN and values.max() <= TIME_MAX // MICROSECOND):
        raise ValueError("a time, in ms or us, that is not between 2010 and 2100")
    scaled: NDArray[np.int64] = values * units
    if scaled.min() < TIME_MIN:
        raise ValueError("a time, in ms or us, that is not between 2010 and 2100")
    return scaled


def iso_column_ns(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return `iso_event_ns` of each text, int64[n]. Raises ValueError as it does.

    Times of one flush have one length and, but for one flush a minute, one minute: then seconds
    and fractions are read as columns of digits.
    """
    length = len(texts[0]) if texts else 0
    if len(texts) >= _COLUMN_MIN and 22 <= length <= 30 and len({*map(len, texts)}) == 1:
        octets = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8)
        cells = octets.reshape(-1, length)
        digits = np.delete(cells[:, 17:-1], 2, axis=1) - np.uint8(ord("0"))  # others wrap around
        if (
            (cells[:, :17] == cells[0, :17]).all()
            and (cells[:, 19] == ord(".")).all()
            and (cells[:, -1] == ord("Z")).all()
            and digits.max() < 10
            and digits[:, 0].max() < 6
        ):
            minute = iso_event_ns(f"{texts[0][:17]}00Z")
            units = _DIGITS_NS[: digits.shape[1]]
            return minute + digits.astype(np.int64) @ units
    return np.array([iso_event_ns(text) for text in texts], np.int64)


def iso_text(ns: int) -> str:
    """Return ns since the epoch as RFC 3339 text in UTC with nine fractional digits."""
    seconds, fraction = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
