"""Which books begin anew, when, and what the recording says of it."""

from __future__ import annotations

import asyncio

from ingestor.app.invalid_books import InvalidBooks
from ingestor.model.clocks import Clocks
from ingestor.model.row_classes import RowClass
from tests.fakes.books import SOCKET, BookHarness, live


def made_of(harness: BookHarness, flushed: list[int]) -> InvalidBooks:
    """Return what invalidates the books of a harness; `flushed` gets an entry for each flush."""

    def flush() -> None:
        flushed.append(len(harness.published))
        harness.flush()

    return InvalidBooks(harness.books, harness.table, flush, None, Clocks())


async def test_a_book_whose_levels_were_shed_begins_anew_once_in_the_next_turn() -> None:
    harness, flushed = live(SOCKET), list[int]()
    books = made_of(harness, flushed)
    books.shed(RowClass.TRADE, 1)
    books.shed(RowClass.LEVEL, 0)
    books.shed(RowClass.LEVEL, 0)
    assert not flushed, "not while the sink is at work"
    await asyncio.sleep(0)
    assert len(flushed) == 1
    assert harness.books.is_valid(0)
    harness.flush()
    assert harness.published == ["GAP SHED 0-0"]
    assert not harness.books.is_valid(0)


async def test_what_was_shed_follows_a_new_revision() -> None:
    harness = live(SOCKET)
    books = made_of(harness, [])
    books.shed(RowClass.LEVEL, 1)
    books.replace_instruments({1: 0})
    await asyncio.sleep(0)
    harness.flush()
    assert harness.published == ["GAP SHED 0-0"]


def test_a_contradicted_book_begins_anew_at_once() -> None:
    harness, flushed = live(SOCKET), list[int]()
    made_of(harness, flushed).contradicted(0)
    harness.flush()
    assert flushed == [0]
    assert harness.published == ["GAP CHECKSUM 0-0"]
