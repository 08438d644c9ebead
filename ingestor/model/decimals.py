"""Decimal text <-> int64 in units of 10^-exponent, exactly.

No float takes part: a double can't see `NaN` turned into an integer, `1_000`, or a digit too many.
`parse_column` converts whole columns with numpy; what its fast path can't prove to be a plain
decimal goes through `parse_decimal`, one cell at a time, which decides as `decimal.Decimal` does
but refuses what is no JSON number in spirit (underscores, NaN, Infinity, blanks, non-ASCII digits).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.integers import int64_column

EXPONENT_MAX: Final = 18
INT64_MAX: Final = 2**63 - 1

_POWERS: Final[NDArray[np.int64]] = 10 ** np.arange(EXPONENT_MAX + 1, dtype=np.int64)
_TENS: Final[list[int]] = _POWERS.tolist()
_FEW: Final = 24  # so many cells are read faster one by one
_PLAIN: Final = b"0123456789.\n"
_NEWLINE: Final = 10
_ZERO: Final = 48
_DECIMAL: Final = re.compile(
    r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,6}))?", re.ASCII
)  # both digit groups empty is refused below
_PLAIN_TEXT: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_DIGITS_MAX: Final = 4_096  # a number of 10^5 digits is an attack, not a price


def parse_decimal(text: object, exponent: int) -> int:
    """Return `text` as an integer in units of 10^-exponent.

    text: str; a JSON int or float that lost its text is taken by its shortest digits.
    Raises ValueError for anything else, for digits finer than the exponent (trailing zeros are
    fine) and for results outside int64.
    """
    if not isinstance(text, str):
        text = _text_of_number(text)
    match = _DECIMAL.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if match is None or not (match[2] or match[3]):
        raise ValueError(f"{text[:40]!r} is no decimal number")
    fraction = match[3] or ""
    digits = (match[2] + fraction).lstrip("0")
    if not digits:
        return 0
    shift = exponent - len(fraction) + int(match[4] or 0)
    if shift < 0:
        digits, excess = digits[:shift], digits[shift:]
        if excess.strip("0") or len(excess) < -shift:
            raise ValueError(f"{text[:40]!r} has more than {exponent} decimals")
    elif len(digits) + shift > 19:
        raise ValueError(f"{text[:40]!r} does not fit int64 at 10^-{exponent}")
    value: int = int(digits or "0") * 10 ** max(shift, 0)
    if value > INT64_MAX:
        raise ValueError(f"{text[:40]!r} does not fit int64 at 10^-{exponent}")
    return -value if match[1] == "-" else value


def decimals_in(text: object) -> int:
    """Return how many decimals a number needs: "1.50" -> 1, "2e-7" -> 7, "300" -> 0.

    text: as of `parse_decimal`. Raises ValueError for what is no decimal number.
    """
    if not isinstance(text, str):
        text = _text_of_number(text)
    match = _DECIMAL.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if match is None or not (match[2] or match[3]):
        raise ValueError(f"{text[:40]!r} is no decimal number")
    fraction, power = match[3] or "", int(match[4] or 0)
    digits = (match[2] + fraction).rstrip("0")
    if not digits:
        return 0
    return max(len(digits) - len(match[2]) - power, 0)


def parse_column(
    texts: Sequence[object], exponents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """Convert a column of decimal texts; return (values, indices of the bad cells).

    texts: n cells of decimal text. exponents: int64[n], each cell's own.
    Values are int64[n] in units of 10^-exponent, 0 where the cell is bad. Never raises for a cell.
    """
    if not texts:
        return np.empty(0, np.int64), []
    if len(texts) <= _FEW:
        return _parse_few(texts[:], exponents)
    try:
        raw = ("\n".join(texts) + "\n").encode("ascii")  # type: ignore[arg-type]  # refused below
    except (TypeError, UnicodeEncodeError):
        return _parse_mixed(texts, exponents)
    if raw.translate(None, _PLAIN):
        return _parse_cells(texts, exponents)
    return _parse_plain(raw, texts, exponents)


def _parse_few(
    texts: Sequence[object], exponents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """One cell at a time, in the time that it takes to call numpy for a column of them."""
    values: list[int] = []
    bad: list[int] = []
    for index, (text, exponent) in enumerate(zip(texts, exponents.tolist(), strict=True)):
        if isinstance(text, str):
            whole, _, decimals = text.partition(".")
            decimals = decimals.rstrip("0")
            digits = whole + decimals
            shift = exponent - len(decimals)
            is_sure = shift >= 0 and len(digits) + shift <= EXPONENT_MAX
            if is_sure and digits.isdigit() and digits.isascii():
                values.append(int(digits) * _TENS[shift])
                continue
        try:
            values.append(parse_decimal(text, exponent))
        except ValueError:
            values.append(0)
            bad.append(index)
    return int64_column(values), bad


def _parse_plain(
    raw: bytes, texts: Sequence[object], exponents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """Digits, dots and separators alone: find each cell's dot, read the digits as one integer."""
    octets = np.frombuffer(raw, np.uint8)
    marks = (octets < _ZERO).nonzero()[0]  # every separator and every dot, in order
    found = octets.take(marks)
    if found.tobytes() == b".\n" * len(texts):
        positions = marks[1::2]  # all cells have a dot, the usual case
        decimals = positions - marks[0::2] - 1
        lengths = positions - 1
    else:
        is_end = found == _NEWLINE
        ends = np.flatnonzero(is_end)
        before = ends - 1  # the mark before each end; -1 wraps to the last mark, which is an end
        has_dot = ~is_end[before]
        if len(ends) != len(texts) or len(marks) - len(ends) != np.count_nonzero(has_dot):
            return _parse_cells(texts, exponents)  # a cell with a line break, or with two dots
        positions = marks[ends]
        decimals = np.where(has_dot, positions - marks[before] - 1, 0)
        lengths = positions - has_dot
    lengths[1:] -= positions[:-1] + 1
    if np.count_nonzero(lengths) < len(lengths):
        return _parse_cells(texts, exponents)  # an empty cell
    # Digits and separators alone remain, which is what this mode of fromstring is sure of.
    values = np.fromstring(raw.translate(None, b"."), dtype=np.int64, sep="\n")
    assert len(values) == len(texts)
    return _scale(values, lengths, exponents - decimals, texts, exponents)


