"""Each venue's sequence rule on hand-written numbers."""

from __future__ import annotations

import pytest

from ingestor.adapter import Continuity
from ingestor.books.book import Update
from ingestor.books.sequence import Continuation, bridges, continues, missing

CONTINUES, COVERED, MISSING = (
    Continuation.CONTINUES,
    Continuation.COVERED,
    Continuation.MISSING,
)
RANGE, PREVIOUS, INCREMENT = Continuity.RANGE, Continuity.PREVIOUS, Continuity.INCREMENT


def update(first: int, last: int, previous: int = 0) -> Update:
    return Update(0, 0, first, last, previous, 0, 0, [], [], [], [])


@pytest.mark.parametrize(
    ("rule", "in_book", "numbers", "verdict"),
    [
        (RANGE, 100, (101, 105), CONTINUES),
        (RANGE, 100, (102, 105), MISSING),
        (RANGE, 100, (99, 105), MISSING),  # overlaps: not what the document allows
        (RANGE, 100, (95, 100), COVERED),  # the same event twice
        (RANGE, 100, (90, 94), MISSING),  # older: reordered, or numbered anew
        (RANGE, 0, (0, 0), CONTINUES),  # no numbers: nothing to check
        (RANGE, 100, (0, 0), MISSING),  # a number that lacks does not switch the rule off
        (RANGE, 0, (500, 501), MISSING),
        (PREVIOUS, 100, (103, 105, 100), CONTINUES),
        (PREVIOUS, 100, (103, 105, 102), MISSING),
        (PREVIOUS, 100, (100, 100, 100), CONTINUES),  # OKX keep-alive
        (PREVIOUS, 100, (3, 3, 100), CONTINUES),  # OKX numbers restart
        (PREVIOUS, 100, (98, 100, 97), COVERED),
        (PREVIOUS, 100, (5, 5, 3), MISSING),
        (PREVIOUS, 0, (0, 0, 0), CONTINUES),  # frames from before seqId
        (PREVIOUS, 100, (105, 105, 0), MISSING),
        (PREVIOUS, 0, (105, 105, 104), MISSING),
        (INCREMENT, 100, (101, 101), CONTINUES),
        (INCREMENT, 100, (100, 100), COVERED),
        (INCREMENT, 100, (102, 102), MISSING),
        (INCREMENT, 0, (0, 0), CONTINUES),
        (INCREMENT, 100, (0, 0), MISSING),
        (Continuity.NONE, 100, (7, 7), CONTINUES),
        (Continuity.CONNECTION, 100, (107, 107), CONTINUES),
    ],
)
def test_deltas_after_deltas(
    rule: Continuity, in_book: int, numbers: tuple[int, ...], verdict: Continuation
) -> None:
    assert continues(rule, in_book, update(*numbers)) is verdict


@pytest.mark.parametrize(
    ("rule", "seed", "numbers", "verdict"),
    [
        (RANGE, 100, (90, 99), COVERED),
        (RANGE, 100, (95, 100), COVERED),  # spot: drop u <= lastUpdateId
        (RANGE, 100, (95, 101), CONTINUES),  # U <= lastUpdateId + 1 <= u
        (RANGE, 100, (101, 101), CONTINUES),
        (RANGE, 100, (102, 110), MISSING),
        (PREVIOUS, 100, (90, 99, 89), COVERED),
        (PREVIOUS, 100, (98, 105, 97), CONTINUES),  # futures: U <= lastUpdateId <= u
        (PREVIOUS, 100, (97, 100, 95), COVERED),
        (PREVIOUS, 100, (101, 105, 100), CONTINUES),  # the event before ended at the snapshot
        (PREVIOUS, 100, (103, 105, 98), CONTINUES),  # nothing of ours between 98 and 103
        (PREVIOUS, 100, (103, 105, 101), MISSING),
        (RANGE, 0, (0, 0), CONTINUES),
        (RANGE, 0, (500, 501), MISSING),
        (RANGE, 100, (0, 0), MISSING),
    ],
)
def test_the_first_delta_after_a_rest_snapshot(
    rule: Continuity, seed: int, numbers: tuple[int, ...], verdict: Continuation
) -> None:
    assert bridges(rule, seed, update(*numbers)) is verdict


@pytest.mark.parametrize(
    ("rule", "numbers", "hole"),
    [
        (RANGE, (104, 109), (101, 103)),
        (RANGE, (90, 94), (0, 0)),
        (PREVIOUS, (107, 109, 105), (101, 105)),
        (INCREMENT, (104, 104), (101, 103)),
        (INCREMENT, (50, 50), (0, 0)),
        (Continuity.NONE, (104, 104), (0, 0)),
    ],
)
def test_what_is_missing(rule: Continuity, numbers: tuple[int, ...], hole: tuple[int, int]) -> None:
    assert missing(rule, 100, update(*numbers)) == hole
