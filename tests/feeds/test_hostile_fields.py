"""Each field of each frame of the fixtures, replaced by some forty values that don't belong there.

A frame is refused alone, or its rows are exact; the rows of its neighbors are those of a run
without it. What is accepted does not depend on how many frames came together.

A seeded part is tried; the long suite tries all.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import chain, cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import FeedAdapter
from tests.effort import IS_LONG, tried
from tests.feeds.fixtures import load, markets
from tests.feeds.hostile import Mutant, good_frames, in_groups, mutants, numbered, received

AdapterType = type[FeedAdapter]
MARKETS = [pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}") for pair in markets()]
SHARE = 1.0 if IS_LONG else 0.05
SEED = 14
GROUP = 12  # hostile frames between good ones in one run

each_market = pytest.mark.parametrize(("adapter", "market"), MARKETS)


@cache
def chosen(adapter: AdapterType, market: str) -> list[Mutant]:
    """The mutants that are tried: always the same."""
    draw = random.Random(f"{SEED} {adapter.venue} {market}")
    frames = good_frames(adapter, market)
    return [one for frame in frames for one in mutants(frame) if draw.random() < SHARE]


@each_market
def test_a_hostile_field_is_refused_alone_or_exact(adapter: AdapterType, market: str) -> None:
    fixture, good = load(adapter, market), good_frames(adapter, market)
    tried = chosen(adapter, market)
    neighbors = cycle(good)
    for start in range(0, len(tried), GROUP):
        some = tried[start : start + GROUP]
        pairs = [(one.payload, next(neighbors)) for one in some]
        frames = numbered([*good, *chain.from_iterable(pairs)])
        where = [f"{one.field} = {one.token!r}" for one in some]
        outcome = received(fixture, frames)
        assert not outcome.bugs, where
        assert outcome.unaccounted == 0, where
        kept = [frame for frame in frames if id(frame) not in outcome.refused]
        assert len(kept) == len(frames) - len(outcome.refused), "each refused frame is kept whole"
        without = received(fixture, kept)
        assert not without.refused, where
        assert without.rows == outcome.rows, where


@each_market
@tried(3, 200)
@given(data=st.data())
def test_any_split_gives_the_same(adapter: AdapterType, market: str, data: st.DataObject) -> None:
    fixture, good = load(adapter, market), good_frames(adapter, market)
    if not good:
        return  # its frames are no JSON: `test_hostile_frames` mutates their bytes
    pool = chosen(adapter, market)
    seed = data.draw(st.integers(0, 2**32), label="seed")
    draw = random.Random(seed)
    frames: list[bytes] = []
    for frame in draw.choices(good, k=24):
        frames.append(frame)
        if draw.random() < 0.3:
            frames.append(draw.choice(pool).payload)
    frames = numbered(frames)
    numbers = st.sets(st.integers(1, len(frames)), max_size=len(frames))
    whole = in_groups(fixture, frames, set(), set())
    alone = in_groups(fixture, frames, set(range(len(frames))), set())
    assert alone == whole
    assert in_groups(fixture, frames, data.draw(numbers), data.draw(numbers)) == whole
