"""Snapshots that don't stand in order among the updates: which updates they cover."""

from __future__ import annotations

from ingestor.adapter import BookRule, Continuity, SnapshotSource
from tests.fakes.books import ASKS, BIDS, BookHarness

TIMED = BookRule(Continuity.NONE, SnapshotSource.REST)


def test_where_numbers_are_times_a_snapshot_covers_what_is_older() -> None:
    harness = BookHarness(TIMED)
    harness.delta(100, 100, [(10, 1)])
    harness.delta(117, 117, [(9, 2)])
    harness.delta(133, 133, [(8, 3)])
    assert harness.flush().repairs
    harness.snapshot(120, [(10, 1), (9, 2)], ASKS)
    harness.flush()
    assert harness.book() == ({10: 1, 9: 2, 8: 3}, {11: 6, 12: 7})
    harness.delta(190, 190, [(8, 0)])
    harness.flush()
    assert harness.book() == ({10: 1, 9: 2}, {11: 6, 12: 7})


def test_a_snapshot_that_is_older_than_all_that_is_held_is_asked_for_again() -> None:
    harness = BookHarness(TIMED)
    harness.delta(100, 100, [(10, 1)])
    harness.flush()
    harness.snapshot(90, BIDS, ASKS)
    output = harness.flush()
    assert (output.held, len(output.repairs), harness.published) == (1, 1, [])
    harness.snapshot(100, BIDS, ASKS)
    harness.flush()
    assert harness.book() == (dict(BIDS), dict(ASKS))


def test_an_image_asked_for_on_the_socket_is_waited_for_first() -> None:
    """It was asked for with the subscription: only when it doesn't come is it asked for again."""
    harness = BookHarness(BookRule(Continuity.PREVIOUS, SnapshotSource.REQUEST))
    harness.delta(0, 105, [(10, 1)], previous=100)
    output = harness.flush()
    assert (output.held, output.repairs) == (1, [])
    harness.snapshot(103, BIDS, ASKS)
    harness.flush()
    assert harness.book() == ({10: 1, 9: 4}, dict(ASKS))
    late = BookHarness(BookRule(Continuity.PREVIOUS, SnapshotSource.REQUEST))
    late.delta(0, 105, [(10, 1)], previous=100)
    late.flush()
    assert late.flush(10.1).repairs
