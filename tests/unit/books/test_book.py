"""The table of a book's states."""

from __future__ import annotations

from ingestor.books.book import NEXT, Event, State


def test_every_state_knows_every_event() -> None:
    assert set(NEXT) == {(state, event) for state in State for event in Event}
