"""Updates in the library's hands: what it takes, what it leaves, and the levels it gives back."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.model.rows import UPDATE, Flag, Rows
from ingestor.native import LentBooks, UpdateResult, native

LEFT, DONE, APPLIED = (int(one) for one in UpdateResult)
NUMBER = 70


@pytest.fixture
def lent() -> LentBooks:
    """A book of three bids and two asks at update 10, which may have four levels a side."""
    library = native().library
    if library is None:
        pytest.skip(native().reason)
    lent = LentBooks(library)
    lent.fit(NUMBER + 1)
    lend(lent, rule=2)
    return lent


def lend(lent: LentBooks, rule: int, most: int = 1_000) -> None:
    bids = np.array([7, 8, 9]), np.array([1, 2, 3])
    asks = np.array([-12, -11]), np.array([4, 5])
    lent.lend(NUMBER, bids, asks, last=10, rule=rule, limit=4, most=most)


def update(last: int, bids: int, asks: int = 0, **more: int) -> Rows:
    row = np.zeros(1, UPDATE)
    row["instrument"], row["last"], row["bids"], row["asks"] = NUMBER, last, bids, asks
    for name, value in more.items():
        row[name] = value
    return row


def take(lent: LentBooks, updates: list[Rows], levels: list[tuple[int, int]]) -> list[int]:
    pairs = np.array(levels, np.int64).reshape(-1, 2)
    rows = np.concatenate(updates)
    done: list[int] = lent.take(rows, pairs[:, 0], pairs[:, 1], (0, len(rows), 0)).tolist()
    return done


def test_plain_updates_change_the_levels(lent: LentBooks) -> None:
    updates = [update(11, 2, 1), update(12, 0), update(13, 1, 1)]
    levels = [(8, 0), (10, 6), (11, 9), (6, 0), (13, 1)]
    assert take(lent, updates, levels) == [DONE, DONE, DONE]
    assert lent.last(np.array([NUMBER])) == [13]
    bids, asks = lent.give_back(NUMBER)
    assert [one.tolist() for one in bids] == [[7, 9, 10], [1, 3, 6]]
    assert [one.tolist() for one in asks] == [[-13, -12, -11], [1, 4, 9]]


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (0, {"first": 11}),
        (1, {"previous": 10}),
        (2, {}),
        (3, {}),
    ],
)
def test_what_is_the_next_one_by_each_rule(
    lent: LentBooks, rule: int, more: dict[str, int]
) -> None:
    lend(lent, rule)
    other = update(15, 0, first=12, previous=9)
    assert take(lent, [update(4 if rule == 3 else 11, 0, **more)], []) == [DONE]
    lend(lent, rule)
    assert take(lent, [other], []) == [DONE if rule == 3 else LEFT]


@pytest.mark.parametrize(
    ("first", "levels"),
    [
        (update(11, 1, flags=int(Flag.SNAPSHOT)), [(5, 1)]),
        (update(11, 1), [(5, -1)]),
        (update(13, 1), [(5, 1)]),
    ],
)
def test_after_one_that_is_left_all_are_left(
    lent: LentBooks, first: Rows, levels: list[tuple[int, int]]
) -> None:
    assert take(lent, [first, update(11, 1)], [*levels, (6, 1)]) == [LEFT, LEFT]
    bids, _ = lent.give_back(NUMBER)
    assert bids[0].tolist() == [7, 8, 9]


def test_a_crossed_book_and_one_that_is_too_long_are_judged(lent: LentBooks) -> None:
    assert take(lent, [update(11, 1), update(12, 1)], [(11, 1), (6, 1)]) == [APPLIED, LEFT]
    assert lent.last(np.array([NUMBER])) == [10]
    lend(lent, 2)
    assert take(lent, [update(11, 2)], [(5, 1), (4, 1)]) == [APPLIED]
    assert lent.give_back(NUMBER)[0][0].tolist() == [4, 5, 7, 8, 9]


def test_without_room_an_update_is_left(lent: LentBooks) -> None:
    lend(lent, 2, most=3)
    assert take(lent, [update(11, 1)], [(9, 5)]) == [LEFT], "one more would not fit"
    lend(lent, 2, most=4)
    assert take(lent, [update(11, 1), update(12, 0, 2)], [(6, 5), (13, 1), (14, 1)]) == [DONE, DONE]


def test_others_updates_are_left_alone(lent: LentBooks) -> None:
    other = update(11, 1)
    other["instrument"] = 3
    assert take(lent, [other, update(11, 1)], [(1, 1), (9, 8)]) == [LEFT, DONE]
    assert lent.give_back(NUMBER)[0][1].tolist() == [1, 2, 8]
