"""Drops the trades that a venue sends again when it is subscribed to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Flag, Rows


class ResentTrades:
    """Remembers the highest sequence of each instrument, and finds trades at or below it."""

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self._last = np.zeros(0, np.uint64)  # highest sequence seen, by instrument

    def drop(self, trades: Rows) -> tuple[Rows, NDArray[np.uint32]]:
        """Split trades into new ones and repeated ones.

        Returns the trades to publish, and the instrument of each repeated one.
        """
        resent = (trades["flags"] & Flag.SNAPSHOT) != 0
        repeated = np.empty(0, np.uint32)
        self._fit()
        if resent.any():
            keep = self._not_seen(trades, resent)
            repeated = trades["instrument"][~keep]
            trades = trades[keep]
        fetched = (trades["flags"] & Flag.BACKFILL) != 0  # may be newer than what was published
        seen = trades[~fetched] if fetched.any() else trades
        np.maximum.at(self._last, seen["instrument"], seen["sequence"])
        return trades, repeated

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Let new revisions of instruments go on where the old ones were. numbers: old -> new."""
        self._fit()
        for old, new in numbers.items():
            self._last[new] = max(self._last[new], self._last[old])

    def _not_seen(self, trades: Rows, resent: NDArray[np.bool_]) -> NDArray[np.bool_]:
        keep = np.ones(len(trades), np.bool_)
        for instrument in np.unique(trades["instrument"][resent]).tolist():
            of_instrument = np.flatnonzero(trades["instrument"] == instrument)
            sequences = trades["sequence"][of_instrument]
            seen = np.maximum.accumulate(np.concatenate(([self._last[instrument]], sequences)))[:-1]
            duplicate = resent[of_instrument] & (sequences <= seen) & (sequences > 0)
            keep[of_instrument[duplicate]] = False
        return keep

    def _fit(self) -> None:
        missing = len(self._table) - len(self._last)
        if missing > 0:
            self._last = np.concatenate([self._last, np.zeros(missing, np.uint64)])
