"""Books come and go; what is counted of them."""

from __future__ import annotations

from ingestor.books.manager import BookManager
from ingestor.model.timestamps import SECOND
from tests.fakes.books import SOCKET, SPOT, BookHarness


def test_a_forgotten_book_takes_its_held_rows_along() -> None:
    harness = BookHarness(SPOT)
    harness.delta(1, 1, [(8, 1)])
    harness.flush()
    harness.books.forget(0)
    harness.books.forget(0)
    output = harness.flush()
    assert (output.held, output.filtered) == (0, 1)


def test_statistics_count_the_time_without_a_book() -> None:
    harness = BookHarness(SOCKET)
    harness.delta(1, 1, [(8, 1)])
    harness.flush()
    line = harness.books.statistics(harness.now + 3 * SECOND)["acme", "spot"]
    assert (line.books, line.valid, line.invalid_s) == (1, 0, 3.0)


def test_books_need_no_settings() -> None:
    assert BookManager(BookHarness(SPOT).table, lambda _: SPOT).statistics() == {}
