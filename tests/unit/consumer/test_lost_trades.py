"""Fetched trades are put behind the GAP that declares them missing."""

from __future__ import annotations

import pytest

from ingestor.consumer import in_place
from ingestor.model.rows import Cause
from tests.unit.pipeline.test_trade_gaps import gaps_of, rows_of, words_of


@pytest.mark.parametrize(
    ("came", "read"),
    [
        ("A1 A2", "A1 A2"),
        ("A1 A4 A5 +A2 +A3 A6", "A1 +A2 +A3 A4 A5 A6"),
        ("A1 A4 B7 +A3 B9 +B8 A5", "A1 A[2-3] +A3 A4 B7 +B8 B9 A5"),
        ("A1 A4 A7 +A6 +A5 +A3 +A2", "A1 +A2 +A3 A4 +A5 +A6 A7"),
        ("A1 A! A4 +A2 +A3", "A1 A! +A2 +A3 A4"),
    ],
)
def test_rows_in_place(came: str, read: str) -> None:
    rows, _ = gaps_of().take(rows_of(came))
    assert words_of(in_place(rows)) == read


def test_what_fills_no_gap_of_these_stays() -> None:
    rows, _ = gaps_of().take(rows_of("A1 A4 +A2 +A3 A5"))
    rest = rows[rows["side"] != Cause.SEQUENCE]  # the GAP is in an earlier batch
    assert words_of(in_place(rest)) == "A1 A4 +A2 +A3 A5"
