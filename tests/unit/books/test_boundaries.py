"""The boundary of a book: an exception in its code costs that book, and no other of the flush."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

import pytest

from ingestor.books import manager as module
from ingestor.books.book import Book
from ingestor.consumer.orderbook import BookInvalid
from ingestor.model.book_side import BookSide
from tests.fakes.books import SOCKET, SPOT, BookHarness

FAILURES = [RuntimeError, OSError, StopIteration, struct.error, ArithmeticError, MemoryError]
BIDS, ASKS = [(10, 5), (9, 4)], [(11, 6), (12, 7)]

each_failure = pytest.mark.parametrize("failure", FAILURES)


def two_live_books() -> BookHarness:
    harness = BookHarness(SOCKET)
    for instrument in (0, 1):
        harness.snapshot(100, BIDS, ASKS, instrument=instrument)
    harness.flush()
    harness.published.clear()
    return harness


def break_side(monkeypatch: pytest.MonkeyPatch, book: Book, failure: type[Exception]) -> None:
    """Let the next update of a book's bids raise."""
    apply = BookSide.apply

    def failing(side: BookSide, levels: Iterable[tuple[int, int]], top: int) -> None:
        if side is book.bids:
            raise failure("odd")
        apply(side, levels, top)

    monkeypatch.setattr(BookSide, "apply", failing)


@pytest.mark.rows("I1")
@each_failure
def test_an_update_that_raises_costs_its_own_book(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    harness = two_live_books()
    book = harness.books.valid_book(0)
    assert book is not None
    with monkeypatch.context() as patch:
        break_side(patch, book, failure)
        for number in (101, 102):
            harness.delta(number, number, [(8, 1)], [(13, 2)], instrument=0)
            harness.delta(number, number, [(8, 1)], [(13, 2)], instrument=1)
        output = harness.flush()
    assert [(number, type(found)) for number, found in output.bugs] == [(0, failure)]
    assert harness.published == ["GAP REJECTED 0-0", "b8=1", "a13=2.", "b8=1", "a13=2."]
    assert harness.book(1) == ({10: 5, 9: 4, 8: 1}, {11: 6, 12: 7, 13: 2})
    with pytest.raises(BookInvalid):
        harness.book(0)
    assert [repair.instrument for repair in output.repairs] == [0]
    harness.snapshot(102, BIDS, ASKS)
    harness.flush()
    assert harness.book(0) == (dict(BIDS), dict(ASKS))


@each_failure
def test_a_quote_that_raises_costs_its_own_book(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    harness = BookHarness(SPOT)
    for instrument in (0, 1):
        harness.delta(101, 101, instrument=instrument)
        harness.snapshot(100, BIDS, ASKS, instrument=instrument)
    harness.flush()
    harness.published.clear()

    def failing(*_: object) -> None:
        raise failure("odd")

    monkeypatch.setattr(module, "verify_quote", failing)
    harness.delta(102, 102, [(8, 1)], instrument=1)
    harness.quote(101, (10, 5), (11, 6))
    harness.delta(103, 103, [(7, 1)], instrument=1)
    output = harness.flush()
    assert [number for number, _ in output.bugs] == [0]
    assert [word for word in harness.published if word.startswith("b")] == ["b8=1.", "b7=1."]
    assert harness.published.count("GAP REJECTED 0-0") == 1


def test_a_bug_leaves_no_trace_in_the_next_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = two_live_books()
    book = harness.books.valid_book(0)
    assert book is not None
    with monkeypatch.context() as patch:
        break_side(patch, book, RuntimeError)
        harness.delta(101, 101, [(8, 1)])
        assert harness.flush().bugs
    assert not harness.flush().bugs


def test_a_book_whose_exponents_stay_goes_on_under_its_new_number() -> None:
    harness = two_live_books()
    new = harness.table.add(replace(harness.table[0], tick_size="5"))
    harness.books.replace_instruments({0: new}, harness.now)
    harness.delta(101, 101, [(8, 1)], instrument=new)
    harness.flush()
    assert harness.published == ["b8=1."]
    assert harness.books.is_valid(new)
    assert not harness.books.is_valid(0)


@pytest.mark.rows("I2")
def test_a_book_whose_exponents_change_begins_anew_with_a_gap() -> None:
    harness = two_live_books()
    new = harness.table.add(replace(harness.table[0], tick_size="0.1", price_exponent=1))
    harness.books.replace_instruments({0: new}, harness.now)
    output = harness.flush()
    assert harness.published == ["GAP REJECTED 0-0"]
    assert [repair.instrument for repair in output.repairs] == [new]
    assert harness.books.is_valid(1)
