"""Books that are lent to the library are, and publish, what they are and publish in Python."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from ingestor.adapter import BookRule, Continuity
from ingestor.books import lending
from ingestor.books.settings import BookSettings
from ingestor.model.rows import Cause, Flag
from ingestor.native import Native, native
from tests.fakes.books import BookHarness

RULES = {
    "increment": BookRule(Continuity.INCREMENT),
    "previous": BookRule(Continuity.PREVIOUS),
    "range": BookRule(Continuity.RANGE),
    "unnumbered": BookRule(Continuity.NONE),
    "of a depth": BookRule(Continuity.INCREMENT, depth_max=12),
    "may cross": BookRule(Continuity.INCREMENT, may_cross=True),
    "proved by quotes": BookRule(Continuity.INCREMENT, verify_with_quotes=True),
    "quotes of its own": BookRule(Continuity.INCREMENT, quotes_from_book=True),
}

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)


@dataclass
class Pair:
    """Two harnesses that get the same: one lends its books, the other doesn't."""

    compiled: BookHarness
    python: BookHarness
    last: list[int] = field(default_factory=lambda: [0, 0])

    def speak(self, random_: random.Random) -> None:
        """Say one thing: mostly the next delta of one of two books."""
        one, odd = random_.randrange(2), random_.random()
        bids, asks = ([*levels(random_, 1, 75)], [*levels(random_, 75, 150)])
        if odd < 0.002:
            bids.append((149, 1))  # crossed, most likely
        elif odd < 0.003:
            bids.append((3, -1))
        elif odd < 0.005:
            self.last[one] += 2
        elif odd < 0.01 or not self.last[one]:
            self.last[one] += 1
            bids, asks = [*levels(random_, 1, 70)], [*levels(random_, 80, 150)]
            for harness in (self.compiled, self.python):
                harness.snapshot(self.last[one], bids, asks, instrument=one)
            return
        elif odd < 0.011:
            for harness in (self.compiled, self.python):
                harness.hole(Cause.SEQUENCE, [one])
        elif odd < 0.03:
            for harness in (self.compiled, self.python):
                harness.quote(self.last[0], (60, 1), (80, 1))
        previous, self.last[one] = self.last[one], self.last[one] + 1
        for harness in (self.compiled, self.python):
            harness.delta(
                *(self.last[one], self.last[one], bids, asks),
                previous=previous,
                instrument=one,
                flags=int(Flag.NO_VENUE_TIME) if odd > 0.9 else 0,
            )

    def flush(self, seconds: float) -> None:
        outputs = [one.flush(seconds) for one in (self.compiled, self.python)]
        ours, theirs = outputs
        assert ours.rows.tobytes() == theirs.rows.tobytes()
        assert ours.quotes.tobytes() == theirs.quotes.tobytes()
        for name in ("filtered", "held", "is_whole"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert not ours.bugs
        assert sorted(ours.added) == sorted(theirs.added)
        repairs = [[(one.instrument, one.cause) for one in each.repairs] for each in outputs]
        assert sorted(repairs[0]) == sorted(repairs[1])

    def compare_books(self) -> None:
        ours, theirs = self.compiled.books, self.python.books
        assert ours.statistics() == theirs.statistics()
        for instrument in (0, 1):
            assert ours.is_valid(instrument) == theirs.is_valid(instrument)
            rows = [one.snapshots([instrument]).rows.tobytes() for one in (ours, theirs)]
            assert rows[0] == rows[1]


def levels(random_: random.Random, lowest: int, highest: int) -> list[tuple[int, int]]:
    """Return up to a dozen levels, of which a third are removed."""
    prices = [random_.randrange(lowest, highest) for _ in range(random_.randrange(12))]
    return [(price, random_.choice([0, 1, random_.randrange(1, 10**9)])) for price in prices]


@pytest.mark.parametrize("levels_max", [100_000, 20])
@pytest.mark.parametrize("rule", RULES)
def test_both_ways_publish_the_same(
    rule: str, levels_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_ = random.Random(f"{rule} {levels_max}")
    settings = BookSettings(levels_max=levels_max, repairs_per_s=1e9)
    lent = 0
    monkeypatch.setattr(lending, "_RESTS", 2)
    compiled = BookHarness(RULES[rule], settings)
    monkeypatch.setattr(lending, "native", lambda: Native(None, "a test"))
    pair = Pair(compiled, BookHarness(RULES[rule], settings))
    for turn in range(120):
        for _ in range(random_.choice([1, 3, 10, 40])):
            pair.speak(random_)
        pair.flush(random_.choice([0.0, 0.1, 20.0]))
        books = [compiled.books.valid_book(instrument) for instrument in (0, 1)]
        lent += sum(book is not None and book.giver is not None for book in books)
        if turn % 10 == 9:
            pair.compare_books()
    if rule in {"proved by quotes", "quotes of its own"}:
        assert lent == 0
    elif levels_max > 20 and rule != "of a depth":  # others are too long most of the time
        assert lent > 10


def test_a_book_that_is_asked_for_its_levels_comes_back_whole() -> None:
    harness = BookHarness(RULES["increment"])
    harness.snapshot(1, [(n, n) for n in range(1, 900)], [(n, n) for n in range(1_000, 1_500)])
    harness.delta(2, 2, [(5, 7)])
    harness.flush()
    for number in range(3, 20):
        harness.delta(number, number, [(number, 0)], [(2_000 + number, number)])
    harness.flush()
    book = harness.books.valid_book(0)
    assert book is not None
    assert book.giver is not None
    assert book.last == 19
    assert (book.bids.best, -book.asks.best) == (899, 1_000)
    assert book.giver is None
    assert len(book.bids) == 899 - 17
    assert book.asks.top_levels.get(-1_000, 0) == 1_000
    keys, sizes = book.asks.levels()
    assert np.array_equal(keys, np.sort(keys))
    assert sizes[0] == 19
