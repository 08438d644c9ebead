"""Drop the rows that a venue sends again when it is subscribed to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import is_control
from ingestor.model.rows import Flag, Rows
from ingestor.native import native, take_highest

_NOBODY: Final = np.empty(0, np.uint32)


class ResentRows:
    """Remembers the highest number of each instrument, and finds rows at or below it."""

    def __init__(self, table: InstrumentTable, field: str = "sequence") -> None:
        """field: holds the number, which rises with every row."""
        library = native().library
        self._library = library if field == "sequence" else None
        self._table = table
        self._field = field
        self._last = np.zeros(0, np.uint64)  # highest sequence seen, by instrument

    def drop(self, rows: Rows) -> tuple[Rows, NDArray[np.uint32]]:
        """Split rows of one class into new ones and repeated ones.

        Returns the rows to publish, and the instrument of each repeated one.
        """
        self._fit()
        plain = 0
        if self._library is not None:
            plain = take_highest(self._library, rows, self._last)
        if plain == len(rows):
            return rows, _NOBODY
        left, repeated = self._drop(rows[plain:])
        return (np.concatenate([rows[:plain], left]) if len(repeated) else rows), repeated

    def _drop(self, rows: Rows) -> tuple[Rows, NDArray[np.uint32]]:
        resent = (rows["flags"] & Flag.SNAPSHOT) != 0
        repeated = _NOBODY
        if resent.any():
            keep = self._not_seen(rows, resent)
            repeated = rows["instrument"][~keep]
            rows = rows[keep]
        fetched = (rows["flags"] & Flag.BACKFILL) != 0  # may be newer than what was published
        seen = rows[~fetched] if fetched.any() else rows
        np.maximum.at(self._last, seen["instrument"], self._numbers(seen))
        return rows, repeated

    def _numbers(self, rows: Rows) -> NDArray[np.uint64]:
        """Return the number of each row, 0 for a control row."""
        numbers: NDArray[np.uint64] = rows[self._field]
        if self._field == "sequence":
            return numbers
        return np.where(is_control(rows), 0, numbers).astype(np.uint64)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Let new revisions of instruments go on where the old ones were. numbers: old -> new."""
        self._fit()
        for old, new in numbers.items():
            self._last[new] = max(self._last[new], self._last[old])

    def _not_seen(self, rows: Rows, resent: NDArray[np.bool_]) -> NDArray[np.bool_]:
        keep = np.ones(len(rows), np.bool_)
        numbers = self._numbers(rows)
        for instrument in np.unique(rows["instrument"][resent]).tolist():
            of_instrument = np.flatnonzero(rows["instrument"] == instrument)
            sequences = numbers[of_instrument]
            seen = np.maximum.accumulate(np.concatenate(([self._last[instrument]], sequences)))[:-1]
            duplicate = resent[of_instrument] & (sequences <= seen) & (sequences > 0)
            keep[of_instrument[duplicate]] = False
        return keep

    def _fit(self) -> None:
        missing = len(self._table) - len(self._last)
        if missing > 0:
            self._last = np.concatenate([self._last, np.zeros(missing, np.uint64)])