def _scale(
    values: NDArray[np.int64],
    lengths: NDArray[np.int64],
    shift: NDArray[np.int64],
    texts: Sequence[object],
    exponents: NDArray[np.int64],
) -> tuple[NDArray[np.int64], list[int]]:
    """Bring digits to their exponent; cells that could overflow are read one by one."""
    least, most = int(np.minimum.reduce(shift)), int(np.maximum.reduce(shift))
    is_short = int(np.maximum.reduce(lengths)) + max(most, 0) <= EXPONENT_MAX
    if is_short and least >= 0:
        return values * _POWERS.take(shift) if most else values, []
    if is_short and most <= 0 and least >= -EXPONENT_MAX:
        values, remainders = np.divmod(values, _POWERS.take(-shift))
        excess: list[int] = remainders.nonzero()[0].tolist()
        values[excess] = 0
        return values, excess
    up = np.maximum(shift, 0)
    wide = np.flatnonzero((lengths + up > EXPONENT_MAX) | (shift < -EXPONENT_MAX))
    if len(wide):
        up[wide] = 0
        shift = shift.copy()
        shift[wide] = 0
    down = shift < 0
    if not down.any():
        values = values * _POWERS[up]
        bad: list[int] = []
    else:
        quotient, remainder = np.divmod(values, _POWERS[np.where(down, -shift, 0)])
        bad = np.flatnonzero(remainder).tolist()
        values = quotient * _POWERS[up]
        values[bad] = 0
    values[wide] = 0
    for index in wide.tolist():
        if not _parse_cell(values, index, texts[index], exponents):
            bad.append(index)
    return values, sorted(bad)


def _parse_cells(
    texts: Sequence[object], exponents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """One cell at a time: exact for every input, an order of magnitude slower."""
    values = np.zeros(len(texts), np.int64)
    bad = [
        index for index, text in enumerate(texts) if not _parse_cell(values, index, text, exponents)
    ]
    return values, bad


def _parse_mixed(
    texts: Sequence[object], exponents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[int]]:
    """Cells that are not all ASCII text: some venues send JSON integers among them."""
    as_text = [str(cell) if type(cell) is int else cell for cell in texts]
    if all(type(cell) is str and cell.isascii() for cell in as_text):
        return parse_column(as_text, exponents)
    return _parse_cells(texts, exponents)


def _parse_cell(
    values: NDArray[np.int64], index: int, text: object, exponents: NDArray[np.int64]
) -> bool:
    try:
        values[index] = parse_decimal(text, int(exponents[index]))
    except ValueError:
        return False
    return True


def _text_of_number(number: object) -> str:
    if type(number) is int:
        if abs(number) > INT64_MAX:
            raise ValueError("integer does not fit int64")
        return str(number)
    if type(number) is float:
        return repr(number)
    raise ValueError(f"{type(number).__name__} is no decimal number")


@lru_cache(maxsize=1_024)  # a list of thousands of instruments has a few dozen increments
def exponent_of(increment: str) -> int:
    """Return the number of decimals that an increment needs: "0.0500" -> 2, "10" -> 0, "1e-7" -> 7.

    Raises ValueError when it isn't a positive decimal, needs more than EXPONENT_MAX decimals, or is
    beyond 10^EXPONENT_MAX.
    """
    if _DECIMAL.fullmatch(increment) is None or not increment.strip("+-."):
        raise ValueError(f"increment {increment!r} is no decimal number")
    value = Decimal(increment)
    if value <= 0:
        raise ValueError(f"increment {increment!r} is not positive")
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # finite by construction
    if exponent < -EXPONENT_MAX:
        raise ValueError(f"increment {increment!r} needs more than {EXPONENT_MAX} decimals")
    if value.adjusted() > EXPONENT_MAX:
        raise ValueError(f"increment {increment!r:.40} is beyond 10^{EXPONENT_MAX}")
    return max(-exponent, 0)


@lru_cache(maxsize=1_024)
def plain_decimal(text: str) -> str:
    """Return decimal text without an exponent, a plus, or a bare point: "1e-8" -> "0.00000001".

    What is no decimal number, or is far from any, is returned as it is.
    """
    if _PLAIN_TEXT.fullmatch(text):
        return text
    if _DECIMAL.fullmatch(text) is None or not text.strip("+-."):
        return text
    value = Decimal(text)
    return f"{value:f}" if abs(value.adjusted()) <= 2 * EXPONENT_MAX else text


def format_decimal(value: int, exponent: int) -> str:
    """Return the decimal text of `value` x 10^-exponent, always with `exponent` decimals."""
    if exponent == 0:
        return str(value)
    sign, digits = ("-", str(-value)) if value < 0 else ("", str(value))
    if len(digits) <= exponent:
        digits = digits.rjust(exponent + 1, "0")
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"
