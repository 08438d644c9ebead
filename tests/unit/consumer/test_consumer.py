"""Telling new rows from repeated and missing ones. Reading is tested in test_kafka.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingestor.consumer import MissingRange, Progress, remainder, void_of

SESSION = bytes(16)


def hole(first: int, last: int) -> MissingRange:
    return MissingRange("t", 0, SESSION.hex(), first, last)


def test_repeated_rows_are_known_missing_ones_are_named() -> None:
    progress = Progress("t", 0)
    assert progress.see(SESSION, 10, 5) == 0
    assert progress.see(SESSION, 10, 5) == 5
    assert progress.see(SESSION, 12, 5) == 3
    assert progress.see(SESSION, 20, 1) == 0
    assert progress.holes == [hole(17, 19)]
    assert progress.see(bytes([1] * 16), 3, 1) == 0
    assert (progress.rows, progress.duplicates) == (9, 8)
    assert progress.sessions() == {SESSION.hex(): 21, "01" * 16: 4}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=30))
def test_rows_and_holes_make_up_the_range(records: list[tuple[int, int]]) -> None:
    progress = Progress("t", 0)
    for first, rows in records:
        progress.see(SESSION, first, rows)
    missing = sum(one.last - one.first + 1 for one in progress.holes)
    if records:
        assert progress.rows + missing == progress.sessions()[SESSION.hex()] - records[0][0]
    assert progress.rows + progress.duplicates == sum(rows for _, rows in records)


def test_void_ranges_are_taken_out_of_holes() -> None:
    void = [hole(12, 13), hole(18, 25), hole(1, 10), MissingRange("u", 0, SESSION.hex(), 14, 15)]
    assert remainder(hole(10, 20), void) == [hole(11, 11), hole(14, 17)]
    assert remainder(hole(12, 13), void) == []
    assert remainder(hole(30, 31), void) == [hole(30, 31)]


def test_only_void_records_are_void() -> None:
    assert void_of(b'{"kind":"session_start"}') == []
    value = (
        b'{"kind":"void","topic":"t","partition":0,"session":"%b","first":3,"last":4,"reason":""}'
    )
    assert void_of(value % SESSION.hex().encode()) == [hole(3, 4)]
