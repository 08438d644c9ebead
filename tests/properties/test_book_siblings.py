"""One broken symbol costs its siblings on the connection nothing."""

from __future__ import annotations

import pytest

from benchmarks.cases.books import siblings


def test_two_hundred_symbols_of_which_one_breaks_every_second_for_ten_seconds() -> None:
    check_siblings(10)


@pytest.mark.long(minutes=1)
def test_two_hundred_symbols_of_which_one_breaks_every_second_for_a_minute() -> None:
    check_siblings(60)


def check_siblings(seconds: int) -> None:
    """The lag of the others is a figure of `python -m benchmarks books`."""
    figures = siblings(seconds)
    assert figures["broken"] == figures["gaps"] == seconds
    assert figures["sibling_rows_missing"] == 0
    assert figures["valid_at_end"] == figures["symbols"] == 200
