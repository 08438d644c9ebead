"""Defines which rows are derived for an instrument."""

from __future__ import annotations

from dataclasses import dataclass

from ingestor.model.row_classes import RowClass
from ingestor.model.timestamps import SECOND


@dataclass(frozen=True, slots=True)
class DerivedSettings:
    """Choose what is derived for one instrument. Nothing by default.

    candle_intervals_ns: the lengths of candles.
    candle_wait_ns: how long after its end a candle waits for trades that are late.
    top_levels: levels a side of the tops of its book; 0 = none.
    top_interval_ns: between two of them.
    top_classes: the classes that they are published as.
    """

    candle_intervals_ns: tuple[int, ...] = ()
    candle_wait_ns: int = 2 * SECOND
    top_levels: int = 0
    top_interval_ns: int = SECOND
    top_classes: tuple[RowClass, ...] = (RowClass.BOOK_TOP, RowClass.BOOK_TOP_LAST)

    @property
    def has_tops(self) -> bool:
        """Return True if tops of the book are published."""
        return bool(self.top_levels and self.top_classes)
