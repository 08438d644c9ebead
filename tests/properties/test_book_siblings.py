"""One broken symbol costs its siblings on the connection nothing."""

from __future__ import annotations

from benchmarks.cases.books import siblings


def test_two_hundred_symbols_of_which_one_breaks_every_second_for_a_minute() -> None:
    """The lag of the others is a figure of `python -m benchmarks books`."""
    figures = siblings(60)
    assert figures["broken"] == figures["gaps"] == 60
    assert figures["sibling_rows_missing"] == 0
    assert figures["valid_at_end"] == figures["symbols"] == 200
