"""Ladders against plain dicts."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.books.side import HEAD_MAX, Ladder, TextLadder

KEYS = st.integers(-60, 60)
EVENTS = st.lists(st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=12), max_size=30)


def check(ladder: Ladder, model: dict[int, int]) -> None:
    best_first = sorted(model.items(), reverse=True)
    assert ladder.sizes == model
    assert ladder.head == sorted(key for key in model if key >= ladder.floor)
    assert bool(ladder.head) == bool(model)
    assert ladder.best() == (best_first[0] if model else (0, 0))
    for depth in (1, 10, 10_000):
        assert ladder.top(depth) == best_first[:depth]


def apply_to(model: dict[int, int], event: list[tuple[int, int]]) -> None:
    for key, size in event:
        model[key] = size
        if not size:
            del model[key]


@settings(deadline=None)
@given(EVENTS)
def test_a_ladder_is_a_dict_with_a_best(events: list[list[tuple[int, int]]]) -> None:
    ladder, model = Ladder(), dict[int, int]()
    for event in events:
        ladder.apply([key for key, _ in event], [size for _, size in event])
        apply_to(model, event)
        check(ladder, model)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(200, 1_500))
def test_deep_ladders_keep_their_best_through_growth_and_drain(random: object, size: int) -> None:
    rng = random
    keys = list(range(size))
    rng.shuffle(keys)  # type: ignore[attr-defined]  # Hypothesis's random.Random
    ladder, model = Ladder(), dict.fromkeys(keys, 1)
    ladder.replace(keys, [1] * size)
    check(ladder, model)
    for start in range(0, size, 50):  # drain from the best down, while deep levels come
        drained = [(key, 0) for key in range(size - start - 1, size - start - 51, -1)]
        event = [one for one in drained if one[0] in model] + [(-start - 1, 7)]
        ladder.apply([key for key, _ in event], [size for _, size in event])
        apply_to(model, event)
        check(ladder, model)
        assert len(ladder.head) <= HEAD_MAX


@settings(deadline=None)
@given(EVENTS, st.integers(1, 40))
def test_cut_leaves_the_best(events: list[list[tuple[int, int]]], depth: int) -> None:
    ladder, model = Ladder(), dict[int, int]()
    for event in events:
        ladder.apply([key for key, _ in event], [size for _, size in event])
        apply_to(model, event)
        removed = ladder.cut(depth)
        gone = sorted(model)[: max(len(model) - depth, 0)]
        assert sorted(removed) == gone
        for key in gone:
            del model[key]
        check(ladder, model)


@pytest.mark.parametrize("depth", [1, 50, 900])
def test_cut_of_a_deep_ladder(depth: int) -> None:
    ladder = Ladder()
    ladder.replace(range(1_000), [1] * 1_000)
    assert sorted(ladder.cut(depth)) == list(range(1_000 - depth))
    check(ladder, dict.fromkeys(range(1_000 - depth, 1_000), 1))


def test_replace_and_clear_forget_everything() -> None:
    ladder = Ladder()
    ladder.replace([1, 2, 3], [5, 0, 7])
    ladder.trimmed = True
    check(ladder, {1: 5, 3: 7})
    ladder.clear()
    check(ladder, {})
    assert len(ladder) == 0
    assert not ladder.trimmed


@settings(deadline=None)
@given(EVENTS, st.sampled_from([1, -1]))
def test_checksum_texts_follow_every_change(events: list[list[tuple[int, int]]], sign: int) -> None:
    ladder = TextLadder(sign, 10, lambda price, size: f"{price}:{size} ")
    model: dict[int, int] = {}
    for number, event in enumerate(events):
        if number % 7 == 6:
            model.clear()
            ladder.replace([], [])
        ladder.apply([key for key, _ in event], [size for _, size in event])
        apply_to(model, event)
        ladder.cut(20)
        for key in sorted(model)[:-20]:
            del model[key]
        best = sorted(model.items(), reverse=True)[:10]
        text = "".join(f"{sign * key}:{size} " for key, size in best).encode()
        assert ladder.text() == text
        assert ladder.text_crc() == crc32(text)
        assert ladder.text_crc() == crc32(ladder.text())


def test_a_ladder_that_grows_keeps_only_its_best_sorted() -> None:
    ladder, model = Ladder(), dict[int, int]()
    for start in (*range(0, 500, 10), *range(-500, 0, 10)):
        keys = list(range(start, start + 10))
        ladder.apply(keys, [1] * 10)
        model |= dict.fromkeys(keys, 1)
        check(ladder, model)
        assert len(ladder.head) <= HEAD_MAX
    assert ladder.floor == ladder.head[0]
