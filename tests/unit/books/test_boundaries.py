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
from tests.fakes.books import SOCKET, SPOT, Desk

FAILURES = [RuntimeError, OSError, StopIteration, struct.error, ArithmeticError, MemoryError]
BIDS, ASKS = [(10, 5), (9, 4)], [(11, 6), (12, 7)]

each_failure = pytest.mark.parametrize("failure", FAILURES)


def two_live_books() -> Desk:
    desk = Desk(SOCKET)
    for instrument in (0, 1):
        desk.snapshot(100, BIDS, ASKS, instrument=instrument)
    desk.flush()
    desk.published.clear()
    return desk


def break_side(monkeypatch: pytest.MonkeyPatch, book: Book, failure: type[Exception]) -> None:
    """Let the next update of a book's bids raise."""
    apply = BookSide.apply

    def failing(side: BookSide, levels: Iterable[tuple[int, int]], top: int) -> None:
        if side is book.bids:
            raise failure("odd")
        apply(side, levels, top)

    monkeypatch.setattr(BookSide, "apply", failing)


@each_failure
def test_an_update_that_raises_costs_its_own_book(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    desk = two_live_books()
    book = desk.books.valid_book(0)
    assert book is not None
    with monkeypatch.context() as patch:
        break_side(patch, book, failure)
        for number in (101, 102):
            desk.delta(number, number, [(8, 1)], [(13, 2)], instrument=0)
            desk.delta(number, number, [(8, 1)], [(13, 2)], instrument=1)
        output = desk.flush()
    assert [(number, type(found)) for number, found in output.bugs] == [(0, failure)]
    assert desk.published == ["GAP REJECTED 0-0", "b8=1", "a13=2.", "b8=1", "a13=2."]
    assert desk.book(1) == ({10: 5, 9: 4, 8: 1}, {11: 6, 12: 7, 13: 2})
    with pytest.raises(BookInvalid):
        desk.book(0)
    assert [repair.instrument for repair in output.repairs] == [0]
    desk.snapshot(102, BIDS, ASKS)
    desk.flush()
    assert desk.book(0) == (dict(BIDS), dict(ASKS))


@each_failure
def test_a_quote_that_raises_costs_its_own_book(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    desk = Desk(SPOT)
    for instrument in (0, 1):
        desk.delta(101, 101, instrument=instrument)
        desk.snapshot(100, BIDS, ASKS, instrument=instrument)
    desk.flush()
    desk.published.clear()

    def failing(*_: object) -> None:
        raise failure("odd")

    monkeypatch.setattr(module, "verify_quote", failing)
    desk.delta(102, 102, [(8, 1)], instrument=1)
    desk.quote(101, (10, 5), (11, 6))
    desk.delta(103, 103, [(7, 1)], instrument=1)
    output = desk.flush()
    assert [number for number, _ in output.bugs] == [0]
    assert [word for word in desk.published if word.startswith("b")] == ["b8=1.", "b7=1."]
    assert desk.published.count("GAP REJECTED 0-0") == 1


def test_a_bug_leaves_no_trace_in_the_next_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = two_live_books()
    book = desk.books.valid_book(0)
    assert book is not None
    with monkeypatch.context() as patch:
        break_side(patch, book, RuntimeError)
        desk.delta(101, 101, [(8, 1)])
        assert desk.flush().bugs
    assert not desk.flush().bugs


def test_a_book_whose_exponents_stay_goes_on_under_its_new_number() -> None:
    desk = two_live_books()
    new = desk.table.add(replace(desk.table[0], tick_size="5"))
    desk.books.replace_instruments({0: new}, desk.now)
    desk.delta(101, 101, [(8, 1)], instrument=new)
    desk.flush()
    assert desk.published == ["b8=1."]
    assert desk.books.is_valid(new)
    assert not desk.books.is_valid(0)


def test_a_book_whose_exponents_change_begins_anew_with_a_gap() -> None:
    desk = two_live_books()
    new = desk.table.add(replace(desk.table[0], tick_size="0.1", price_exponent=1))
    desk.books.replace_instruments({0: new}, desk.now)
    output = desk.flush()
    assert desk.published == ["GAP REJECTED 0-0"]
    assert [repair.instrument for repair in output.repairs] == [new]
    assert desk.books.is_valid(1)
