"""Remember when each stream last spoke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import ROW_CLASSES, RowClass

Integers = NDArray[np.int64]


class LastSeen:
    """When each stream last spoke: (row class, instrument) -> rows, time, lag."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        """settle: called before anything is read."""
        self._settle = settle
        self._rows = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._ts_recv = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._ts_event = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._unpublished = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._gaps: Counter[tuple[RowClass, int]] = Counter()

    def count_gaps(self, row_class: RowClass, numbers: NDArray[np.uint32]) -> None:
        """Count GAP marks, which are rare. numbers: uint32[n], their instruments."""
        self._gaps.update((row_class, number) for number in numbers.tolist())

    def gaps(self, row_class: RowClass, instrument: int) -> int:
        """Return how many GAP marks a stream has had."""
        self._settle()
        return self._gaps[row_class, instrument]

    def update(
        self,
        row_class: RowClass,
        numbers: NDArray[np.uint32],
        ts_recv: NDArray[np.int64],
        ts_event: NDArray[np.int64],
        instruments: int,
    ) -> None:
        """Take the ticks of a flush.

        Args:
            row_class: Their class.
            numbers: uint32[n], their instruments, in order of arrival.
            ts_recv: int64[n] in ns.
            ts_event: int64[n] in ns.
            instruments: Number of instruments known.
        """
        rows, last_recv, last_event = self.arrays(row_class, instruments)
        rows += np.bincount(numbers, minlength=len(rows))
        last_recv[numbers] = ts_recv  # the last of equal indices stays
        last_event[numbers] = ts_event

    def arrays(self, row_class: RowClass, instruments: int) -> tuple[Integers, Integers, Integers]:
        """Return the live arrays of a class by instrument, with room for so many.

        Args:
            row_class: Class of the rows.
            instruments: Number of instruments known.

        Returns:
            Rows, and ts_recv and ts_event of the last one in ns.
        """
        all_arrays = self._rows, self._ts_recv, self._ts_event
        missing = instruments - len(self._rows[row_class])
        if missing > 0:
            for arrays in all_arrays:
                arrays[row_class] = np.concatenate([arrays[row_class], np.zeros(missing, np.int64)])
        rows, ts_recv, ts_event = (arrays[row_class] for arrays in all_arrays)
        return rows, ts_recv, ts_event

    def note_arrivals(self, row_class: RowClass, numbers: NDArray[np.uint32]) -> None:
        """Count what arrived and was not published: a stream that is refused or held speaks.

        numbers: instruments, one for each event.
        """
        size = max(len(self._unpublished[row_class]), int(numbers.max(initial=0)) + 1)
        counts = np.bincount(numbers, minlength=size)
        counts[: len(self._unpublished[row_class])] += self._unpublished[row_class]
        self._unpublished[row_class] = counts

    def unpublished(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return by instrument how many events arrived that were not published."""
        return self._unpublished[row_class]

    def times(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return ts_recv of each instrument's last row, 0 = none; a live array, only to be read."""
        self._settle()
        return self._ts_recv[row_class]

    def of(self, row_class: RowClass, instrument: int) -> tuple[int, int, int]:
        """Return (rows, ts_recv of the last one, its ts_recv - ts_event); zeros when none came."""
        self._settle()
        if instrument >= len(self._rows[row_class]):
            return 0, 0, 0
        ts_recv = int(self._ts_recv[row_class][instrument])
        lag_ns = ts_recv - int(self._ts_event[row_class][instrument])
        return int(self._rows[row_class][instrument]), ts_recv, lag_ns

    def rows(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return how many rows of each instrument came; a live array, only to be read."""
        self._settle()
        return self._rows[row_class]
