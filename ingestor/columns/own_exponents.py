"""Convert the numbers of classes whose units are not those of prices and sizes in turns.

A row whose class has numbers of unit OWN says in its field `exponent` how many decimals they have:
the fewest that hold them all. A number that the venue doesn't say is ABSENT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.decimals import INT64_MAX, decimals_in, parse_column
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import OWN_EXPONENT_MAX, RATE_EXPONENT, Exponent, RowClass
from ingestor.model.rows import ABSENT, Rows

_LOWEST: Final = {
    Exponent.PRICE: 1,
    Exponent.SIZE: 0,
    Exponent.RATE: -INT64_MAX,
    Exponent.OWN: -INT64_MAX,
}
_NOTHING: Final = "1"  # stands for a number that is absent while the others are converted


def convert_numbers(
    row_class: RowClass, texts: Sequence[object], rows: Rows, table: InstrumentTable
) -> tuple[NDArray[np.int64], list[int]]:
    """Return int64[rows, numbers of the class] in each number's unit, and the indices of bad cells.

    Args:
        row_class: the class.
        texts: its numbers, row after row; None where one is absent.
        rows: with instruments; the field `exponent` is set, where the class has it.
        table: the instruments.
    """
    shape = len(rows), len(row_class.numbers)
    if not shape[1]:
        return np.empty(shape, np.int64), []
    exponents = np.full(shape, RATE_EXPONENT)
    for index, unit in enumerate(row_class.exponents):
        if unit is Exponent.PRICE:
            exponents[:, index] = table.price_exponents[rows["instrument"]]
        elif unit is Exponent.SIZE:
            exponents[:, index] = table.size_exponents[rows["instrument"]]
    absent = _absent(row_class, texts)
    if absent:
        texts = list(texts)
        for cell in absent:
            texts[cell] = _NOTHING
    if Exponent.OWN in row_class.exponents:
        own = [index for index, unit in enumerate(row_class.exponents) if unit is Exponent.OWN]
        rows["exponent"] = needed = _own_exponents(texts, own, shape)
        exponents[:, own] = np.reshape(needed, (-1, 1))
    values, bad = parse_column(texts, exponents.ravel())
    lowest = np.array([_LOWEST[unit] for unit in row_class.exponents], np.int64)
    numbers = values.reshape(shape)
    bad = sorted({*bad, *np.flatnonzero(numbers < lowest).tolist()})
    numbers.reshape(-1)[absent] = ABSENT
    return numbers, bad


def _absent(row_class: RowClass, texts: Sequence[object]) -> list[int]:
    """Return the cells whose number is absent and may be."""
    if not row_class.optional:
        return []
    may = [name in row_class.optional for name in row_class.numbers]
    return [cell for cell, text in enumerate(texts) if text is None and may[cell % len(may)]]


def _own_exponents(
    texts: Sequence[object], own: Sequence[int], shape: tuple[int, int]
) -> list[int]:
    """Return the decimals that the numbers of each row need.

    A row with one that is no number, or that needs too many, gets too few: the number is then found
    to be bad.
    """
    needed = []
    for start in range(0, shape[0] * shape[1], shape[1]):
        try:
            decimals = max(decimals_in(texts[start + index]) for index in own)
        except ValueError:
            decimals = 0
        needed.append(min(decimals, OWN_EXPONENT_MAX))
    return needed
