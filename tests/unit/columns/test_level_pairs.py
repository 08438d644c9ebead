"""What is no list of pairs is refused, as lists and as JSON."""

from __future__ import annotations

import pytest

from ingestor.columns.buffer import ColumnBuffer
from tests.fakes.books import Connection


@pytest.mark.parametrize(
    "levels",
    [
        [["1"]],
        [["1", "2", "3"]],
        [["1", "2"], []],
        {},
        "",
        [{"1": "2"}],
        ["12"],
        [["1", "2"], None],
        5,
    ],
)
def test_what_is_no_level_is_refused_before_anything_is_appended(levels: list[list[str]]) -> None:
    buffer = ColumnBuffer()
    buffer.begin(Connection([0]), b"")
    with pytest.raises((ValueError, TypeError)):
        buffer.levels(0, 1, 1, 0, 0, [["1", "2"]], levels)
    assert buffer.rows == 0


@pytest.mark.parametrize(
    "side",
    [
        b'[["1","2"], ["3","4"]]',
        b'[["1","2","3"]]',
        b'[["1"]]',
        b'["1","2"]',
        b'[[1,"2"]]',
        b'[["1e5","2"]]',
        b'[["-1","2"]]',
        b'[["1","2"],]',
        b"[[]]",
        b"[5]",
        b"null",
        b"{}",
        b'[["1","2"]',
        b"",
    ],
)
def test_levels_of_another_form_are_left_to_others(side: bytes) -> None:
    buffer = ColumnBuffer()
    buffer.begin(Connection([0]), b"")
    assert not buffer.json_levels(0, 1, 1, 0, 0, b'[["1","2"]]', side)
    assert not buffer.json_levels(0, 1, 1, 0, 0, side, b"[]")
    for sides in ([b'[["1","2"]]', side], [side, b"[]"]):
        with pytest.raises(ValueError, match="plain decimals"):
            buffer.json_updates([0], [1], [1], [0], [0], sides, [0])
    assert buffer.rows == 0
