"""Lends live books to the compiled library, which applies their plain updates.

A plain update is the next delta of a live book that nothing but its best levels must be asked
about. All others are Python's, and so is a book from the moment on that Python asks for its levels:
it comes back as it is, and is lent again a while later.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from ingestor.adapter import Continuity
from ingestor.books.book import Book, State
from ingestor.books.flush import Flush
from ingestor.books.open_books import OpenBooks
from ingestor.model.book_side import WHOLE_MAX
from ingestor.native import LentBooks, UpdateResult, native

_RULES: Final = {Continuity.RANGE: 0, Continuity.PREVIOUS: 1, Continuity.INCREMENT: 2}
_NO_RULE: Final = 3
_RESTS: Final = 32  # passes that a book stays with Python once it came back
_NO_LIMIT: Final = 2**32 - 1


class Lending:
    """Lends the books of one manager."""

    def __init__(self, lent: LentBooks, books: OpenBooks) -> None:
        self._lent = lent
        self._books = books

    def take(self, flush: Flush, end: int) -> list[int]:
        """Let the library take the plain updates before `end`, from the first that is not taken.

        `flush.skipped` says afterwards which ones need nothing more.

        Returns:
            Indices of updates whose levels are in their book, which Python has to judge now.
        """
        first, updates = flush.taken, flush.sealed.updates
        numbers = updates["instrument"][first:end].astype(np.int64)
        touched = np.unique(numbers)
        self._lent.fit(int(touched[-1]) + 1)
        lent = [self._lend(self._books.by_instrument[item]) for item in touched.tolist()]
        if not any(lent):
            return []
        sealed = flush.sealed
        level = flush.first_level(first)
        done = self._lent.take(updates, sealed.prices, sealed.sizes, (first, end, level))
        taken, counts = np.unique(numbers[done[first:end] == UpdateResult.DONE], return_counts=True)
        lasts = self._lent.last(taken)
        for number, count, last in zip(taken.tolist(), counts.tolist(), lasts, strict=True):
            book = self._books.by_instrument[number]
            book.last = last
            book.counters.updates += count
        flush.skip(done != UpdateResult.LEFT)
        for number in np.unique(numbers[done[first:end] != UpdateResult.DONE]).tolist():
            self._books.by_instrument[number].take_back()
        judged: list[int] = np.flatnonzero(done == UpdateResult.APPLIED).tolist()
        return judged

    def _lend(self, book: Book) -> bool:
        """Lend a book, or leave it lent, or take it back; return whether it is lent now."""
        is_fit = book.state is State.LIVE and book.is_simple and not book.remembers
        if not is_fit or book.recent_quotes:
            book.take_back()
            return False
        if book.giver is not None:
            return True
        if book.rests:
            book.rests -= 1
            return False
        bids, asks = book.own_bids.levels(), book.own_asks.levels()
        is_whole = book.limit <= WHOLE_MAX
        if not is_whole and 2 * max(len(bids[0]), len(asks[0])) > book.limit:
            return False
        limit = min(book.limit, _NO_LIMIT)
        self._lent.lend(
            book.instrument,
            bids,
            asks,
            last=book.last,
            rule=_RULES.get(book.continuity, _NO_RULE),
            limit=limit,
            most=_NO_LIMIT if is_whole else limit,
        )
        book.giver = partial(self._give_back, book.instrument)
        return True

    def _give_back(self, number: int, book: Book) -> None:
        bids, asks = self._lent.give_back(number)
        book.own_bids.load(*bids)
        book.own_asks.load(*asks)
        book.rests = _RESTS


def lending(books: OpenBooks) -> Lending | None:
    """Return what lends these books, None where there is no library."""
    library = native().library
    return Lending(LentBooks(library), books) if library is not None else None
