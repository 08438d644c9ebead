"""The books that are open, by instrument, and when each was last heard of."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Final

import numpy as np

from ingestor.adapter import BookRule
from ingestor.books.book import Book, open_book
from ingestor.books.flush import Flush, image
from ingestor.books.settings import BookSettings
from ingestor.books.statistics import BookCounters, BookStatistics
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import LEVEL, UPDATE, Rows

_UNNOTED_MAX: Final = 1_024  # updates


class OpenBooks:
    """Opens each book when something is first heard of it, and counts by venue and market.

    has_quote_check: by instrument, whether its quotes prove its book. newest: by instrument, its
    newest update, for the times; as of the last `note`.
    """

    def __init__(
        self, table: InstrumentTable, rule_of: Callable[[int], BookRule], settings: BookSettings
    ) -> None:
        """rule_of: instrument number -> the rule of its market."""
        self._table = table
        self._rule_of = rule_of
        self._levels_max = settings.levels_max
        self._may_check_quotes = bool(settings.verify and settings.oracle_memory)
        self._counters: dict[tuple[str, str], BookCounters] = {}
        self._unnoted: list[Rows] = []  # updates that `newest` doesn't know yet, in order
        self._unnoted_count = 0
        self.by_instrument: dict[int, Book] = {}
        self.has_quote_check = np.zeros(0, np.bool_)
        self.newest = np.zeros(0, UPDATE)

    def book(self, instrument: int, now_ns: int) -> Book:
        """Return the book of an instrument, opened if it isn't yet."""
        book = self.by_instrument.get(instrument)
        if book is None:
            one = self._table[instrument]
            counters = self._counters.setdefault((one.venue, one.market), BookCounters())
            book = open_book(
                instrument, self._rule_of(instrument), counters, self._levels_max, now_ns
            )
            book.exponents = (one.price_exponent, one.size_exponent)
            self.by_instrument[instrument] = book
            self.has_quote_check[instrument] = book.remembers = bool(
                book.rule.verify_with_quotes and self._may_check_quotes
            )
        return book

    def valid(self, instrument: int) -> Book | None:
        """Return the book of an instrument if consumers may use it now."""
        book = self.by_instrument.get(instrument)
        return book if book is not None and book.is_valid else None

    def remove(self, instrument: int) -> Book | None:
        """Take out a book that will not be heard of again."""
        book = self.by_instrument.pop(instrument, None)
        if book is not None:
            book.take_back()
            self.has_quote_check[instrument] = False
        return book

    def move(self, old: int, new: int) -> None:
        """Let a book go on under the number of a new revision of its instrument."""
        self.by_instrument[old].take_back()
        self.by_instrument[new] = self.by_instrument.pop(old)
        self.has_quote_check[new], self.has_quote_check[old] = self.has_quote_check[old], False
        self.newest[new] = self.newest[old]
        self.newest[new]["instrument"] = new

    def fit(self, flush: Flush) -> None:
        """Open the books that begin with this flush; keep its updates until `note`."""
        self.fit_table()
        if not len(flush):
            return
        if (
            not self.by_instrument.keys()
            >= (heard := dict.fromkeys(flush.sealed.updates["instrument"].tolist())).keys()
        ):
            for instrument in heard:
                self.book(instrument, flush.now_ns)
        self._unnoted.append(flush.sealed.updates)
        self._unnoted_count += len(flush)
        if self._unnoted_count > _UNNOTED_MAX:
            self.note()

    def fit_table(self) -> None:
        """Make room for the instruments that were added to the table."""
        more = len(self._table) - len(self.has_quote_check)
        if more > 0:
            self.has_quote_check = np.concatenate([self.has_quote_check, np.zeros(more, np.bool_)])
            self.newest = np.concatenate([self.newest, np.zeros(more, UPDATE)])

    def note(self) -> None:
        """Note when each book was last heard of.

        Done for many flushes at once: it is rarely asked for, and each time costs as much as some
        levels.
        """
        if self._unnoted:
            updates = np.concatenate(self._unnoted)
            self.newest[updates["instrument"]] = updates
            self._unnoted.clear()
            self._unnoted_count = 0

    def images(self, instruments: Iterable[int], broken: Container[int], depth: int) -> Rows:
        """Return the best levels of valid books as LEVEL rows.

        Args:
            instruments: Whose books are shown.
            broken: Of these, the ones whose book is about to be broken.
            depth: Most levels a side.
        """
        self.note()
        parts = [
            image(book, depth, self.newest[book.instrument])
            for book in map(self.by_instrument.get, instruments)
            if book is not None and book.is_valid and book.instrument not in broken
        ]
        return np.concatenate(parts) if parts else np.empty(0, LEVEL)

    def statistics(self, now_ns: int | None = None) -> dict[tuple[str, str], BookStatistics]:
        """Return the sums by (venue, market). now_ns: counts the invalid times that still last."""
        sums = {
            key: [0, 0, 0, counters.invalid_ns] for key, counters in self._counters.items()
        }  # books, valid, held, invalid_ns
        for book in self.by_instrument.values():
            one = self._table[book.instrument]
            line = sums[one.venue, one.market]
            line[0] += 1
            line[1] += book.is_valid
            line[2] += book.held_levels
            if now_ns is not None and not book.is_valid:
                line[3] += now_ns - book.invalid_since_ns
        return {
            key: self._counters[key].reading(books, valid, held, invalid_ns)
            for key, (books, valid, held, invalid_ns) in sums.items()
        }
