"""Entries taken apart by kind, and groups that become single entries."""

from __future__ import annotations

import pytest

from ingestor.adapter.grouping import by_kind, flat


def test_kinds_keep_their_order() -> None:
    numbers, texts = range(5), list("abcde")
    assert dict(by_kind("xyxxy", numbers, texts)) == {
        "x": ([0, 2, 3], ["a", "c", "d"]),
        "y": ([1, 4], ["b", "e"]),
    }
    assert list(by_kind("xx", [1, 2])) == [("x", ([1, 2],))]


@pytest.mark.parametrize(
    ("groups", "entries", "column"),
    [
        ([[1], [2], [3]], [1, 2, 3], "abc"),
        ([[1, 2], [], [3]], [1, 2, 3], "aac"),
        ([[], [], []], [], ""),
        ([[1, 2], [3, 4], [5, 6]], [1, 2, 3, 4, 5, 6], "aabbcc"),
    ],
)
def test_each_entry_of_a_group_has_its_columns(
    groups: list[list[int]], entries: list[int], column: str
) -> None:
    found, texts, places = flat(groups, list("abc"), range(3))
    assert list(found) == entries
    assert "".join(texts) == column
    assert ["abc"[place] for place in places] == list(column)
