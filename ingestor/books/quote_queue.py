"""The quotes of one flush that may prove a book, at their place among its updates and holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.books.book import BestBidAsk
from ingestor.columns.sealed import Sealed

_FIELDS: Final = (
    *("instrument", "sequence", "ts_recv"),
    *("bid_price", "bid_size", "ask_price", "ask_size"),
)
Quote = tuple[int, int, int, BestBidAsk]  # instrument, update number, ts_recv, what it shows


class QuoteQueue:
    """A queue. `due`: how many updates came before the next quote, -1 when there is none."""

    __slots__ = ("_quotes", "due")

    def __init__(self, sealed: Sealed, has_quote_check: NDArray[np.bool_]) -> None:
        """has_quote_check: by instrument, whether its quotes prove its book."""
        self._quotes: list[tuple[int, ...]] = []  # its row, its `due`, _FIELDS; the next one last
        self.due = -1
        if len(sealed.quotes):
            self._read(sealed, has_quote_check)

    def _read(self, sealed: Sealed, has_quote_check: NDArray[np.bool_]) -> None:
        quotes = sealed.quotes
        rows = np.flatnonzero(has_quote_check[quotes["instrument"]] & (quotes["sequence"] > 0))
        if len(rows):
            before = np.searchsorted(sealed.updates["frame"], sealed.quote_frames[rows])
            heard = quotes[rows]
            columns = [heard[name].tolist() for name in _FIELDS]
            self._quotes += zip(rows.tolist(), before.tolist(), *columns, strict=True)
            self._quotes.reverse()
        self.due = self._quotes[-1][1] if self._quotes else -1

    def take(self, taken: int, rows: int) -> Iterator[Quote]:
        """Take out the quotes that came after `taken` updates or fewer and are among the first
        `rows`: those after a hole wait for it.
        """
        quotes = self._quotes
        while quotes and quotes[-1][0] < rows and quotes[-1][1] <= taken:
            _, _, instrument, number, ts_recv, bid, bid_size, ask, ask_size = quotes.pop()
            yield instrument, number, ts_recv, (bid, bid_size, ask, ask_size)
        self.due = quotes[-1][1] if quotes else -1
