"""Books of images only: rows are what differs, and each image heals what came before it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import BookRule, Continuity
from ingestor.books.settings import BookSettings
from ingestor.model.rows import Cause, Flag
from tests.effort import tried
from tests.fakes.books import ASKS, BIDS, BookHarness, live, words

IMAGES = BookRule(Continuity.NONE, images_only=True)
QUOTED = BookRule(Continuity.NONE, images_only=True, quotes_from_book=True)
Sides = tuple[dict[int, int], dict[int, int]]


def image_of(harness: BookHarness, sides: Sides, flags: int = 0) -> None:
    bids, asks = sides
    harness.snapshot(0, sorted(bids.items(), reverse=True), sorted(asks.items()), flags=flags)


def test_what_differs_is_published_and_nothing_else() -> None:
    harness = live(IMAGES, last=0)
    harness.snapshot(0, [(10, 5), (8, 1)], [(11, 9), (12, 7)])
    output = harness.flush()
    assert harness.published == ["b8=1", "b9=0", "a11=9."]
    assert (output.filtered, len(output.added)) == (2, 1)
    assert harness.book() == ({10: 5, 8: 1}, {11: 9, 12: 7})
    assert not output.repairs


def test_an_equal_image_gives_no_row() -> None:
    harness = live(IMAGES, last=0)
    harness.snapshot(0, BIDS, ASKS)
    output = harness.flush()
    assert (harness.published, output.filtered) == ([], 4)


def test_an_empty_image_empties_the_book() -> None:
    harness = live(IMAGES, last=0)
    harness.snapshot(0, [], [])
    harness.flush()
    assert harness.published == ["b10=0", "b9=0", "a11=0", "a12=0."]
    assert harness.book() == ({}, {})


def test_after_a_hole_the_next_image_begins_anew() -> None:
    harness = live(IMAGES, last=0)
    harness.hole(Cause.DISCONNECT, [0])
    harness.snapshot(0, [(10, 1)], [(11, 1)])
    harness.flush()
    assert harness.published == ["GAP DISCONNECT 0-0", "RESET", "b10=1*", "a11=1*."]


def test_a_crossed_image_is_refused_and_the_next_one_heals() -> None:
    harness = live(IMAGES, last=0)
    harness.snapshot(0, [(12, 1)], [(11, 1)])
    harness.flush()
    assert harness.published == ["GAP CROSSED 0-0"]
    harness.published.clear()
    harness.snapshot(0, BIDS, ASKS)
    harness.flush()
    assert harness.published[0] == "RESET"
    assert harness.book() == (dict(BIDS), dict(ASKS))


def test_quotes_of_the_book_follow_its_best_levels() -> None:
    harness = BookHarness(QUOTED)
    for bids in ([(10, 5)], [(10, 5), (9, 1)], [(10, 4), (9, 1)]):
        harness.snapshot(0, bids, [(11, 6)])
    output = harness.flush()
    assert output.quotes["bid_size"].tolist() == [5, 4]


def test_an_image_deeper_than_what_is_kept_is_cut() -> None:
    harness = BookHarness(IMAGES, BookSettings(levels_max=2))
    for size in (1, 1, 2):
        harness.snapshot(0, [(10, size), (9, 1), (8, 1)], [(11, 1)])
        harness.flush()
        assert harness.book() == ({10: size, 9: 1}, {11: 1})


books = st.tuples(
    st.dictionaries(st.integers(1, 50), st.integers(1, 5), max_size=12),
    st.dictionaries(st.integers(51, 99), st.integers(1, 5), max_size=12),
)


@tried(60, 2_000)
@given(images=st.lists(books, min_size=1, max_size=12), seed=st.integers(0, 1_000))
def test_any_dropped_doubled_or_swapped_image_is_healed_by_the_next(
    images: list[Sides], seed: int
) -> None:
    """Whatever came before, the consumer's book is the last image that came."""
    rng = random.Random(seed)
    harness = BookHarness(IMAGES)
    came = [one for one in images for _ in range(rng.choice((0, 1, 1, 1, 2)))] or images
    if len(came) > 1:
        at = rng.randrange(len(came) - 1)
        came[at], came[at + 1] = came[at + 1], came[at]
    for sides in came:
        image_of(harness, sides, Flag.PARTIAL)
        if rng.random() < 0.5:
            harness.flush()
            assert harness.book() == sides
    harness.flush()
    assert harness.book() == came[-1]


def rows_of(*, is_split: bool) -> list[str]:
    """Return the rows of forty images, flushed each or all together."""
    rng = random.Random(4)
    harness = BookHarness(IMAGES)
    rows: list[str] = []
    for _ in range(40):
        bids = {rng.randrange(1, 20): rng.randrange(1, 4) for _ in range(8)}
        asks = {rng.randrange(21, 40): rng.randrange(1, 4) for _ in range(8)}
        image_of(harness, (bids, asks))
        if is_split:
            rows += words(harness.flush().rows)
    return rows + words(harness.flush().rows)


def test_rows_do_not_depend_on_flushes() -> None:
    assert rows_of(is_split=True) == rows_of(is_split=False)
