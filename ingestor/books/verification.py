"""Proof of a book: its venue's checksum, or an independent stream of quotes; and what is counted.

Sequence numbers prove that nothing was lost on the way, not that the book is right. A checksum does
(Kraken). Where a venue gives none, its quote stream is an independent witness: a quote that carries
the number of a book update must show that update's best levels (Binance). The two streams are
different sockets or channels, so either may come first: what has no partner yet is remembered,
within a bound.

Venues that give neither are asked over REST for an image of a book, now and then. While one is
awaited, the book's best levels after each update are kept (its trail). An image that names one of
these states must equal it; one that names none proves the book if it equals any, and proves nothing
otherwise: it may show a moment between two updates.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from operator import itemgetter
from typing import Final

from ingestor.adapter import AuditImage
from ingestor.books.book import Book, Recent, Shown, Top, Trail
from ingestor.model.book_side import NEAR_MIN, Ladder, text_checksum
from ingestor.model.decimals import parse_decimal
from ingestor.model.rows import Cause, Flag

AUDIT_DEPTH: Final = NEAR_MIN  # levels a side that are compared: those always at hand
_CHECKSUM: Final = int(Flag.CHECKSUM)
_STATES_MAX: Final = 512
_NUMBER: Final = itemgetter(0)


def contradiction(book: Book, flags: int, checksum: int, memory: int) -> Cause | None:
    """Compare a book that was just updated with what proves it; return CHECKSUM or None.

    flags, checksum: of the update. memory: an eighth of it in tops of book is remembered, for
    quotes that come later. (Quotes run ahead of updates far more often than behind.)
    """
    if flags & _CHECKSUM and book.rule.checksum is not None:
        texts = book.texts
        found = text_checksum(*texts) if texts is not None else _checksum_of(book)
        return _count(book, found == checksum)
    if book.has_oracle and book.last:
        if book.recent_quotes:
            quote = _partner(book.recent_quotes, book.last)
            if quote is not None:
                return _count(book, quote == book.top())
        remember(book, memory // 8)
    elif book.trail is not None:
        note(book, book.trail, checksum)
    return None


def remember(book: Book, tops_max: int) -> None:
    """Keep the book's top for the quote of its newest update."""
    tops = book.recent_tops
    tops.append((book.last, book.top()))
    if len(tops) > tops_max:
        del tops[: tops_max // 2]


def witness(book: Book, number: int, quote: Top, memory: int) -> Cause | None:
    """Take a quote: compare it with the update of its number, or remember it for one to come.

    Only a book of which an update is known has updates to come that are worth it.
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


def _partner(recent: Recent, number: int) -> Top | None:
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


class Finding(Enum):
    """What the comparison of a book with a REST image comes to."""

    VERIFIED = "verified"
    MISMATCHED = "mismatched"
    UNVERIFIABLE = "unverifiable"  # (so far: the update that it shows may still come)


def begin(book: Book) -> None:
    """Keep the book's trail from now on."""
    book.trail = Trail()
    book.is_provable = True
    book.settle()
    note(book, book.trail, 0)


def end(book: Book, outcome: str) -> None:
    """Keep no trail any more and count what the audit came to: a Finding's value, or "failed"."""
    book.trail = None
    book.is_provable = book.rule.quote_oracle or book.rule.checksum is not None
    book.settle()
    tally = book.tally
    tally.audits[outcome] = tally.audits.get(outcome, 0) + 1
    tally.verified += outcome == Finding.VERIFIED.value
    tally.mismatched += outcome == Finding.MISMATCHED.value


def note(book: Book, trail: Trail, mark: int) -> None:
    """Add the book's best levels to its trail."""
    trail.states.append((mark, book.bids.top(AUDIT_DEPTH), book.asks.top(AUDIT_DEPTH)))
    if len(trail.states) > _STATES_MAX:
        del trail.states[: _STATES_MAX // 2]


def read(image: AuditImage, price_exponent: int, size_exponent: int) -> Shown:
    """Return an image as a trail holds states. Raises ValueError for a bad number."""
    bids, asks = (
        [
            (sign * parse_decimal(price, price_exponent), parse_decimal(size, size_exponent))
            for price, size in side[:AUDIT_DEPTH]
        ]
        for sign, side in ((1, image.bids), (-1, image.asks))
    )
    return image.number, bids, asks


def compare(trail: Trail, shown: Shown) -> Finding:
    """Compare what an image of AUDIT_DEPTH levels shows with a trail."""
    number = shown[0]
    named = [state[1:] == shown[1:] for state in trail.states if state[0] == number != 0]
    if named:
        return Finding.VERIFIED if any(named) else Finding.MISMATCHED
    if any(state[1:] == shown[1:] for state in trail.states):
        return Finding.VERIFIED
    return Finding.UNVERIFIABLE


def _count(book: Book, agrees: bool) -> Cause | None:
    if agrees:
        book.tally.verified += 1
        return None
    book.tally.mismatched += 1
    return Cause.CHECKSUM


def _checksum_of(book: Book) -> int:
    """Return the checksum of a book whose venue's is no CRC32 of one text per level."""
    rule = book.rule
    assert rule.checksum is not None
    depth = rule.checksum_depth
    return rule.checksum(_levels(book.bids, depth, 1), _levels(book.asks, depth, -1))


def _levels(side: Ladder, depth: int, sign: int) -> list[tuple[int, int]]:
    return [(sign * key, size) for key, size in side.top(depth)]
