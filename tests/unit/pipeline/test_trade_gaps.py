"""Lost trades: found by their numbers, whatever the flushes; filled once; given up aloud."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import LostTrades, TradeNumbers
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import TRADE, Cause, Flag, Kind, Rows
from ingestor.pipeline.trade_gaps import RANGES_MAX, RENUMBERED, Lost, TradeGaps

NUMBERS = {
    "A": TradeNumbers.CONSECUTIVE,
    "B": TradeNumbers.CONSECUTIVE,
    "S": TradeNumbers.SPANS,
    "U": TradeNumbers.ASCENDING,
    "N": TradeNumbers.NONE,
}
NAMES = list(NUMBERS)
KEY = ("acme", "spot")


def gaps_of() -> TradeGaps:
    table = InstrumentTable(
        instrument("acme", "spot", name, f"{name}-USD", name, "USD", "1", "1") for name in NAMES
    )
    return TradeGaps(table, lambda number: NUMBERS[NAMES[number]])


def rows_of(words: str) -> Rows:
    """Return rows from short words: A5 is trade 5 of A, +A5 the same fetched later, A! a GAP that
    something else declared, S7-2 a trade that stands for 2 numbers below its own."""
    rows = np.zeros(len(words.split()), TRADE)
    for index, word in enumerate(words.split()):
        name = word.lstrip("+")[0]
        number = NAMES.index(name)
        if word.endswith("!"):
            row_class, kind = RowClass.TRADE, Kind.GAP
            rows[index] = control_row(row_class, kind, number, 9, cause=Cause.DISCONNECT)[0]
            continue
        sequence, _, span = word.lstrip("+")[1:].partition("-")
        row = rows[index]
        row["instrument"], row["sequence"], row["kind"] = number, int(sequence), Kind.TRADE
        row["trade_id_high"] = int(span or 0)
        row["flags"] = Flag.LAST | (Flag.BACKFILL if word.startswith("+") else 0)
        row["ts_event"] = row["ts_recv"] = 1_000 * int(sequence)
    return rows


def words_of(rows: Rows) -> str:
    """Return rows as `rows_of` takes them; a GAP of a range is A[5-7], a given up one A[5-7]x."""
    found = []
    for row in rows:
        name = NAMES[row["instrument"]]
        if row["kind"] == Kind.TRADE:
            mark = "+" if row["flags"] & Flag.BACKFILL else ""
            found.append(f"{mark}{name}{row['sequence']}")
            assert row["trade_id_high"] == 0
        elif row["side"] == Cause.DISCONNECT:
            found.append(f"{name}!")
        else:
            end = "x" if row["side"] == Cause.UNFILLED else ""
            found.append(f"{name}[{row['price']}-{row['size']}]{end}")
    return " ".join(found)


def taken(gaps: TradeGaps, words: str) -> str:
    return words_of(gaps.take(rows_of(words))[0])


@pytest.mark.parametrize(
    ("came", "published"),
    [
        ("A5 A6 A7", "A5 A6 A7"),
        ("A5 A8", "A5 A[6-7] A8"),
        ("A5 B9 A8 B10 B12", "A5 B9 A[6-7] A8 B10 B[11-11] B12"),
        ("A5 A8 A6 A9 A7", "A5 A[6-7] A8 A6 A9 A7"),  # late ones are no gap
        ("A5 A5 A4 A6", "A5 A5 A4 A6"),
        ("A5 A! A6 A! A9", "A5 A! A6 A! A[7-8] A9"),
        ("S5 S8-2 S12-2 S13", "S5 S8 S[9-9] S12 S13"),
        ("U5 U9 U! U10 U! U14", "U5 U9 U! U10 U! U[11-13] U14"),
        ("U5 U5 U! U5 U7", "U5 U5 U! U5 U[6-6] U7"),
        ("N5 N9 N! N20", "N5 N9 N! N20"),
        (f"A5 A{6 + RENUMBERED}", f"A5 A[6-{5 + RENUMBERED}] A{6 + RENUMBERED}"),
        (f"A5 A{7 + RENUMBERED} A{8 + RENUMBERED}",
         f"A5 A[0-0] A{7 + RENUMBERED} A{8 + RENUMBERED}"),
        ("A5 A8 +A6 +A6 +A9", "A5 A[6-7] A8 +A6"),
        ("A5 A8 +B6", "A5 A[6-7] A8"),
        ("+A6 A5 A8 +A7", "A5 A[6-7] A8 +A7"),
        ("U5 U! U20 +U12 +U30", "U5 U! U[6-19] U20 +U12"),
        ("S5 S9 +S7-1 +S6 +S8", "S5 S[6-8] S9 +S7 +S8"),
        ("S5 S9 S7-1 +S6 +S8", "S5 S[6-8] S9 S7 +S8"),
    ],
)  # fmt: skip
def test_what_is_published(came: str, published: str) -> None:
    assert taken(gaps_of(), came) == published
    gaps = gaps_of()  # the same, row by row
    assert " ".join(filter(None, (taken(gaps, word) for word in came.split()))) == published


@given(st.lists(st.integers(1, 30), max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_what_is_published_does_not_depend_on_the_flushes(
    numbers: list[int], cuts: list[int]
) -> None:
    rows = rows_of(" ".join(f"{'AU'[number % 2]}{number}" for number in numbers) or "N1")
    whole, _ = gaps_of().take(rows.copy())
    gaps = gaps_of()
    ends = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    parts = [gaps.take(rows[start:end].copy())[0] for start, end in pairwise(ends)]
    assert (np.concatenate(parts) == whole).all()


def found(gaps: TradeGaps) -> list[tuple[int, int]]:
    return [(one.trades.first, one.trades.last) for one in gaps.found()]


def left(gaps: TradeGaps, first: int, last: int) -> list[LostTrades]:
    lost = Lost(0, LostTrades(first, last, 0, 0))
    return [one.trades for one in gaps.left(lost)]


def test_ranges_are_told_once_with_the_times_around_them() -> None:
    gaps = gaps_of()
    taken(gaps, "A5 A8 A12")
    assert gaps.found() == [
        Lost(0, LostTrades(6, 7, 5_000, 8_000)),
        Lost(0, LostTrades(9, 11, 8_000, 12_000)),
    ]
    assert gaps.found() == []
    assert gaps.lost == {KEY: 5}


def test_a_range_shrinks_until_nothing_is_left() -> None:
    gaps = gaps_of()
    taken(gaps, "A5 A10 +A7 A8")  # the last one is late
    assert left(gaps, 6, 9) == [LostTrades(6, 6, 5_000, 7_000), LostTrades(9, 9, 8_000, 10_000)]
    assert left(gaps, 7, 9) == [LostTrades(9, 9, 8_000, 10_000)]
    taken(gaps, "+A6 +A9")
    assert left(gaps, 6, 9) == []
    assert gaps.filled == {KEY: 4}


def test_an_answer_covers_what_lies_between_its_ends() -> None:
    gaps = gaps_of()
    taken(gaps, "U5 U! U20 +U12 +U14")
    lost = Lost(NAMES.index("U"), LostTrades(6, 19, 0, 0))
    assert [one.trades for one in gaps.left(lost)] == [
        LostTrades(6, 11, 5_000, 12_000),
        LostTrades(15, 19, 14_000, 20_000),
    ]
    assert taken(gaps, "+U13 +U15") == "+U15"
    assert taken(gaps_of(), "U5 U! U20 +U4 +U8 +U8 +U21") == "U5 U! U[6-19] U20 +U8 +U8"


def test_what_is_given_up_is_declared_and_comes_no_more() -> None:
    gaps = gaps_of()
    taken(gaps, "A5 A10 +A7")
    assert not gaps.is_waiting
    gaps.give_up(Lost(0, LostTrades(6, 9, 0, 0)), 77)
    assert gaps.is_waiting
    assert taken(gaps, "A11") == "A[6-6]x A[8-9]x A11"
    assert not gaps.is_waiting
    rows, unwanted = gaps.take(rows_of("+A8 A12"))
    assert (words_of(rows), unwanted.tolist()) == ("A12", [0])
    assert gaps.unfilled == {KEY: 3}


def test_a_new_revision_goes_on() -> None:
    gaps = gaps_of()
    taken(gaps, "A5 A8")
    gaps.replace_instruments({0: 1})
    assert taken(gaps, "B9 +B6 B11") == "B9 +B6 B[10-10] B11"


def test_the_oldest_ranges_make_room() -> None:
    gaps = gaps_of()
    taken(gaps, " ".join(f"A{number}" for number in range(1, 2 * RANGES_MAX + 5, 2)))
    assert len(left(gaps, 1, 10_000)) == RANGES_MAX


def test_without_a_rule_nothing_is_looked_at() -> None:
    gaps = TradeGaps(InstrumentTable([instrument("a", "b", "A", "A", "A", "U", "1", "1")]), None)
    assert words(gaps.take(rows_of("A5 A9"))[0]) == [5, 9]


def words(rows: Iterable[np.void]) -> list[int]:
    return [int(row["sequence"]) for row in rows]
