"""Proof of a book: its venue's checksum, or an independent stream of quotes; and what is counted.

Sequence numbers prove that nothing was lost on the way, not that the book is right. A checksum does
(Kraken). Where a venue gives none, its quote stream is an independent witness: a quote that carries
the number of a book update must show that update's best levels (Binance). The two streams are
different sockets or channels, so either may come first: what has no partner yet is remembered,
within a bound.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from ingestor.book_side import Ladder
from ingestor.book_state import Book, Top
from ingestor.rows import Cause, Flag

_CHECKSUM: Final = int(Flag.CHECKSUM)


def contradiction(book: Book, flags: int, checksum: int, memory: int) -> Cause | None:
    """Compare a book that was just updated with what proves it; return CHECKSUM or None.

    flags, checksum: of the update. memory: an eighth of it in tops of book is remembered, for
    quotes that come later. (Quotes run ahead of updates far more often than behind.)
    """
    if flags & _CHECKSUM and book.rule.checksum is not None:
        return _count(book, book_checksum(book) == checksum)
    if book.has_oracle and book.last:
        quotes, top = book.recent_quotes, book.top()
        if not quotes:
            _remember(book.recent_tops, book.last, top, memory // 8)
            return None
        quote = quotes.pop(book.last, None)
        if quotes:
            _forget_before(quotes, book.last)  # numbers ascend in both streams
        if quote is not None:
            return _count(book, quote == top)
        _remember(book.recent_tops, book.last, top, memory // 8)
    return None


def witness(book: Book, number: int, quote: Top, memory: int) -> Cause | None:
    """Take a quote: compare it with the update of its number, or remember it for one to come."""
    tops = book.recent_tops
    top = tops.pop(number, None)
    if tops:
        _forget_before(tops, number)
    if top is not None:
        return _count(book, quote == top)
    if number > book.last:
        _remember(book.recent_quotes, number, quote, memory)
    return None


def _count(book: Book, agrees: bool) -> Cause | None:
    if agrees:
        book.tally.verified += 1
        return None
    book.tally.mismatched += 1
    return Cause.CHECKSUM


def _remember(recent: dict[int, Top], number: int, top: Top, memory: int) -> None:
    recent[number] = top
    if len(recent) > memory:
        for old in list(recent)[: memory // 2]:  # in bulk: a dict is slow as a queue
            del recent[old]


def _forget_before(recent: dict[int, Top], number: int) -> None:
    for old in list(recent):
        if old >= number:
            break
        del recent[old]


def book_checksum(book: Book) -> int:
    """Return the checksum that the venue should have sent with the book as it is now."""
    if book.texts is not None:
        bids, asks = book.texts
        return crc32(bids.text(), asks.text_crc())
    rule = book.rule
    assert rule.checksum is not None
    depth = rule.checksum_depth
    return rule.checksum(_levels(book.bids, depth, 1), _levels(book.asks, depth, -1))


def _levels(side: Ladder, depth: int, sign: int) -> list[tuple[int, int]]:
    return [(sign * key, size) for key, size in side.top(depth)]
