"""Ladders against plain dicts."""

from __future__ import annotations

import random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.book_side import (
    CHANGES_MIN,
    NOTHING,
    TOP_LEVELS_MAX,
    TOP_LEVELS_MIN,
    WHOLE_MAX,
    BookSide,
    ChecksumBookSide,
    text_checksum,
)
from tests.effort import tried

KEYS = st.integers(-60, 60)
EVENTS = st.lists(st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=12), max_size=30)


def check(ladder: BookSide, model: dict[int, int]) -> None:
    best_first = sorted(model.items(), reverse=True)
    assert ladder.best == max(model, default=NOTHING)
    assert ladder.first() == (best_first[0] if model else (0, 0))
    assert list(ladder.top_levels.items() - model.items()) == []
    assert len(ladder.top_levels) >= min(TOP_LEVELS_MIN, len(model))
    for depth in (1, 10, TOP_LEVELS_MIN, 10_000):
        assert ladder.top(depth) == best_first[:depth]
        keys, sizes = ladder.arrays(depth)
        assert list(zip(keys.tolist(), sizes.tolist(), strict=True)) == best_first[:depth]
    assert len(ladder) == len(model)


def feed(ladder: BookSide, event: list[tuple[int, int]]) -> None:
    if event:
        ladder.apply(iter(event), max(key for key, _ in event))


def apply_to(model: dict[int, int], event: list[tuple[int, int]]) -> None:
    for key, size in event:
        model[key] = size
        if not size:
            del model[key]


@given(EVENTS)
def test_a_ladder_is_a_dict_with_a_best(events: list[list[tuple[int, int]]]) -> None:
    ladder, model = BookSide(), dict[int, int]()
    for event in events:
        feed(ladder, event)
        apply_to(model, event)
        check(ladder, model)


@tried(15, 300)
@given(st.randoms(use_true_random=False), st.integers(200, 1_500))
def test_deep_ladders_keep_their_best_through_growth_and_drain(random: object, size: int) -> None:
    rng = random
    keys = list(range(size))
    rng.shuffle(keys)  # type: ignore[attr-defined]  # Hypothesis's random.Random
    ladder, model = BookSide(), dict.fromkeys(keys, 1)
    ladder.replace(keys, [1] * size)
    check(ladder, model)
    for start in range(0, size, 50):  # drain from the best down, while deep levels come
        drained = [(key, 0) for key in range(size - start - 1, size - start - 51, -1)]
        event = [one for one in drained if one[0] in model] + [(-start - 1, 7)]
        feed(ladder, event)
        apply_to(model, event)
        check(ladder, model)
        assert len(ladder.top_levels) <= TOP_LEVELS_MAX


@given(EVENTS, st.integers(1, 40))
def test_cut_leaves_the_best(events: list[list[tuple[int, int]]], limit: int) -> None:
    ladder, model = BookSide(limit), dict[int, int]()
    for event in events:
        feed(ladder, event)
        apply_to(model, event)
        assert ladder.is_over == (len(model) > limit)
        if ladder.is_over:
            removed = ladder.cut()
            gone = sorted(model)[: len(model) - limit]
            assert sorted(removed) == gone
            for key in gone:
                del model[key]
        assert ladder.cut() == []
        check(ladder, model)


@pytest.mark.parametrize("limit", [1, 50, WHOLE_MAX, 2 * WHOLE_MAX])
def test_cut_of_a_deep_ladder(limit: int) -> None:
    ladder = BookSide(limit)
    ladder.replace(range(limit + 100), [1] * (limit + 100))
    assert ladder.is_over
    assert sorted(ladder.cut()) == list(range(100))
    check(ladder, dict.fromkeys(range(100, limit + 100), 1))


def test_a_deep_ladder_that_grows_by_deltas_is_over_before_long() -> None:
    limit = WHOLE_MAX + 1
    ladder, model = BookSide(limit), dict[int, int]()
    for key in range(0, -2 * limit, -1):
        feed(ladder, [(key, 1)])
        model[key] = 1
        assert len(ladder.top_levels) <= TOP_LEVELS_MAX
        if ladder.is_over:
            break
    assert limit < len(model) <= limit + TOP_LEVELS_MAX + 2 * CHANGES_MIN
    for key in ladder.cut():
        del model[key]
    assert len(model) == limit
    check(ladder, model)


def test_a_ladder_that_was_cut_and_drained_is_short() -> None:
    ladder = BookSide(4)
    ladder.replace(range(5), [1] * 5)
    ladder.cut()
    feed(ladder, [(4, 0), (3, 0)])
    assert not ladder.is_short()
    ladder.trimmed = True
    assert not ladder.is_short()
    feed(ladder, [(2, 0)])
    assert ladder.is_short()


def test_replace_and_clear_forget_everything() -> None:
    ladder = BookSide()
    ladder.replace([1, 2, 3], [5, 0, 7])
    ladder.trimmed = True
    check(ladder, {1: 5, 3: 7})
    ladder.clear()
    check(ladder, {})
    assert len(ladder) == 0
    assert not ladder.trimmed


@given(EVENTS, st.sampled_from([1, -1]))
def test_checksum_texts_follow_every_change(events: list[list[tuple[int, int]]], sign: int) -> None:
    ladder, other = (
        ChecksumBookSide(20, sign, 10, lambda price, size: f"{price}:{size} ") for _ in "ab"
    )
    model: dict[int, int] = {}
    for number, event in enumerate(events):
        if number % 7 == 6:
            model.clear()
            ladder.replace([], [])
        feed(ladder, event)
        apply_to(model, event)
        ladder.cut()
        for key in sorted(model)[:-20]:
            del model[key]
        best = sorted(model.items(), reverse=True)[:10]
        text = "".join(f"{sign * key}:{size} " for key, size in best).encode()
        assert ladder.text() == text
        other.apply([(7, number + 1)], 7)
        assert text_checksum(other, ladder) == crc32(text + other.text())
        assert text_checksum(ladder, other) == crc32(other.text() + text)


def test_a_ladder_that_grows_keeps_only_its_best_near() -> None:
    ladder, model = BookSide(), dict[int, int]()
    for start in (*range(0, 500, 10), *range(-500, 0, 10)):
        event = [(key, 1) for key in range(start, start + 10)]
        feed(ladder, event)
        apply_to(model, event)
        check(ladder, model)
        assert len(ladder.top_levels) <= TOP_LEVELS_MAX


@pytest.mark.parametrize("seed", range(5))
def test_deep_levels_change_vanish_and_come_again(seed: int) -> None:
    rng = random.Random(seed)
    ladder, model = BookSide(), dict.fromkeys(range(600), 1)
    ladder.replace(range(600), [1] * 600)
    for _ in range(300):
        event = [(rng.randrange(700), rng.randrange(3)) for _ in range(10)]
        feed(ladder, event)
        apply_to(model, event)
        assert ladder.best == max(model)
    check(ladder, model)
