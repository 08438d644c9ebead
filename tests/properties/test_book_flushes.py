"""What becomes of a book depends on the order of what comes, not on where the flushes fall.

Live and in replay the same frames are cut into other flushes, and both must publish the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest

from ingestor.adapter import BookRule
from ingestor.books.flush import FEW
from ingestor.books.settings import BookSettings
from ingestor.books.statistics import BookStatistics
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import LEVEL, Cause, Flag, Kind, Rows
from ingestor.sinks.digest import Digest
from tests.fakes.books import FUTURES, SOCKET, SPOT, BookHarness, Pairs

Event = Callable[[BookHarness], None]
EVENTS = 400


def delta(first: int, last: int, bid: tuple[int, int], ask: tuple[int, int]) -> Event:
    return lambda harness: harness.delta(first, last, [bid], [ask], previous=first - 1)


def quoted(number: int, bid: tuple[int, int], ask: tuple[int, int]) -> Event:
    return lambda harness: harness.quote(number, bid, ask)


def imaged(number: int, bids: Pairs, asks: Pairs) -> Event:
    return lambda harness: harness.snapshot(number, bids, asks)


def story(seed: int) -> list[Event]:
    """Return what happens to one book: updates, quotes before and after theirs that agree or don't,
    lost and refused frames, REST snapshots."""
    rng = random.Random(seed)
    bids, asks, number = {10: 1}, {20: 1}, 100
    events: list[tuple[float, Event]] = []
    for at in range(EVENTS):
        first, number = number + 1, number + rng.randrange(1, 3)
        bid, ask = (rng.randrange(5, 15), rng.randrange(3)), (rng.randrange(15, 25), 1)
        bids[bid[0]], asks[ask[0]] = bid[1], ask[1]
        if rng.random() < 0.97:
            events.append((at, delta(first, number, bid, ask)))
        best_bid = max((one for one in bids.items() if one[1]), default=(0, 0))
        best_ask = min(asks.items())
        if rng.random() < 0.15:
            best_ask = best_ask[0], best_ask[1] + 1  # a quote that contradicts
        if rng.random() < 0.6:
            events.append((at + rng.uniform(-4, 4), quoted(number, best_bid, best_ask)))
        if rng.random() < 0.02:
            events.append((at + 0.5, lambda harness: harness.hole(Cause.REJECTED, [0])))
        if rng.random() < 0.2:
            image = imaged(number, list(bids.items()), list(asks.items()))
            events.append((at + rng.uniform(0, 3), image))
    return [event for _, event in sorted(events, key=lambda one: one[0])]


def told(rule: BookRule, events: list[Event], flushes: list[int]) -> tuple[Rows, BookStatistics]:
    """Return the rows of a story that is flushed after so many events, and again, and at the end,
    and what was counted."""
    harness = BookHarness(rule, BookSettings(oracle_memory=32, repairs_per_s=1_000_000))
    rows = [np.empty(0, LEVEL)]
    ends = set(accumulate(flushes))
    for count, event in enumerate(events, 1):
        harness.now += 1_000
        event(harness)
        if count in ends:
            rows.append(harness.flush().rows)
    rows.append(harness.flush().rows)
    return np.concatenate(rows), harness.books.statistics()["acme", "spot"]


def digest(rows: Rows) -> str:
    found = Digest()
    found.add(TickBatch(RowClass.LEVEL, rows, BookHarness(SPOT).table))
    return found.hexdigest()


@pytest.mark.parametrize("rule", [SPOT, FUTURES])
@pytest.mark.parametrize("seed", range(2))
def test_rows_do_not_depend_on_where_the_flushes_fall(rule: BookRule, seed: int) -> None:
    events = story(seed)
    rows, counted = told(rule, events, [])
    assert counted.verified > 10
    assert counted.mismatched > 5
    assert {Cause.CHECKSUM, Cause.SEQUENCE} <= set(rows["side"][rows["kind"] == 4].tolist())
    rng = random.Random(seed)
    for longest in (2, 10, 100):
        cut, counts = told(rule, events, [rng.randrange(1, longest) for _ in events])
        assert np.array_equal(rows, cut)
        assert digest(rows) == digest(cut)
        assert (counts.verified, counts.mismatched, counts.gaps, counts.resets) == (
            counted.verified,
            counted.mismatched,
            counted.gaps,
            counted.resets,
        )


def sides(rng: random.Random) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return a few bids and asks; either may be missing, or both."""
    bids = [(rng.randrange(5, 15), rng.randrange(3)) for _ in range(rng.randrange(4))]
    asks = [(rng.randrange(15, 25), rng.randrange(3)) for _ in range(rng.randrange(4))]
    return bids, asks


@pytest.mark.parametrize("seed", range(5))
def test_few_updates_give_the_rows_of_many(seed: int) -> None:
    """Small flushes are read and written without numpy."""
    rng = random.Random(seed)
    events = [sides(rng) for _ in range(5 * FEW)]
    events[FEW] = ([], [])
    found = []
    for updates in (1, FEW, FEW + 1, len(events)):
        harness = BookHarness(SOCKET)
        harness.snapshot(100, [(1, 1)], [(99, 1)], instrument=0)
        harness.snapshot(100, [(1, 1)], [(99, 1)], instrument=1)
        rows = [harness.flush().rows]
        for number, (bids, asks) in enumerate(events):
            flags = Flag.NO_VENUE_TIME if number % 3 else 0
            last = 101 + number // 2
            harness.now += 1_000
            harness.delta(0, last, bids, asks, instrument=number % 2, flags=flags)
            if (number + 1) % updates == 0:
                rows.append(harness.flush().rows)
        rows.append(harness.flush().rows)
        found.append(np.concatenate(rows))
        assert not (found[-1]["kind"] == Kind.GAP).any()
        image = harness.books.snapshots([0, 1]).rows
        assert set(image["ts_recv"].tolist()) == {harness.now, harness.now - 1_000}
    assert len(found[0]) > len(events)
    for other in found[1:]:
        assert np.array_equal(found[0], other)


def test_images_bear_the_time_of_the_newest_update_however_many_there_were() -> None:
    harness = BookHarness(SOCKET)
    harness.snapshot(100, [(1, 1)], [(99, 1)])
    harness.snapshot(100, [(1, 1)], [(99, 1)], instrument=1)
    harness.flush()
    quiet_since = harness.now
    for last in range(101, 101 + 2_000):
        harness.now += 1_000
        harness.delta(0, last, [(2, last)], [])
        if last % 100 == 0:
            harness.flush()
    harness.flush()
    image = harness.books.snapshots([0, 1]).rows
    assert set(image["ts_recv"][image["instrument"] == 0].tolist()) == {harness.now}
    assert set(image["ts_recv"][image["instrument"] == 1].tolist()) == {quiet_since}
