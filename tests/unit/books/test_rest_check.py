"""The comparison of books with REST images, without any I/O."""

from __future__ import annotations

import pytest

from ingestor.adapter import RestSnapshot
from ingestor.books.rest_check import AUDIT_DEPTH, Finding, RestCheck, read
from ingestor.model.rows import Cause
from tests.fakes.books import SOCKET, BookHarness, live

BIDS, ASKS = [(10, 5), (9, 4)], [(11, 6), (12, 7)]


def audited() -> tuple[BookHarness, RestCheck]:
    """A harness whose live book is being compared since update 100."""
    harness = live(SOCKET)
    return harness, harness.books.start_rest_check(0)


def judged(check: RestCheck, number: int, bids: list[tuple[int, int]] = BIDS) -> Finding:
    texts = [[(str(price), str(size)) for price, size in side] for side in (bids, ASKS)]
    return check.compare(read(RestSnapshot(number, *texts), 0, 0))


def test_an_image_that_names_an_update_must_equal_the_book_after_it() -> None:
    harness, check = audited()
    harness.delta(101, 101, [(10, 6)], mark=7)
    harness.delta(102, 102, [(10, 8)], mark=9)
    harness.flush()
    assert judged(check, 7, [(10, 6), (9, 4)]) is Finding.VERIFIED
    assert judged(check, 9, [(10, 8), (9, 4)]) is Finding.VERIFIED
    assert judged(check, 9, [(10, 6), (9, 4)]) is Finding.MISMATCHED
    assert judged(check, 9, [(10, 8)]) is Finding.MISMATCHED  # a ghost level in the book


@pytest.mark.parametrize(
    ("number", "bids", "asks", "reason"),
    [
        (-1, [("2", "1")], [("3", "1")], "no number"),
        (True, [("2", "1")], [("3", "1")], "no number"),
        (1, [], [("3", "1")], "empty side"),
        (1, [("1", "1"), ("2", "1")], [("3", "1")], "not ordered"),
        (1, [("2", "0")], [("3", "1")], "without a size"),
        (1, [("0", "1")], [("3", "1")], "without a price"),
        (1, [("-1", "1")], [("3", "1")], "without a price"),
        (1, [("2", "1")], [("0", "1")], "without a price"),
    ],
)
def test_what_can_be_no_image_is_refused(
    number: int, bids: list[tuple[str, str]], asks: list[tuple[str, str]], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        read(RestSnapshot(number, bids, asks), 0, 0)


def test_an_image_that_is_ahead_of_the_book_waits_for_its_update() -> None:
    harness, check = audited()
    assert judged(check, 7, [(10, 6), (9, 4)]) is Finding.UNVERIFIABLE
    harness.delta(101, 101, [(10, 6)], mark=7)
    harness.flush()
    assert judged(check, 7, [(10, 6), (9, 4)]) is Finding.VERIFIED


@pytest.mark.parametrize("number", [0, 8])
def test_an_image_that_names_no_known_update_never_accuses(number: int) -> None:
    harness, check = audited()
    harness.delta(101, 101, [(10, 6)], mark=7)
    harness.delta(102, 102, [(10, 8)], mark=9)
    harness.flush()
    assert judged(check, number, [(10, 6), (9, 4)]) is Finding.VERIFIED  # it was so once
    assert judged(check, number) is Finding.VERIFIED  # and when the audit began
    assert judged(check, number, [(10, 7), (9, 4)]) is Finding.UNVERIFIABLE


def test_only_the_best_levels_count() -> None:
    harness = BookHarness(SOCKET)
    bids = [(1_000 - number, 1) for number in range(AUDIT_DEPTH + 5)]
    harness.snapshot(100, bids, [(2_000, 1)])
    harness.flush()
    check = harness.books.start_rest_check(0)
    asks = [("2000", "1")]
    for depth, finding in (
        (AUDIT_DEPTH, Finding.VERIFIED),
        (AUDIT_DEPTH + 5, Finding.VERIFIED),
        (AUDIT_DEPTH - 1, Finding.UNVERIFIABLE),
    ):
        image = RestSnapshot(0, [(str(price), str(size)) for price, size in bids[:depth]], asks)
        assert check.compare(read(image, 0, 0)) is finding


def test_numbers_finer_than_the_instrument_are_refused() -> None:
    with pytest.raises(ValueError, match="decimals"):
        read(RestSnapshot(0, [("1.5", "1")], []), 0, 0)


def test_the_trail_is_bounded_and_ends_with_the_audit() -> None:
    harness, check = audited()
    for number in range(101, 1_500):
        harness.delta(number, number, [(10, number)], mark=number)
    harness.flush()
    assert 0 < len(check.states) <= 512
    assert judged(check, 1_499, [(10, 1_499), (9, 4)]) is Finding.VERIFIED
    check.finish("verified")
    harness.delta(1_500, 1_500, [(10, 1)], mark=1_500)
    harness.flush()
    assert not check.states
    book = harness.books.valid_book(0)
    assert book is not None
    assert not book.is_provable


def test_a_book_that_breaks_meanwhile_has_no_trail() -> None:
    harness, check = audited()
    harness.hole(Cause.REJECTED)
    harness.flush()
    assert check.is_over
    check.finish("unverifiable")
    harness.snapshot(200, BIDS, ASKS)
    harness.flush()
    assert check.is_over
    assert not check.states


def test_outcomes_are_counted() -> None:
    harness = live(SOCKET)
    for outcome in ("verified", "mismatched", "unverifiable", "failed", "verified"):
        harness.books.start_rest_check(0).finish(outcome)
    [found] = harness.books.statistics().values()
    assert found.audits == {"verified": 2, "mismatched": 1, "unverifiable": 1, "failed": 1}
    assert (found.verified, found.mismatched) == (2, 1)
