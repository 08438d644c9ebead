"""Books of which quotes alone are wanted, or levels alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ingestor.adapter import BookRule, Continuity
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind
from tests.fakes.books import BookHarness

RULE = BookRule(Continuity.INCREMENT, depth_max=2, quotes_from_book=True)
BIDS, ASKS = [(10, 5), (9, 4)], [(11, 6), (12, 7)]


class Subscribed:
    """A Source whose subscriptions change."""

    def __init__(self, *row_classes: RowClass) -> None:
        self.row_classes = row_classes

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return [0] if row_class in self.row_classes else []

    def count_refused(self, reason: str) -> None: ...


def subscribed(*row_classes: RowClass) -> tuple[BookHarness, Subscribed]:
    harness, source = BookHarness(RULE), Subscribed(*row_classes)
    harness.connection = source  # type: ignore[assignment]  # another Source
    harness.snapshot(100, BIDS, ASKS)
    return harness, source


def test_a_broken_book_ends_its_quotes_and_begins_them_anew() -> None:
    harness, _ = subscribed(RowClass.QUOTE, RowClass.LEVEL)
    harness.flush()
    harness.delta(103, 103, [(10, 6)])
    harness.delta(104, 104, [(10, 7)])
    harness.snapshot(110, BIDS, ASKS)
    quotes = harness.flush().quotes
    assert quotes["kind"].tolist() == [Kind.GAP, Kind.QUOTE]
    assert quotes[["side", "bid_price", "bid_size"]][0].tolist() == (Cause.SEQUENCE, 101, 102)
    assert quotes["sequence"][1] == 110  # although it shows what was shown before


@pytest.mark.parametrize("is_cut", [False, True])
def test_quotes_alone_need_the_book_and_no_level_of_it_is_published(is_cut: bool) -> None:
    harness, _ = subscribed(RowClass.QUOTE)
    harness.delta(101, 101, [(8, 1)] if is_cut else [(9, 1)])  # a third level falls out
    output = harness.flush()  # accounts for every level
    assert len(output.rows) == 0
    assert output.quotes["sequence"].tolist() == [100]
    assert (output.filtered, output.added, output.is_whole) == (5, [], False)
    harness.hole(Cause.REJECTED)
    output = harness.flush()
    assert output.quotes["kind"].tolist() == [Kind.GAP]
    assert [repair.instrument for repair in output.repairs] == [0]


def test_the_book_alone_gives_no_quotes() -> None:
    harness, _ = subscribed(RowClass.LEVEL)
    harness.hole(Cause.REJECTED)
    output = harness.flush()
    assert len(output.quotes) == 0
    assert output.rows["kind"].tolist() == [Kind.RESET, *[Kind.LEVEL] * 4, Kind.GAP]


def test_quotes_begin_when_they_come_to_a_book_that_goes_on() -> None:
    harness, source = subscribed(RowClass.LEVEL)
    harness.flush()
    source.row_classes = (RowClass.LEVEL, RowClass.QUOTE)
    added = Subscribed(RowClass.QUOTE)
    harness.buffer.hole(Cause.DISCONNECT, harness.now, source=added)
    harness.delta(101, 101, [(9, 1)])
    output = harness.flush()
    assert output.rows["kind"].tolist() == [Kind.LEVEL]
    assert output.quotes["sequence"].tolist() == [101]


def test_what_is_given_up_ends_with_a_gap() -> None:
    harness, source = subscribed(RowClass.QUOTE, RowClass.LEVEL)
    harness.flush()
    source.row_classes = ()
    given_up = Subscribed(RowClass.QUOTE, RowClass.LEVEL)
    harness.buffer.hole(Cause.DISCONNECT, harness.now, source=given_up)
    output = harness.flush()
    assert output.quotes["kind"].tolist() == output.rows["kind"].tolist() == [Kind.GAP]


@pytest.mark.parametrize(
    ("row_class", "is_concerned"),
    [(RowClass.TRADE, False), (RowClass.QUOTE, True), (RowClass.LEVEL, True), (None, True)],
)
def test_a_hole_of_either_class_breaks_the_book(
    row_class: RowClass | None, is_concerned: bool
) -> None:
    harness, source = subscribed(RowClass.QUOTE)
    harness.flush()
    harness.buffer.hole(Cause.REJECTED, harness.now, source=source, row_class=row_class)
    assert len(harness.flush().quotes) == is_concerned


def test_a_new_revision_has_what_the_old_one_had() -> None:
    harness, _ = subscribed(RowClass.QUOTE)
    harness.flush()
    harness.books.replace_instruments({0: 1}, harness.now)
    harness.delta(101, 101, [(10, 6)], instrument=1)
    output = harness.flush()
    assert len(output.rows) == 0
    assert output.quotes["instrument"].tolist() == [1]


def test_streams_that_begin_again_leave_their_book_as_it_is() -> None:
    """A snapshot follows, or has come before the venue confirms: the quotes alone have a hole."""
    harness, _ = subscribed(RowClass.QUOTE, RowClass.LEVEL)
    harness.flush()
    streams = Subscribed(RowClass.QUOTE)  # books are left out of such a hole
    for is_whole in (True, False):
        harness.buffer.hole(Cause.STALE, harness.now, source=streams, is_part=True)
        output = harness.flush()
        assert (len(output.rows), output.repairs) == (0, [])
        assert output.quotes[["kind", "side"]].tolist() == [(Kind.GAP, Cause.STALE)]
        if is_whole:
            harness.snapshot(110, BIDS, ASKS)
            output = harness.flush()
            assert output.rows["kind"].tolist() == [Kind.RESET, *[Kind.LEVEL] * 4]
            assert output.quotes["sequence"].tolist() == [110]
    assert harness.books.is_valid(0)
