"""Which books a connection carries, and which of their rows somebody asked for.

Where quotes come from the book, a subscription to quotes alone needs the book all the same: it is
kept, verified and repaired, and its level rows are not published; nor are quotes that nobody asked
for.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from ingestor.adapter import BookRule
from ingestor.books.book import Book
from ingestor.books.flush import Flush
from ingestor.columns.sealed import Gap, Source
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause


class WantedRows:
    """Remember the channels that the newest connection of each book subscribed to."""

    def __init__(self, rule_of: Callable[[int], BookRule]) -> None:
        """rule_of: instrument number -> the rule of its market."""
        self._rule_of = rule_of
        self._without_levels: set[int] = set()
        self._without_quotes: set[int] = set()

    @property
    def without_levels(self) -> AbstractSet[int]:
        """The instruments of whose books no level rows are wanted."""
        return self._without_levels

    def has_quotes(self, book: Book) -> bool:
        """Return whether quotes are made of a book."""
        return book.quotes_from_book and book.instrument not in self._without_quotes

    def carried(self, hole: Gap) -> list[int]:
        """Return the instruments whose books a hole concerns."""
        if hole.row_class is RowClass.TRADE:
            return []
        quoted = hole.source.instruments(RowClass.QUOTE)
        needed = [channel for channel in quoted if self._rule_of(channel).quotes_from_book]
        if hole.row_class is not RowClass.QUOTE:
            needed += hole.source.instruments(RowClass.LEVEL)
        if hole.instruments is not None:
            named = set(hole.instruments)
            needed = [channel for channel in needed if channel in named]
        return list(dict.fromkeys(needed))

    def interrupt(self, flush: Flush, book: Book, hole: Gap) -> None:
        """Declare a hole in the quotes that are made of a book whose stream begins again.

        The book needs none: a snapshot follows, or has come already.

        Args:
            flush: The flush that is taken.
            book: The book.
            hole: Of the stream.
        """
        if not book.gap_open:
            self.end_quotes(flush, book, hole.ts_recv, hole.cause)

    def end_quotes(
        self, flush: Flush, book: Book, ts_recv: int, cause: Cause, first: int = 0, last: int = 0
    ) -> None:
        """Declare a hole in the quotes that are made of a book, if they are wanted.

        Args:
            flush: The flush that is taken.
            book: The book.
            ts_recv: Time of the GAP in ns.
            cause: Reason of the hole.
            first: First missing number, 0 = not known.
            last: Last missing number, 0 = not known.
        """
        if self.has_quotes(book):
            flush.quote_gap(book.instrument, ts_recv, cause, first, last)
        book.shown = None

    def is_elsewhere(self, book: Book, source: Source) -> bool:
        """Return whether another connection than this carries a book by now, or still does."""
        if book.source is None or book.source is source:
            return False
        return self.carry(book, book.source)

    def carry(self, book: Book, source: Source) -> bool:
        """Note who carries a book and which rows of it were asked for; return whether any."""
        book.source, instrument = source, book.instrument
        has_levels = instrument in source.instruments(RowClass.LEVEL)
        if not book.quotes_from_book:
            return has_levels
        has_quotes = instrument in source.instruments(RowClass.QUOTE)
        if not (has_levels or has_quotes):
            return False  # refused meanwhile: what came before that is still wanted
        if has_quotes and not self.has_quotes(book):
            book.shown = None
        _set(self._without_levels, instrument, is_in=not has_levels)
        _set(self._without_quotes, instrument, is_in=not has_quotes)
        return True

    def forget(self, instrument: int) -> None:
        """Drop what is known of a book that ended."""
        self._without_levels.discard(instrument)
        self._without_quotes.discard(instrument)

    def move(self, old: int, new: int) -> None:
        """Let a new revision of an instrument have what the old one had."""
        for without in (self._without_levels, self._without_quotes):
            _set(without, new, is_in=old in without)
            without.discard(old)


def _set(members: set[int], one: int, *, is_in: bool) -> None:
    if is_in:
        members.add(one)
    else:
        members.discard(one)
