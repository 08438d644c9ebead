"""Number the feeds: a feed is (venue, market, channel)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass


@dataclass(frozen=True, slots=True)
class FeedKey:
    venue: str
    market: str
    channel: str


class Feeds:
    """Numbers of feeds, and of each instrument's feeds: a market has one for each row class."""

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self._markets: dict[tuple[str, str], int] = {}
        nothing = np.zeros(0, np.intp)
        self._feed_of = dict.fromkeys(ROW_CLASSES, nothing)  # by instrument
        self._all: list[FeedKey] = []

    @property
    def all(self) -> list[FeedKey]:
        """Those of every instrument that there is, whether it has spoken or not."""
        if len(self._feed_of[RowClass.TRADE]) < len(self._table):
            self._learn()
        return self._all

    def market(self, venue: str, market: str) -> int:
        number = self._markets.get((venue, market))
        if number is None:
            number = self._markets[venue, market] = len(self._markets)
            self._all += [FeedKey(venue, market, row_class.channel) for row_class in ROW_CLASSES]
        return number

    def of_rows(self, row_class: RowClass, instruments: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return the feed number of each row, from its instrument number."""
        feeds: NDArray[np.intp] = self.by_instrument(row_class)[instruments]
        return feeds

    def by_instrument(self, row_class: RowClass) -> NDArray[np.intp]:
        """Return the feed number of each instrument's rows of a class."""
        feed_of = self._feed_of[row_class]
        return feed_of if len(feed_of) >= len(self._table) else self._learn()[row_class]

    def _learn(self) -> dict[RowClass, NDArray[np.intp]]:
        more = range(len(self._feed_of[RowClass.TRADE]), len(self._table))
        markets = [
            self.market(self._table[number].venue, self._table[number].market) for number in more
        ]
        first = np.array(markets, np.intp) * len(self._feed_of)
        for place, (row_class, known) in enumerate(self._feed_of.items()):
            self._feed_of[row_class] = np.concatenate([known, first + place])
        return self._feed_of
