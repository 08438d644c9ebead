"""Compares a book with a REST image that names no update: where it fits, and what that proves."""

from __future__ import annotations

from enum import Enum
from itertools import pairwise
from typing import Final

from ingestor.adapter import Continuity, RestSnapshot
from ingestor.books.book import Book, BookState, StateHistory
from ingestor.model.book_side import TOP_LEVELS_MIN
from ingestor.model.decimals import parse_decimal

AUDIT_DEPTH: Final = TOP_LEVELS_MIN  # levels a side that are compared: those always at hand
_STATES_MAX: Final = 512

# Where an image's number is that of a book update, and not another mark of it.
_NUMBERED: Final = {Continuity.RANGE, Continuity.PREVIOUS}


class Finding(Enum):
    """Name the result of comparing a book with a REST image."""

    VERIFIED = "verified"
    MISMATCHED = "mismatched"
    UNVERIFIABLE = "unverifiable"  # (so far: the update that it shows may still come)


def note(book: Book, history: StateHistory, check_value: int) -> None:
    """Add the book's best levels to its states.

    Args:
        book: The book that is audited.
        history: Its states.
        check_value: The update's 32 bits by which an image may name this state.
    """
    history.states.append((check_value, book.bids.top(AUDIT_DEPTH), book.asks.top(AUDIT_DEPTH)))
    if len(history.states) > _STATES_MAX:
        del history.states[: _STATES_MAX // 2]


def read(
    image: RestSnapshot, price_exponent: int, size_exponent: int, depth: int = AUDIT_DEPTH
) -> BookState:
    """Return an image in the form of a book's states.

    Args:
        image: as the adapter read it.
        price_exponent: of the instrument.
        size_exponent: of the instrument.
        depth: levels a side that the book has, at most AUDIT_DEPTH.

    Raises:
        ValueError: for a bad number, and for what can be no book: a side without levels, or levels
            that are not ordered. A book that has but one side can't be compared.
    """
    if type(image.number) is not int or image.number < 0:
        raise ValueError(f"{image.number!r:.40} is no number of an update")
    bids, asks = (
        [
            (sign * parse_decimal(price, price_exponent), parse_decimal(size, size_exponent))
            for price, size in side[:depth]
        ]
        for sign, side in ((1, image.bids), (-1, image.asks))
    )
    for side in (bids, asks):
        if not side:
            raise ValueError("an image with an empty side")
        if not all(better[0] > worse[0] for better, worse in pairwise(side)):
            raise ValueError("levels of an image that are not ordered")
        if min(size for _, size in side) <= 0:
            raise ValueError("a level of an image without a size")
    if bids[-1][0] <= 0 or asks[0][0] >= 0:
        raise ValueError("a level of an image without a price")
    return image.number, bids, asks


class RestCheck:
    """The states of a valid book while an image of it is fetched. The book manager makes it."""

    def __init__(self, book: Book) -> None:
        self._book = book
        book.history = StateHistory()
        book.is_provable = True
        book.settle()
        note(book, book.history, book.last if book.continuity in _NUMBERED else 0)

    @property
    def states(self) -> list[BookState]:
        """The states that were kept, the oldest first; none once the book broke."""
        return self._book.history.states if self._book.history is not None else []

    @property
    def is_over(self) -> bool:
        """Say whether the book broke meanwhile."""
        return self._book.history is None

    def named(self, shown: BookState) -> BookState | None:
        """Return the newest state that an image names, None where it names none."""
        found = (state for state in reversed(self.states) if state[0] == shown[0] != 0)
        return next(found, None)

    def compare(self, shown: BookState) -> Finding:
        """Compare the states with what an image of AUDIT_DEPTH levels shows."""
        number = shown[0]
        named = [state[1:] == shown[1:] for state in self.states if state[0] == number != 0]
        if named:
            return Finding.VERIFIED if any(named) else Finding.MISMATCHED
        if any(state[1:] == shown[1:] for state in self.states):
            return Finding.VERIFIED
        return Finding.UNVERIFIABLE

    def finish(self, outcome: str) -> None:
        """Keep no more states, and count the outcome: a Finding's value, or "failed"."""
        book = self._book
        book.history = None
        book.is_provable = book.rule.verify_with_quotes or book.rule.has_checksum
        book.settle()
        counters = book.counters
        counters.audits[outcome] = counters.audits.get(outcome, 0) + 1
        counters.verified += outcome == Finding.VERIFIED.value
        counters.mismatched += outcome == Finding.MISMATCHED.value
