"""Columns of integers -> their decimal texts, several times faster than one `%d` each.

orjson writes an array of integers at 10 ns a number. A decimal is written as one integer too, with
a digit more where its point belongs: 12.05 at two decimals is 12005, whose third digit from the
right becomes the point.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from ingestor.fixed import EXPONENT_MAX, format_decimal

_POWERS: Final[NDArray[np.uint64]] = np.array(
    [10**exponent for exponent in range(EXPONENT_MAX + 1)], np.uint64
)
# What moves the digits before the point one place to the left; nothing moves without a point.
_SHIFTS: Final = np.where(_POWERS > 1, _POWERS * np.uint64(9), np.uint64(0))
_TEN: Final = np.uint64(10)
_WIDE: Final = (2**64 - 1) // 10  # above it there is no room for a digit more
_COMMA: Final = ord(",")
_POINT: Final = ord(".")
_ZERO: Final = ord("0")


Texts = tuple[list[bytes], NDArray[np.int64]]  # and their lengths


def integer_texts(values: NDArray[Any]) -> Texts:
    """Return the digits of each. values: int64[n] or uint64[n], contiguous, n > 0."""
    raw = _dumped(values)
    commas = np.flatnonzero(np.frombuffer(raw, np.uint8) == _COMMA)
    return bytes(raw)[1:-1].split(b","), _lengths(commas)


def even_digits(values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return the digits of each as octets: uint8[n, digits]; None when they have not all the
    same number of digits. values: positive int64[n], contiguous, n > 0."""
    width = len(str(values[0]))
    if int(values.min()) < 10 ** (width - 1) or int(values.max()) >= 10**width:
        return None
    octets = np.frombuffer(_dumped(values), np.uint8)
    return octets[1:].reshape(len(values), width + 1)[:, :-1]


def _lengths(commas: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return how long the texts are that end at these places."""
    lengths = commas - 1
    lengths[1:] -= commas[:-1]
    return lengths


def _dumped(values: NDArray[Any]) -> bytearray:
    """Return the numbers as a JSON array, whose end is a comma too."""
    raw = bytearray(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))
    raw[-1] = _COMMA
    return raw


def decimal_texts(values: NDArray[np.uint64], exponents: NDArray[np.int64]) -> Texts:
    """Return each value x 10^-exponent with exactly `exponent` decimals, as `format_decimal` does.

    values: uint64[n], below 2^63, n > 0. exponents: int64[n], 0 to EXPONENT_MAX.
    """
    whole = values // _POWERS[exponents]
    shifted = values + whole * _SHIFTS[exponents]  # whole x 10^(exponent + 1) + fraction
    has_point = slice(None) if exponents.min() else exponents > 0
    is_short = whole == 0
    if is_short.any():
        # What has no digit before its point borrows a one, so that no zero behind it is lost.
        is_short &= exponents > 0
        shifted[is_short] += _POWERS[exponents[is_short]] * _TEN
    wide: list[int] = []
    if values.max() > _WIDE:
        wide = np.flatnonzero((values > _WIDE) & (exponents > 0)).tolist()
        shifted[wide] = _POWERS[exponents[wide]] * _TEN  # any text with room for a point
    raw = _dumped(shifted)
    octets = np.frombuffer(raw, np.uint8)
    commas = np.flatnonzero(octets == _COMMA)
    points = commas - exponents - 1
    octets[points[has_point]] = _POINT
    octets[points[is_short] - 1] = _ZERO
    texts = bytes(raw)[1:-1].split(b",")
    lengths = _lengths(commas)
    for index in wide:
        texts[index] = format_decimal(int(values[index]), int(exponents[index])).encode()
        lengths[index] = len(texts[index])
    return texts, lengths
