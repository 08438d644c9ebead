"""The digits of the numbers that decoded frames bring, by instrument.

Numbers are looked at as text, as their venue wrote them. Of rows that the compiled library made
only those are written out again that say something new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestor.columns.narrowing import Appended
from ingestor.columns.sealing import read_deferred
from ingestor.model.decimals import EXPONENT_MAX, INT64_MAX, format_decimal
from ingestor.model.row_classes import Exponent, RowClass
from ingestor.model.rows import Rows
from ingestor.native import Taken
from ingestor.sources.replay.digits import Digits

Known = tuple[int, int, int]  # number of an instrument, exponents of its prices and sizes


class ColumnDigits:
    """Follows the digits of prices and sizes. has_changed: what is usual changed since somebody set
    it to False.
    """

    def __init__(self) -> None:
        self.has_changed = False
        self._columns: dict[int, tuple[Digits, Digits]] = {}
        # Of rows that are taken, by unit and instrument: their decimals, what usual values are
        # multiples of, and what they are below.
        self._exponents = self._steps = self._tops = np.zeros((2, 0), np.int64)

    def of(self, number: int) -> tuple[Digits, Digits]:
        """Return the digits of an instrument's prices and sizes."""
        return self._columns[number]

    @property
    def numbers(self) -> list[int]:
        """Return the instruments that have any."""
        return list(self._columns)

    def take(self, appended: Appended) -> None:
        """Take what decoders appended."""
        for row_class, kept in appended.deferred:
            if kept:
                self._read(row_class, kept)
        if len(appended.updates):
            self._read_levels(appended)

    def _see(self, number: int, prices: Sequence[object], sizes: Sequence[object]) -> None:
        columns = self._columns.get(number)
        if columns is None:
            columns = self._columns[number] = Digits(), Digits()
        for digits, texts in zip(columns, (prices, sizes), strict=True):
            before, were_few = digits.usual, digits.are_few
            digits.see_all(texts)
            self.has_changed |= digits.usual != before or digits.are_few != were_few

    def _read(self, row_class: RowClass, kept: list[Any]) -> None:
        part, texts, _ = read_deferred(row_class, kept, [])
        units = row_class.exponents
        by_unit = [
            [place for place, unit in enumerate(units) if unit is wanted]
            for wanted in (Exponent.PRICE, Exponent.SIZE)
        ]
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(part.rows["instrument"].tolist()):
            rows.setdefault(number, []).append(row * len(units))
        for number, starts in rows.items():
            prices, sizes = (
                [texts[start + place] for start in starts for place in places] for places in by_unit
            )
            self._see(number, prices, sizes)

    def _read_levels(self, appended: Appended) -> None:
        columns = (appended.updates[name].tolist() for name in ("instrument", "bids", "asks"))
        at = 0
        for number, bids, asks in zip(*columns, strict=True):
            texts = appended.level_texts[at : at + 2 * (bids + asks)]
            self._see(number, texts[0::2], texts[1::2])
            at += len(texts)

    def usual(self) -> list[Known]:
        """Return the instruments of which enough was seen, with the decimals that are usual: from
        now on `take_rows` takes rows in these units.
        """
        self.has_changed = False
        shape = 2, max(self._columns, default=-1) + 1
        self._exponents = np.zeros(shape, np.int64)
        self._steps = np.ones(shape, np.int64)
        self._tops = np.full(shape, INT64_MAX)
        known: list[Known] = []
        for number, columns in self._columns.items():
            if any(digits.are_few for digits in columns):
                continue
            for at, digits in enumerate(columns):
                printed, needed, whole = digits.usual
                self._exponents[at, number] = printed
                if printed <= EXPONENT_MAX:
                    self._steps[at, number] = 10 ** (printed - needed)
                if printed + whole <= EXPONENT_MAX:
                    self._tops[at, number] = 10 ** (printed + whole)
            known.append((number, *self._exponents[:, number].tolist()))
        return known

    def take_rows(self, taken: Taken) -> None:
        """Take rows of the compiled library, in the units that `usual` returned last."""
        for row_class, rows in ((RowClass.TRADE, taken.trades), (RowClass.QUOTE, taken.quotes)):
            if len(rows):
                for name, unit in zip(row_class.numbers, row_class.exponents, strict=True):
                    self._see_odd(rows["instrument"], rows[name], int(unit is Exponent.SIZE))
        if len(taken.levels):
            numbers = _of_levels(taken.updates)
            for at in (0, 1):
                self._see_odd(numbers, taken.levels[:, at], at)

    def _see_odd(self, numbers: NDArray[np.uint32], values: NDArray[np.int64], at: int) -> None:
        """Look at values that are none of the usual.

        Args:
            numbers: n numbers of instruments.
            values: n values in units.
            at: 0 for prices, 1 for sizes.
        """
        steps, tops = self._steps[at][numbers], self._tops[at][numbers]
        is_odd = (values % steps != 0) | (values >= tops)
        if not is_odd.any():
            return
        odd = zip(numbers[is_odd].tolist(), values[is_odd].tolist(), strict=True)
        for number, value in dict.fromkeys(odd):
            text = format_decimal(value, int(self._exponents[at, number]))
            self._see(number, *(((), [text]) if at else ([text], ())))


def _of_levels(updates: Rows) -> NDArray[np.uint32]:
    """Return the instrument of each level."""
    counts = updates["bids"].astype(np.int64) + updates["asks"]
    numbers: NDArray[np.uint32] = np.repeat(updates["instrument"], counts)
    return numbers
