"""ingestor.pipeline.arbitration: what two lines bring together, each row once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import BookRule, Continuity
from ingestor.columns.sealed import Gap, Sealed
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import QUOTE, TRADE, UPDATE, Cause, Flag
from ingestor.pipeline.arbitration import MEMORY, Arbiter

PAIRED = np.array([True, False])


class Nobody:
    """The source of all holes here. carried: its instruments."""

    def __init__(self, carried: Sequence[int] = (0,)) -> None:
        self._carried = carried

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return self._carried

    def count_refused(self, reason: str) -> None:
        raise AssertionError(reason)


def arbiter(continuity: Continuity = Continuity.INCREMENT) -> Arbiter:
    rule = BookRule(continuity)
    return Arbiter(lambda _number: rule)


def sealed(**parts: Any) -> Sealed:
    none: dict[str, Any] = {
        "trades": np.zeros(0, TRADE),
        "quotes": np.zeros(0, QUOTE),
        "updates": np.zeros(0, UPDATE),
    }
    found = none | parts
    count = int((found["updates"]["bids"] + found["updates"]["asks"].astype(np.int64)).sum())
    levels = parts.get("levels", np.arange(count, dtype=np.int64))
    return Sealed(
        *(found["trades"], found["quotes"], found["updates"], levels, levels),
        np.arange(len(found["quotes"]), dtype=np.int64),
        *([], []),
        holes=parts.get("holes", []),
    )


def trades(ids: Iterable[int], instrument: int = 0) -> np.ndarray[Any, Any]:
    ids = list(ids)
    rows = np.zeros(len(ids), TRADE)
    rows["trade_id_low"], rows["instrument"] = ids, instrument
    return rows


def updates(
    numbers: Iterable[int], ts_event: int | Sequence[int] = 0, flags: int = 0, levels: int = 2
) -> np.ndarray[Any, Any]:
    numbers = list(numbers)
    rows = np.zeros(len(numbers), UPDATE)
    rows["last"], rows["ts_event"] = numbers, ts_event
    rows["flags"], rows["bids"], rows["asks"] = flags, levels - 1, 1
    return rows


@st.composite
def two_lines(draw: st.DrawFn) -> list[int]:
    """Numbers as two lines bring them: in order on each, one of which may end or begin late."""
    count = draw(st.integers(1, 60))
    begin, end = sorted((draw(st.integers(0, count)), draw(st.integers(0, count))))
    first, second = [*range(end)], [*range(begin, count)]
    merged = []
    while first or second:
        line = first if first and (not second or draw(st.booleans())) else second
        merged.append(line.pop(0))
    return merged


@given(two_lines(), st.integers(1, 7))
def test_what_two_lines_bring_is_their_union(numbers: list[int], size: int) -> None:
    one = arbiter()
    kept: list[int] = []
    for at in range(0, len(numbers), size):
        part = sealed(trades=trades(number + 1 for number in numbers[at : at + size]))
        one.take(part, PAIRED)
        kept += part.trades["trade_id_low"].tolist()
    assert sorted(kept) == [number + 1 for number in sorted({*numbers})]


@pytest.mark.rows("D2")
def test_lines_that_lose_one_of_a_hundred_lose_nothing_together() -> None:
    """Each loses its own; one lags by 200 ms of 10,000 rows a second."""
    count, lag = 100_000, 2_000
    ids = np.arange(1, count + 1)
    lines = [ids[ids % 100 != 7], ids[ids % 100 != 61]]
    times = [lines[0], lines[1] + lag]
    order = np.argsort(np.concatenate(times), kind="stable")
    merged = np.concatenate(lines)[order]
    one = arbiter()
    kept: list[int] = []
    dropped = 0
    for part in np.array_split(merged, 50):
        flushed = sealed(trades=trades(part.tolist()))
        dropped += sum(map(len, one.take(flushed, PAIRED).values()))
        kept += flushed.trades["trade_id_low"].tolist()
    assert len(kept) == len({*kept}) == count
    assert dropped == len(merged) - count


def test_only_what_is_on_two_lines_is_judged() -> None:
    flushed = sealed(trades=np.concatenate([trades([1, 1]), trades([1, 1], instrument=1)]))
    dropped = arbiter().take(flushed, PAIRED)
    assert flushed.trades["instrument"].tolist() == [0, 1, 1]
    assert {one.name: rows.tolist() for one, rows in dropped.items()} == {"TRADE": [0]}


@pytest.mark.parametrize("levels", [1, 3])
def test_updates_go_with_their_levels_and_holes_keep_their_place(levels: int) -> None:
    hole = Gap(Nobody(), Cause.REJECTED, 0, update=3, trade=0, quote=0)
    flushed = sealed(updates=updates([5, 5, 6, 7, 6], levels=levels), holes=[hole])
    dropped = arbiter().take(flushed, PAIRED)
    assert flushed.updates["last"].tolist() == [5, 6, 7]
    assert len(flushed.prices) == len(flushed.sizes) == 3 * levels
    assert flushed.prices.tolist() == [
        place * levels + one for place in (0, 2, 3) for one in range(levels)
    ]
    assert hole.update == 2
    assert dropped[RowClass.LEVEL].tolist() == [0] * 2 * levels


def numbers_kept(one: Arbiter, rows: np.ndarray[Any, Any]) -> list[int]:
    flushed = sealed(updates=rows)
    one.take(flushed, PAIRED)
    found: list[int] = flushed.updates["last"].tolist()
    return found


def test_a_new_beginning_of_the_numbers_is_taken_once() -> None:
    one = arbiter()
    assert numbers_kept(one, updates([100, 101], [10, 11])) == [100, 101]
    assert numbers_kept(one, updates([1, 2], [20, 21])) == [1, 2]
    assert numbers_kept(one, updates([101, 102, 1, 2], [11, 12, 20, 21])) == []  # the other lags
    assert numbers_kept(one, updates([3], [22])) == [3]


def test_a_new_beginning_without_times_is_believed_after_a_while_or_a_loss_of_both() -> None:
    timeless = int(Flag.NO_VENUE_TIME)
    one = arbiter()
    assert numbers_kept(one, updates([100_000], flags=timeless)) == [100_000]
    assert numbers_kept(one, updates(range(1, 11), flags=timeless)) == []
    kept = numbers_kept(one, updates(range(11, 2 * MEMORY), flags=timeless))
    assert kept == [*range(MEMORY, 2 * MEMORY)]
    flushed = sealed(
        updates=updates([5, 6], flags=timeless),
        holes=[Gap(Nobody(), Cause.DISCONNECT, 0, update=1, trade=0, quote=0)],
    )
    one.take(flushed, PAIRED)
    assert flushed.updates["last"].tolist() == [6]
    assert numbers_kept(one, updates([7, 6], flags=timeless)) == [7]


def test_updates_without_numbers_are_told_by_what_they_say() -> None:
    one = arbiter(Continuity.NONE)
    rows = updates([0, 0, 0], [7, 7, 8])
    flushed = sealed(updates=rows, levels=np.array([1, 2, 1, 2, 1, 2], np.int64))
    one.take(flushed, PAIRED)
    assert flushed.updates["ts_event"].tolist() == [7, 8]
    assert len(flushed.prices) == 4


def test_an_answer_to_a_request_always_counts() -> None:
    one = arbiter()
    assert numbers_kept(one, updates([9])) == [9]
    assert numbers_kept(one, updates([9], flags=int(Flag.FETCHED | Flag.SNAPSHOT))) == [9]


@pytest.mark.parametrize("numbered", [True, False])
def test_quotes_by_number_or_by_what_they_say(numbered: bool) -> None:
    rows = np.zeros(4, QUOTE)
    rows["bid_price"], rows["ts_event"] = [1, 1, 2, 1], [1, 1, 2, 1]
    rows["ts_recv"] = [1, 2, 3, 4]
    rows["sequence"] = [2, 2, 3, 2] if numbered else 0
    flushed = sealed(quotes=rows)
    arbiter().take(flushed, PAIRED)
    assert flushed.quotes["bid_price"].tolist() == [1, 2]
    assert flushed.quote_frames.tolist() == [0, 2]


def test_new_revisions_go_on_where_the_old_ones_were() -> None:
    one = arbiter()
    one.take(sealed(trades=trades([1]), updates=updates([4])), PAIRED)
    one.replace_instruments({0: 2})
    later = sealed(trades=trades([1, 2], instrument=2), updates=updates([4, 5]))
    later.updates["instrument"] = 2
    one.take(later, np.array([False, False, True]))
    assert later.trades["trade_id_low"].tolist() == [2]
    assert later.updates["last"].tolist() == [5]
