"""When a broken book is repaired, and when it is asked for again."""

from __future__ import annotations

from ingestor.books.settings import BookSettings
from ingestor.model.rows import Cause
from ingestor.model.timestamps import SECOND
from tests.fakes.books import ASKS, BIDS, SOCKET, live


def test_repairs_back_off_and_are_asked_for_again_until_a_snapshot_comes() -> None:
    harness = live(SOCKET, BookSettings(repairs_per_s=1_000))
    harness.delta(103, 103, [(8, 1)])
    waits, repairs = [], harness.flush().repairs
    for _ in range(9):
        waits.append(round((repairs[0].due_ns - harness.now) / SECOND))
        repairs = harness.flush(waits[-1] + 10).repairs
        assert len(repairs) == 1
        assert not harness.flush().repairs
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    harness.snapshot(200, BIDS, ASKS)
    harness.flush()
    assert not harness.flush(3_600).repairs
    harness.delta(300, 300, [(8, 1)])  # an hour of health: the back-off starts anew
    assert harness.flush().repairs[0].due_ns == harness.now
    assert harness.books.statistics()["acme", "spot"].repairs == {"sequence": 11}


def test_repairs_of_a_venue_are_spread() -> None:
    harness = live(SOCKET, BookSettings(repairs_per_s=2))
    harness.hole(Cause.REJECTED)
    due = [one.due_ns - harness.now for one in harness.flush().repairs]
    assert due == [0, SECOND // 2]


def test_a_repair_is_needed_until_a_snapshot_comes() -> None:
    harness = live(SOCKET)
    harness.delta(103, 103, [(8, 1)])
    [first] = harness.flush().repairs
    assert first.is_needed
    harness.snapshot(200, BIDS, ASKS)
    harness.flush()
    assert not first.is_needed
    harness.delta(300, 300, [(8, 1)])
    [second] = harness.flush().repairs
    assert (first.is_needed, second.is_needed) == (False, True)
    harness.hole(Cause.DISCONNECT)
    harness.flush()
    assert not second.is_needed
