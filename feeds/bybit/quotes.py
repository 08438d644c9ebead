"""Quotes, and what each connection knows of them.

What a quote means depends on the one before on its connection: it may repeat or change it. So
nothing is known but what is sure to become a row: a quote with a number that would be refused when
the columns are sealed is refused before that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import msgspec

from ingestor.adapter import (
    MILLISECOND,
    BadNumber,
    ColumnBuffer,
    Control,
    Filtered,
    Milliseconds,
    Sequential,
    plain_number,
)

UNCHANGED: Final = Filtered("unchanged quote", duplicate=True)

_DIGITS_MAX: Final = 18  # so many fit 63 bits, whatever they are
_NOTHING: Final = ("0", "0")  # an empty side of a quote
_Level = tuple[str, str]  # price and size as plain decimals
_Best = tuple[int, _Level, _Level]  # the number of an update, the best bid and ask


class _Levels(msgspec.Struct, gc=False):
    s: str  # symbol
    u: Sequential  # number of the update
    b: list[list[Any]]
    a: list[list[Any]]


class _Quote(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    cts: Milliseconds
    data: _Levels


class _Number(msgspec.Struct, gc=False):
    """The fields that tell a book of one level from the one before."""

    s: str
    u: Sequential


class _Numbered(msgspec.Struct, gc=False):
    data: _Number


_parse_quote: Final = msgspec.json.Decoder(_Quote, float_hook=str).decode
_parse_number: Final = msgspec.json.Decoder(_Numbered).decode


@dataclass(slots=True)
class Quotes:
    """Hold what a connection knows. best: the last quote of each symbol."""

    best: dict[str, _Best] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of books of one level, by symbol

    def is_repeated(self, payload: bytes) -> bool:
        """Say whether a book of one level has the number of the one before; note its number."""
        data = _parse_number(payload).data
        if self.numbers.get(data.s) == data.u:
            return True
        self.numbers[data.s] = data.u
        return False


def append_quote(
    payload: bytes, known: Quotes, symbols: Mapping[str, int], ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append one quote, unless it says what is known.

    Args:
        payload: The frame's bytes.
        known: Quotes of the frame's connection.
        symbols: Numbers of the instruments by symbol.
        ts_recv: Time of receipt in ns.
        out: Takes the rows.

    Raises:
        BadNumber: A number is not one.
        LookupError: It changes a quote that is not known.
        ValueError: A side is none of a quote.
    """
    quote = _parse_quote(payload)
    data = quote.data
    instrument, before = symbols[data.s], known.best.get(data.s)
    exponents = out.exponents(instrument)
    if quote.type == "snapshot":
        bid, ask = _level(data.b, exponents), _level(data.a, exponents)
    else:
        _, bid, ask = known.best[data.s]
        bid, ask = _changed(bid, data.b, exponents), _changed(ask, data.a, exponents)
    best = (data.u, bid, ask)
    if best == before:
        return UNCHANGED
    out.add_quote(instrument, quote.cts * MILLISECOND, ts_recv, data.u, *bid, *ask)
    known.best[data.s] = best
    return None


def _changed(
    before: _Level, changes: Sequence[Sequence[Any]], exponents: tuple[int, int] | None
) -> _Level:
    """Apply the changes of one side of a book of one level; size 0 removes it."""
    best = before
    for change in changes:
        level = _level([change], exponents)
        if level[1].strip("0."):
            best = level
        elif level[0] == best[0]:
            best = _NOTHING
    return best


def _level(levels: Sequence[Sequence[Any]], exponents: tuple[int, int] | None) -> _Level:
    """Return the only level of a side as plain decimals. Raises as `append_quote` does."""
    if not levels:
        return _NOTHING
    [[price, size]] = levels
    if exponents is not None and type(price) is type(size) is str:
        price_fits, size_fits = _fitting(exponents[0]), _fitting(exponents[1])
        if price_fits(price) and size_fits(size) and price.strip("0."):
            return price, size
    price_exponent, size_exponent = exponents or (None, None)
    try:
        level = plain_number(price, price_exponent), plain_number(size, size_exponent)
    except ValueError as failure:
        raise BadNumber("bybit", str(failure)) from None
    if not level[0].strip("0.") and level[1].strip("0."):
        raise BadNumber("bybit", f"{price!r:.60} is no price")
    return level


@cache
def _fitting(exponent: int) -> Callable[[str], object]:
    """Return what matches the texts, as the venue writes them, that are sure to fit an exponent."""
    whole = _DIGITS_MAX - exponent
    fraction = f"(?:[.][0-9]{{1,{exponent}}})?" if exponent else ""
    return re.compile(f"[0-9]{{1,{whole}}}{fraction}" if whole > 0 else "(?!)").fullmatch
