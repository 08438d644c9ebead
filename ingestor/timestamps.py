"""Venue time text -> ns since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
# What one unit of a fraction of so many digits is.
_FRACTION_NS: Final[tuple[int, ...]] = tuple(10 ** (9 - digits) for digits in range(10))


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


def iso_text(ns: int) -> str:
    """Return ns since the epoch as RFC 3339 text in UTC with nine fractional digits."""
    seconds, fraction = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
