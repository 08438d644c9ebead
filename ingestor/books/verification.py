"""Proof of a book: its venue's checksum, or an independent stream of quotes; and what is counted.

Sequence numbers prove that nothing was lost on the way, not that the book is right. A checksum
does. Where a venue gives none, its quote stream may be an independent witness: a quote that carries
the number of a book update must show that update's best levels. The two streams are different
sockets or channels, so either may come first: what has no partner yet is remembered, within a
bound.

Venues that give neither are asked over REST for an image of a book, now and then. While one is
awaited, the book's best levels after each update are kept (its trail). An image that names one of
these states must equal it; one that names none proves the book if it equals any, and proves nothing
otherwise: it may show a moment between two updates.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import itemgetter
from typing import Final

from ingestor.books.book import BestBidAsk, Book, Recent
from ingestor.books.rest_check import note
from ingestor.model.book_side import BookSide, text_checksum
from ingestor.model.decimals import format_decimal
from ingestor.model.rows import Cause, Flag

_CHECKSUM: Final = int(Flag.CHECKSUM)
_NUMBER: Final = itemgetter(0)


def prove(book: Book, last: int, flags: int, checksum: int, memory: int) -> Cause | None:
    """Return what is wrong with a book, if anything, now that it holds an update's levels.

    Args:
        book: the book.
        last: number of the update.
        flags: of the update.
        checksum: of the update.
        memory: as in `verify`; 0 where nothing is compared.
    """
    book.last = last
    book.counters.updates += 1
    bids, asks = book.bids, book.asks
    # prices of bids and minus those of asks
    if bids.best + asks.best >= 0 and not book.rule.may_cross:
        book.counters.crossed += 1
        return Cause.CROSSED
    if bids.is_over or asks.is_over:
        book.cut()
    elif book.trimmed and (bids.is_short() or asks.is_short()):
        return Cause.SHED
    if book.is_provable and memory:
        return verify(book, flags, checksum, memory)
    return None


def verify(book: Book, flags: int, checksum: int, memory: int) -> Cause | None:
    """Compare a book that was just updated with the venue's checksum or quotes.

    Args:
        book: The book after the update.
        flags: Bits of `Flag` of the update.
        checksum: The update's checksum.
        memory: Quotes that are remembered. Quotes run ahead of updates far more often than
            behind them, so an eighth as many tops of book are remembered for later quotes.

    Returns:
        CHECKSUM if they differ, else None.
    """
    if book.history is not None:
        has_mark = checksum and not flags & _CHECKSUM
        note(book, book.history, checksum if has_mark else book.last)
    if flags & _CHECKSUM and book.rule.has_checksum:
        texts = book.texts
        found = text_checksum(*texts) if texts is not None else _checksum_of(book)
        return _count(book, found == checksum)
    if book.has_quote_check and book.last:
        if book.recent_quotes:
            quote = _partner(book.recent_quotes, book.last)
            if quote is not None:
                return _count(book, quote == book.top())
        remember(book, memory // 8)
    return None


def remember(book: Book, tops_max: int) -> None:
    """Keep the book's top for the quote of its newest update."""
    tops = book.recent_tops
    tops.append((book.last, book.top()))
    if len(tops) > tops_max:
        del tops[: tops_max // 2]


def verify_quote(book: Book, number: int, quote: BestBidAsk, memory: int) -> Cause | None:
    """Compare a quote with the update of its number, or remember it for an update to come.

    Only a book of which an update is known has updates to come that are worth it.

    Args:
        book: The quote's book.
        number: The quote's update number.
        quote: Best bid and ask.
        memory: Quotes that are remembered.

    Returns:
        CHECKSUM if they differ, else None.
    """
    top = _partner(book.recent_tops, number)
    if top is not None:
        return _count(book, quote == top)
    if number > book.last and (book.last or book.held):
        quotes = book.recent_quotes
        if quotes and number < quotes[-1][0]:
            quotes.clear()  # the venue restarted its numbers
        quotes.append((number, quote))
        if len(quotes) > memory:
            del quotes[: memory // 2]
    return None


def _partner(recent: Recent, number: int) -> BestBidAsk | None:
    """Take what bears this number out of `recent`, and all before it: numbers ascend."""
    if not recent or number < recent[0][0]:
        return None
    newest, top = recent[-1]
    if newest <= number:
        recent.clear()
        return top if newest == number else None
    at = bisect_left(recent, number, key=_NUMBER)
    found, top = recent[at]
    del recent[: at + (found == number)]
    return top if found == number else None


def _checksum_of(book: Book) -> int:
    """Return the checksum of a book whose venue's is no CRC32 of one text per level."""
    rule, depth = book.rule, book.rule.checksum_depth
    bids, asks = _levels(book.bids, depth, 1), _levels(book.asks, depth, -1)
    if rule.checksum_of_decimals is not None:
        exponents = book.exponents
        return rule.checksum_of_decimals(_decimals(bids, exponents), _decimals(asks, exponents))
    assert rule.checksum is not None
    return rule.checksum(bids, asks)


def _decimals(levels: list[tuple[int, int]], exponents: tuple[int, int]) -> list[tuple[str, str]]:
    of_price, of_size = exponents
    return [(_decimal(price, of_price), _decimal(size, of_size)) for price, size in levels]


def _decimal(number: int, exponent: int) -> str:
    text = format_decimal(number, exponent)
    return text.rstrip("0").rstrip(".") if exponent else text


def _levels(side: BookSide, depth: int, sign: int) -> list[tuple[int, int]]:
    return [(sign * key, size) for key, size in side.top(depth)]


def _count(book: Book, agrees: bool) -> Cause | None:
    if agrees:
        book.counters.verified += 1
        return None
    book.counters.mismatched += 1
    return Cause.CHECKSUM
