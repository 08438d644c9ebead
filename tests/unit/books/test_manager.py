"""Books, one rule at a time, on hand-written sequences; the rows are read by a strategy's book."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest

from ingestor.adapter import BookRule, Continuity
from ingestor.books.settings import BookSettings
from ingestor.consumer.orderbook import BookInvalid, OrderBooks
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag
from tests.fakes.books import (
    ASKS,
    BIDS,
    FUTURES,
    IMAGE,
    OKX,
    SOCKET,
    SPOT,
    START,
    UNNUMBERED,
    BookHarness,
    live,
    words,
)

# --- socket snapshots


def test_deltas_follow_the_snapshot_of_the_socket() -> None:
    harness = live(SOCKET)
    harness.delta(101, 101, [(10, 0)], [(11, 1)])
    harness.delta(102, 102, [(8, 3)])
    output = harness.flush()
    assert harness.published == ["b10=0", "a11=1.", "b8=3."]
    assert harness.book() == ({9: 4, 8: 3}, {11: 1, 12: 7})
    assert output.rows["sequence"].tolist() == [101, 101, 102]
    assert not output.repairs


def test_deltas_before_any_snapshot_are_filtered_and_one_is_asked_for_in_time() -> None:
    harness = BookHarness(SOCKET)
    harness.delta(5, 5, [(10, 1)])
    output = harness.flush()
    assert (output.filtered, output.held, output.repairs, harness.published) == (1, 0, [], [])
    assert not harness.flush(9.9).repairs
    repairs = harness.flush(0.2).repairs
    assert [(one.instrument, one.cause) for one in repairs] == [(0, None)]


def test_a_gap_is_declared_and_the_book_repaired_by_a_new_snapshot() -> None:
    harness = live(SOCKET)
    harness.delta(101, 101, [(8, 1)])
    harness.delta(104, 104, [(8, 2)])
    harness.delta(105, 105, [(8, 3)])
    harness.delta(1, 1, [(3, 3)], flags=Flag.SNAPSHOT, instrument=1)
    output = harness.flush()
    assert harness.published == ["b8=1.", "GAP SEQUENCE 102-103", "RESET", "b3=3*."]
    assert output.filtered == 2
    assert [(one.instrument, one.cause, one.due_ns) for one in output.repairs] == [
        (0, Cause.SEQUENCE, harness.now)
    ]
    assert "sequence, 102 to 103 missing" in str(output.errors[0])
    with pytest.raises(BookInvalid, match="GAP, cause SEQUENCE"):
        harness.book()
    assert harness.book(1) == ({3: 3}, {})
    harness.snapshot(110, BIDS, ASKS)
    harness.delta(111, 111, [(10, 9)])
    harness.flush()
    assert harness.book() == ({10: 9, 9: 4}, {11: 6, 12: 7})


def test_a_snapshot_in_the_middle_replaces_the_book_without_a_gap() -> None:
    harness = live(SOCKET)
    harness.snapshot(1, [(20, 1)], [(21, 1)])
    harness.delta(2, 2, [(19, 1)])
    output = harness.flush()
    assert harness.published == ["RESET", "b20=1*", "a21=1*.", "b19=1."]
    assert output.filtered == 0
    assert harness.book() == ({20: 1, 19: 1}, {21: 1})


def test_an_empty_snapshot_is_a_valid_empty_book() -> None:
    harness = live(SOCKET)
    harness.snapshot(1, [], [])
    output = harness.flush()
    assert output.rows["flags"].tolist() == [Flag.LAST | Flag.NO_VENUE_TIME | Flag.SNAPSHOT]
    assert harness.book() == ({}, {})
    assert len(harness.books.snapshots([0])) == 1


def test_a_doubled_update_is_filtered_without_a_gap() -> None:
    harness = live(SOCKET)
    for _ in range(2):
        harness.delta(101, 101, [(10, 7)])
    assert harness.flush().filtered == 1
    assert harness.published == ["b10=7."]
    assert harness.books.statistics()["acme", "spot"].duplicates == 1


def test_okx_keeps_alive_and_restarts_its_numbers() -> None:
    harness = live(OKX)
    harness.delta(100, 100, previous=100)
    harness.delta(3, 3, [(10, 1)], previous=100)
    harness.delta(4, 4, [(10, 2)], previous=3)
    harness.flush()
    assert harness.published == ["b10=1.", "b10=2."]
    harness.delta(6, 6, [(10, 3)], previous=5)
    harness.flush()
    assert harness.published[2:] == ["GAP SEQUENCE 5-5"]


def test_frames_without_numbers_are_not_checkable() -> None:
    harness = live(OKX, last=0)
    harness.delta(0, 0, [(10, 1)])
    harness.delta(0, 0, [(10, 2)])
    harness.flush()
    assert harness.published == ["b10=1.", "b10=2."]
    assert harness.books.statistics()["acme", "spot"].unverifiable == 3


# --- REST snapshots


def test_spot_synchronises_as_documented() -> None:
    harness = BookHarness(SPOT)
    harness.delta(90, 95, [(8, 1)])
    harness.delta(96, 100, [(8, 2)])
    harness.delta(101, 103, [(8, 3)])
    output = harness.flush()
    assert (output.held, output.filtered, harness.published) == (3, 0, [])
    assert [(one.cause, one.due_ns) for one in output.repairs] == [(None, START)]
    harness.delta(104, 104, [(8, 4)])
    harness.snapshot(99, BIDS, ASKS)
    harness.delta(105, 105, [(10, 1)])
    output = harness.flush(1)
    assert harness.published == [*IMAGE, "b8=2.", "b8=3.", "b8=4.", "b10=1."]
    assert (output.held, output.filtered) == (0, 1)
    assert harness.book()[0] == {10: 1, 9: 4, 8: 4}
    assert harness.books.statistics()["acme", "spot"].invalid_s == 1.0


def test_a_snapshot_before_the_first_delta_is_valid_at_once_and_must_be_continued() -> None:
    harness = live(SPOT)
    assert harness.books.is_valid(0)
    harness.delta(97, 100, [(8, 1)])
    harness.delta(99, 102, [(8, 2)])
    output = harness.flush()
    assert harness.published == ["b8=2."]
    assert output.filtered == 1
    harness.delta(103, 103, [(8, 3)])
    harness.flush()
    assert harness.published[1:] == ["b8=3."]


def test_a_first_delta_that_does_not_continue_the_snapshot_is_a_gap() -> None:
    harness = live(SPOT)
    harness.delta(103, 105, [(8, 1)])
    output = harness.flush()
    assert harness.published == ["GAP SEQUENCE 101-102"]
    assert output.held == 1
    assert [one.cause for one in output.repairs] == [Cause.SEQUENCE]


def test_a_snapshot_older_than_the_held_deltas_is_fetched_again() -> None:
    harness = BookHarness(SPOT)
    harness.delta(110, 112, [(8, 1)])
    harness.flush()
    harness.snapshot(100, BIDS, ASKS)
    output = harness.flush()
    assert (output.filtered, output.held, len(output.repairs), harness.published) == (4, 1, 1, [])
    harness.snapshot(111, BIDS, ASKS)
    harness.flush()
    assert harness.published == [*IMAGE, "b8=1."]


def test_held_deltas_with_a_hole_start_anew() -> None:
    harness = BookHarness(SPOT)
    harness.delta(100, 102, [(8, 1)])
    harness.delta(105, 106, [(8, 2)])
    output = harness.flush()
    assert (output.held, output.filtered) == (1, 1)
    harness.snapshot(104, BIDS, ASKS)
    harness.flush()
    assert harness.published == [*IMAGE, "b8=2."]


def test_held_deltas_are_bounded() -> None:
    harness = BookHarness(SPOT, BookSettings(held_updates_max=8))
    for number in range(100):
        harness.delta(number + 1, number + 1, [(8, 1)])
        assert harness.flush().held <= 8


def test_futures_synchronise_by_previous() -> None:
    harness = BookHarness(FUTURES)
    harness.delta(90, 95, [(8, 1)], previous=89)
    harness.delta(103, 105, [(8, 2)], previous=95)
    harness.snapshot(99, BIDS, ASKS)
    harness.delta(110, 112, [(8, 3)], previous=105)
    harness.flush()
    assert harness.published == [*IMAGE, "b8=2.", "b8=3."]
    harness.delta(120, 121, [(8, 4)], previous=118)
    harness.flush()
    assert harness.published[-1] == "GAP SEQUENCE 113-118"


def test_a_rest_snapshot_that_nobody_asked_for_is_filtered() -> None:
    harness = live(SPOT)
    harness.delta(101, 101, [(8, 1)])
    harness.snapshot(100, [(1, 1)], [])
    assert harness.flush().filtered == 1
    assert harness.published == ["b8=1."]


# --- holes


@pytest.mark.parametrize("instruments", [None, [0]])
def test_a_hole_is_where_it_is_in_the_stream(instruments: Sequence[int] | None) -> None:
    harness = live(SOCKET)
    harness.snapshot(7, BIDS, ASKS, instrument=1)
    harness.delta(101, 101, [(8, 1)])
    harness.hole(Cause.REJECTED, instruments)
    harness.delta(8, 8, [(8, 1)], instrument=1)
    harness.delta(102, 102, [(8, 2)])
    output = harness.flush()
    assert not harness.books.is_valid(0)
    assert harness.books.is_valid(1) is (instruments is not None)
    gaps = [word for word in harness.published if word.startswith("GAP")]
    assert len(gaps) == len(output.repairs) == (2 if instruments is None else 1)
    assert harness.published[5] == "b8=1."
    assert harness.published[6] == "GAP REJECTED 0-0"


def test_a_disconnect_of_a_rest_venue_asks_only_when_deltas_come_again() -> None:
    harness = live(SPOT)
    harness.hole(Cause.DISCONNECT)
    output = harness.flush()
    assert harness.published == ["GAP DISCONNECT 0-0"] * 2
    assert not output.repairs
    harness.snapshot(150, BIDS, ASKS)  # asked for before the connection ended
    assert harness.flush(60).filtered == 4
    harness.delta(201, 201, [(8, 1)])
    output = harness.flush()
    assert [one.cause for one in output.repairs] == [Cause.DISCONNECT]
    harness.snapshot(200, BIDS, ASKS)
    harness.flush()
    assert harness.book()[0] == {10: 5, 9: 4, 8: 1}


def test_a_disconnect_of_a_socket_venue_waits_for_the_snapshot_it_will_send() -> None:
    harness = live(SOCKET)
    harness.hole(Cause.DISCONNECT)
    assert not harness.flush().repairs
    assert not harness.flush(3_600).repairs
    harness.snapshot(5, BIDS, ASKS)
    harness.flush()
    assert harness.book()[0] == {10: 5, 9: 4}


def test_the_end_of_a_connection_that_no_longer_carries_the_book_is_nothing() -> None:
    harness = live(SOCKET)
    old, harness.connection = harness.connection, type(harness.connection)([0])
    harness.snapshot(7, BIDS, ASKS)
    harness.buffer.hole(Cause.DISCONNECT, harness.now, instruments=[0], source=old)
    harness.flush()
    assert harness.published == IMAGE
    assert harness.books.is_valid(0)


def test_invalidated_from_outside() -> None:
    harness = live(SOCKET)
    harness.books.invalidate(0, Cause.SHED, harness.now)
    assert len(harness.books.snapshots([0])) == 0
    harness.delta(101, 101, [(8, 1)])
    assert [one.cause for one in harness.flush().repairs] == [Cause.SHED]
    harness.books.invalidate(0, Cause.SHED, harness.now)  # the GAP itself may have been shed
    harness.books.invalidate(0, Cause.STALE, harness.now)
    harness.flush()
    assert harness.published == ["GAP SHED 0-0"] * 2


# --- proofs


def test_crossed_books_and_negative_sizes_break_and_never_answer() -> None:
    for bids in ([(11, 1)], [(12, 1)], [(8, -1)]):
        harness = live(SPOT)
        harness.delta(101, 101, bids)
        sealed = harness.buffer.seal(harness.table)
        if bids[0][1] < 0:
            assert not len(sealed.updates)  # refused at sealing; the books are told otherwise
            harness = live(SPOT)
            harness.delta(101, 101, [(8, 1)])
            sealed = harness.buffer.seal(harness.table)
            sealed.sizes = -sealed.sizes
        output = harness.books.apply(sealed, harness.now)
        assert words(output.rows) == ["GAP CROSSED 0-0"]
        assert output.filtered == 1
        assert [one.cause for one in output.repairs] == [Cause.CROSSED]
        assert not harness.books.is_valid(0)
        assert harness.books.statistics()["acme", "spot"].crossed == 1


def test_a_crossed_snapshot_is_refused() -> None:
    harness = BookHarness(SOCKET)
    harness.snapshot(1, [(11, 1)], [(11, 1)])
    assert [one.cause for one in harness.flush().repairs] == [Cause.CROSSED]
    assert harness.published == ["GAP CROSSED 0-0"]


@pytest.mark.parametrize("quote_first", [True, False])
@pytest.mark.parametrize("same_flush", [True, False])
def test_a_quote_with_the_number_of_an_update_proves_it(
    quote_first: bool, same_flush: bool
) -> None:
    harness = live(SPOT)
    for number, bid in ((101, (10, 8)), (102, (10, 999))):
        update = (number, number, [(10, 8)])
        if quote_first:
            harness.quote(number, bid, (11, 6))
        else:
            harness.delta(*update)
        if not same_flush:
            harness.flush()
        if quote_first:
            harness.delta(*update)
        else:
            harness.quote(number, bid, (11, 6))
        harness.flush()
        line = harness.books.statistics()["acme", "spot"]
        assert (line.verified, line.mismatched) == ((1, 0) if number == 101 else (1, 1))
    assert harness.published[-1] == "GAP CHECKSUM 0-0"
    assert not harness.books.is_valid(0)


def test_what_the_oracle_remembers_is_bounded_and_forgets_the_past() -> None:
    harness = live(SPOT, BookSettings(oracle_memory=16))
    for number in range(200, 400):
        harness.quote(number, (10, 5), (11, 6))
    harness.flush()
    book = harness.books.valid_book(0)
    assert book is not None
    assert len(book.recent_quotes) <= 16
    for number in range(101, 200):
        harness.delta(number, number, [(1, number)])
    harness.flush()
    assert len(book.recent_tops) <= 16
    harness.quote(500, (10, 5), (11, 6))
    harness.flush()
    assert not book.recent_tops
    harness.delta(200, 399, [(1, 1)])
    harness.flush()
    assert [number for number, _ in book.recent_quotes] == [500]
    assert harness.books.is_valid(0)


def test_verification_can_be_switched_off() -> None:
    harness = live(SPOT, BookSettings(verify=False))
    harness.quote(101, (1, 1), (2, 2))
    harness.delta(101, 101, [(10, 8)])
    harness.flush()
    assert harness.books.is_valid(0)


def digits(price: int, size: int) -> str:
    return f"{price}{size}"


def checksum(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
    return crc32("".join(digits(*level) for level in [*asks, *bids]).encode())


@pytest.mark.parametrize("text_of", [digits, None])
def test_checksums_and_the_depth_of_the_venue(text_of: object) -> None:
    rule = BookRule(
        Continuity.NONE,
        depth_max=2,
        checksum=checksum,
        checksum_text=text_of,  # type: ignore[arg-type]  # a parameter
    )
    harness = live(rule)
    harness.delta(0, 0, [(10, 1)], checksum=checksum([(10, 1), (9, 4)], ASKS))
    harness.delta(
        0,
        0,
        [(13, 1)][:0],
        [(10, 0), (11, 5)],
        checksum=checksum([(10, 1), (9, 4)], [(11, 5), (12, 7)]),
    )
    harness.delta(0, 0, [(8, 3)], checksum=checksum([(10, 1), (9, 4)], [(11, 5), (12, 7)]))
    harness.delta(0, 0, [(10, 0)], [(13, 9)], checksum=checksum([(9, 4)], [(11, 5), (12, 7)]))
    output = harness.flush()
    assert harness.published == [
        "b10=1.",
        "a10=0",
        "a11=5.",
        "b8=3",  # beyond the depth: set by the venue, removed by us
        "b8=0.",
        "b10=0",
        "a13=9",
        "a13=0.",
    ]
    assert output.added == [0, 0]
    assert harness.book() == ({9: 4}, {11: 5, 12: 7})
    harness.delta(0, 0, [(9, 5)], checksum=1)
    output = harness.flush()
    assert harness.published[-1] == "GAP CHECKSUM 0-0"
    assert output.filtered == 1
    line = harness.books.statistics()["acme", "spot"]
    assert (line.verified, line.mismatched, line.unverifiable) == (4, 1, 1)


def test_levels_are_bounded_and_a_book_that_ran_dry_is_repaired() -> None:
    harness = live(UNNUMBERED, BookSettings(levels_max=4))
    harness.delta(0, 0, [(price, 1) for price in range(3, 9)])
    output = harness.flush()
    assert output.added == [0] * 4
    assert harness.book()[0] == {10: 5, 9: 4, 8: 1, 7: 1}
    assert harness.books.snapshots([0]).rows["flags"][0] & Flag.PARTIAL
    harness.delta(0, 0, [(10, 0), (9, 0)])
    harness.flush()
    assert harness.books.is_valid(0)
    harness.delta(0, 0, [(8, 0)])
    assert [one.cause for one in harness.flush().repairs] == [Cause.SHED]


def test_a_held_update_beyond_the_bound_is_cut_when_it_is_released() -> None:
    harness = BookHarness(SPOT, BookSettings(levels_max=2))
    harness.delta(101, 101, [(8, 1), (7, 1)])
    harness.snapshot(100, BIDS, ASKS)
    assert harness.flush().added == [0, 0]
    assert harness.published == [*IMAGE, "b8=1", "b7=1", "b7=0", "b8=0."]
    assert harness.book()[0] == {10: 5, 9: 4}


# --- what is derived


def test_quotes_from_the_book_when_its_top_changes() -> None:
    rule = BookRule(Continuity.CONNECTION, quotes_from_book=True)
    harness = live(rule)
    harness.delta(101, 101, [(10, 6)])
    harness.delta(102, 102, [(9, 6)])
    harness.delta(103, 103, [], [(11, 0)])
    harness.delta(104, 104, [(10, 0), (9, 0)])
    quotes = harness.flush().quotes
    fields = ["sequence", "bid_price", "bid_size", "ask_price", "ask_size"]
    assert [tuple(row) for row in quotes[fields].tolist()] == [
        (101, 10, 6, 11, 6),
        (103, 10, 6, 12, 7),
        (104, 0, 0, 12, 7),
    ]


def test_images_of_the_book_start_a_consumer() -> None:
    harness = live(SOCKET, BookSettings(snapshot_depth=1))
    harness.delta(101, 101, [(10, 6)])
    harness.flush()
    batch = harness.books.snapshots([0, 1, 77])
    assert words(batch.rows) == ["b10=6*", "a11=6*."]
    assert np.all(batch.rows["flags"] & Flag.PARTIAL)
    assert set(batch.rows["sequence"].tolist()) == {101}
    late = OrderBooks()
    late.feed(TickBatch(RowClass.LEVEL, batch.rows, harness.table))
    assert late["acme:spot:AAA"].best() == (10, 6, 11, 6)
    assert late["acme:spot:AAA"].partial
