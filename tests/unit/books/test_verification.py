"""Checksums of real venues, of books of every depth that they offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from zlib import crc32

import pytest

from feeds.kraken import Kraken
from feeds.okx import Okx
from ingestor.adapter import BookRule
from tests.fakes.books import BookHarness

Side = dict[int, int]
Best = Sequence[tuple[int, int]]
UPDATES = 300


def kraken(bids: Best, asks: Best) -> int:
    return crc32("".join(f"{price}{size}" for price, size in (*asks[:10], *bids[:10])).encode())


def okx(bids: Best, asks: Best) -> int:
    members = []
    for place in range(25):
        members += [
            f"{one[0]}:{one[1]}" for side in (bids, asks) for one in side[place : place + 1]
        ]
    return crc32(":".join(members).encode())


def best(side: Side, *, is_bid: bool) -> list[tuple[int, int]]:
    return sorted(side.items(), reverse=is_bid)


def changed(random: Random, side: Side, away: int, depth: int) -> tuple[int, int]:
    """Change a level of a side as a venue does that keeps `depth` levels; return the change. away:
    -1 for bids, 1 for asks, of which the best is near 10,000."""
    price = 10_000 + away * random.randint(1, depth + depth // 2)
    size = random.choice((0, random.randint(1, 999)))
    side[price] = size
    if not size or len([one for one in side.values() if one]) < 2:
        side[price] = size = size or 5
    for worst in sorted(side, key=lambda one: away * one)[depth:]:
        del side[worst]
    return price, size


RULES = [
    *((replace(Kraken.markets["spot"].book, depth_max=depth), kraken, depth)
      for depth in (10, 25, 100, 500, 1_000)),
    (Okx.markets["spot"].book, okx, 400),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "checksum", "depth"), RULES, ids=["10", "25", "100", "500", "1000", "okx"]
)
def test_each_update_is_verified(
    rule: BookRule, checksum: Callable[[Best, Best], int], depth: int
) -> None:
    random, harness = Random(depth), BookHarness(rule)
    sides: tuple[Side, Side] = ({}, {})
    for side, away in zip(sides, (-1, 1), strict=True):
        side.update({10_000 + away * step: random.randint(1, 999) for step in range(1, depth)})
    for number in range(UPDATES):
        which = random.randint(0, 1)
        change = changed(random, sides[which], (-1, 1)[which], depth)
        bids, asks = best(sides[0], is_bid=True), best(sides[1], is_bid=False)
        if number == 0:
            harness.delta(0, 0, bids, asks, flags=2, checksum=checksum(bids, asks))
        else:
            news = ([change], []) if which == 0 else ([], [change])
            harness.delta(0, 0, *news, checksum=checksum(bids, asks))
    harness.flush()
    line = harness.books.statistics()["acme", "spot"]
    assert (line.verified, line.mismatched) == (UPDATES, 0)
    harness.delta(0, 0, [(10_000 - 1, 1_000)], checksum=1)
    assert harness.flush().errors[0].cause == "checksum"


def test_a_book_of_zeros_costs_no_comparison() -> None:
    harness = BookHarness(Okx.markets["spot"].book)
    harness.snapshot(7, [(10, 5)], [(11, 6)])
    harness.delta(8, 8, [(10, 6)], previous=7)
    harness.flush()
    line = harness.books.statistics()["acme", "spot"]
    assert (line.verified, line.mismatched, line.unverifiable) == (0, 0, 2)
    book = harness.books.valid_book(0)
    assert book is not None
    assert book.is_simple
