"""What several workers have of one instrument is shown as one."""

from __future__ import annotations

from typing import Any

from ingestor.cluster.view import merged_last


def row(ts_recv: int) -> dict[str, Any]:
    return {"ts_recv": ts_recv}


def test_each_value_is_taken_from_who_has_it() -> None:
    trades = {"key": "a", "trade": row(5), "quote": None, "more": {"funding": [row(1)]}}
    quotes = {"key": "a", "trade": None, "quote": row(7), "more": {"candle": [row(2), row(3)]}}
    assert merged_last([None, trades, quotes]) == {
        "key": "a",
        "trade": row(5),
        "quote": row(7),
        "more": {"funding": [row(1)], "candle": [row(2), row(3)]},
    }
    assert merged_last([None, None]) is None
    assert trades["more"] == {"funding": [row(1)]}  # what was given stays as it was


def test_of_a_stream_that_moved_the_newer_row_counts() -> None:
    before = {"key": "a", "trade": row(5), "quote": None, "more": {"funding": [row(9)]}}
    after = {"key": "a", "trade": row(8), "quote": None, "more": {"funding": [row(4)]}}
    found = merged_last([before, after])
    assert found == {"key": "a", "trade": row(8), "quote": None, "more": {"funding": [row(9)]}}
