"""The edges of what the library looks at row by row."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ingestor.adapter import TradeNumbers
from ingestor.model.rows import TRADE, Flag, Kind, Rows
from ingestor.native import PYTHON_WAY, TradeFollower, native, take_highest

pytestmark = pytest.mark.skipif(native().library is None, reason="no compiled library")

HEADER = Path(__file__).parents[3] / "ingestor" / "native" / "src" / "flush.h"
NEXT = list(TradeNumbers).index(TradeNumbers.CONSECUTIVE)


def trades(*numbers: int) -> Rows:
    rows = np.zeros(len(numbers), TRADE)
    rows["sequence"], rows["kind"], rows["flags"] = numbers, Kind.TRADE, Flag.LAST
    rows["ts_event"] = [10 * number for number in numbers]
    return rows


def followed(rows: Rows, way: int = NEXT, last: int = 4) -> tuple[int, int, int]:
    """Return how many were taken, and the number and the time that were last then."""
    library = native().library
    assert library is not None
    follower = TradeFollower(library)
    state = np.array([way], np.uint8), np.array([last]), np.array([40])
    follower.use(*state)
    return follower.take(rows), int(state[1][0]), int(state[2][0])


def test_the_ways_are_those_of_the_adapters() -> None:
    names = re.findall(r"FOLLOW_(\w+)", HEADER.read_text())
    assert names == ["NONE", "HIGHER", "NEXT", "SPANS", "PYTHON"]
    assert [one.value for one in TradeNumbers] == ["none", "ascending", "consecutive", "spans"]
    assert names.index("PYTHON") == PYTHON_WAY


def test_it_stops_at_the_first_odd_trade() -> None:
    assert followed(trades(5, 6, 8, 9)) == (2, 6, 60)
    assert followed(trades(5, 5)) == (1, 5, 50)
    assert followed(trades(4)) == (0, 4, 40)
    assert followed(trades()) == (0, 4, 40)
    assert followed(trades(5), PYTHON_WAY) == (0, 4, 40)


def test_it_stops_at_a_mark_and_at_a_fetched_trade() -> None:
    for name, value in (("kind", Kind.GAP), ("flags", Flag.BACKFILL)):
        rows = trades(5, 6, 7)
        rows[name][1] = value
        assert followed(rows) == (1, 5, 50)


def test_a_number_beyond_63_bits_is_left_to_python() -> None:
    rows = trades(5, 6)
    rows["sequence"][1] = 2**64 - 1
    assert followed(rows) == (1, 5, 50)


def test_an_instrument_that_is_not_known_is_left_to_python() -> None:
    rows = trades(5, 6)
    rows["instrument"][1] = 1
    assert followed(rows) == (1, 5, 50)
    library = native().library
    assert library is not None
    highest = np.zeros(1, np.uint64)
    assert (take_highest(library, rows, highest), highest.tolist()) == (1, [5])


def test_rows_that_do_not_lie_together_are_left_to_python() -> None:
    assert followed(trades(5, 0, 6, 0)[::2]) == (0, 4, 40)
    read_only = trades(5)
    read_only.flags.writeable = False
    assert followed(read_only) == (0, 4, 40)


def test_resent_rows_end_the_look_for_the_highest_number() -> None:
    library = native().library
    assert library is not None
    for flag in (Flag.SNAPSHOT, Flag.BACKFILL):
        rows, highest = trades(7, 5, 9), np.array([6], np.uint64)
        rows["flags"][2] = flag
        assert (take_highest(library, rows, highest), highest.tolist()) == (2, [7])
