"""Telling new rows from repeated and missing ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingestor.consumer import MissingRange, Progress

SESSION = bytes(16)


def hole(first: int, last: int) -> MissingRange:
    return MissingRange("t", 0, SESSION.hex(), first, last)


def test_repeated_rows_are_known_missing_ones_are_named() -> None:
    progress = Progress("t", 0)
    assert progress.expected(SESSION) is None
    assert progress.see(SESSION, 10, 5) == 0
    assert progress.see(SESSION, 10, 5) == 5
    assert progress.see(SESSION, 12, 5) == 3
    assert progress.see(SESSION, 20, 1) == 0
    assert progress.holes == [hole(17, 19)]
    assert progress.see(bytes([1] * 16), 3, 1) == 0
    assert (progress.rows, progress.duplicates) == (9, 8)
    assert progress.sessions() == {SESSION.hex(): 21, "01" * 16: 4}
    assert progress.expected(SESSION) == 21


def test_what_is_read_again_is_new_and_no_hole() -> None:
    progress = Progress("t", 0)
    progress.see(SESSION, 10, 5)
    progress.forget()
    assert progress.see(SESSION, 3, 5) == 0
    assert progress.see(SESSION, 8, 4) == 0
    assert not progress.holes


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=30))
def test_rows_and_holes_make_up_the_range(records: list[tuple[int, int]]) -> None:
    progress = Progress("t", 0)
    for first, rows in records:
        progress.see(SESSION, first, rows)
    missing = sum(one.last - one.first + 1 for one in progress.holes)
    if records:
        assert progress.rows + missing == progress.sessions()[SESSION.hex()] - records[0][0]
    assert progress.rows + progress.duplicates == sum(rows for _, rows in records)
