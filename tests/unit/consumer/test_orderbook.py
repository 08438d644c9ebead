"""The strategy's book: what it answers, and when it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ingestor.consumer.orderbook import BookInvalid, OrderBook, OrderBooks
from ingestor.model.batch import TickBatch
from ingestor.model.errors import Recovery
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import LEVEL, QUOTE, Cause, Flag, Kind, Rows, Side

BID, ASK = Side.BID, Side.ASK
LAST, SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)


def row(side: Side, price: int, size: int, flags: int = 0, sequence: int = 1) -> Rows:
    one = np.zeros(1, LEVEL)
    one["kind"], one["side"], one["price"], one["size"] = Kind.LEVEL, side, price, size
    one["flags"], one["sequence"], one["ts_event"], one["ts_recv"] = flags, sequence, 5, 6
    return one


RESET = control_row(RowClass.LEVEL, Kind.RESET, 0, 1)
GAP = control_row(RowClass.LEVEL, Kind.GAP, 0, 1, cause=Cause.SEQUENCE, first=3, last=4)
IMAGE = np.concatenate(
    [
        row(BID, 1010, 50, SNAPSHOT),
        row(BID, 1000, 40, SNAPSHOT),
        row(ASK, 1030, 60, SNAPSHOT),
        row(ASK, 1050, 70, SNAPSHOT | LAST, sequence=9),
    ]
)


def book() -> OrderBook:
    """Prices have one decimal, sizes two."""
    return OrderBook("acme:spot:AAA", 1, 2)


def live() -> OrderBook:
    one = book()
    one.feed(np.concatenate([RESET, IMAGE]))
    return one


def test_it_answers_best_first_in_integers_floats_and_text() -> None:
    one = live()
    assert one.best() == (1010, 50, 1030, 60)
    assert [side.tolist() for side in one.bids()] == [[1010, 1000], [50, 40]]
    assert [side.tolist() for side in one.asks(1)] == [[1030], [60]]
    assert one.bids().prices.dtype == one.asks().sizes.dtype == np.int64
    prices, sizes = one.floats(one.asks())
    assert prices.tolist() == [103.0, 105.0]
    assert sizes.tolist() == [0.6, 0.7]
    assert (one.price_text(1010), one.size_text(5)) == ("101.0", "0.05")
    assert one.mid() == 102.0
    assert one.spread() == 2.0
    assert one.depth(1) == (0.5, 0.6)
    assert one.depth(10) == (0.9, 1.3)
    assert (one.sequence, one.ts_event, one.ts_recv, one.partial) == (9, 5, 6, False)


def test_it_refuses_before_the_first_snapshot() -> None:
    one = book()
    assert not one.is_valid
    one.feed(row(BID, 1, 1, LAST))  # a delta without a book is worthless
    for question in (one.best, one.bids, one.asks, one.mid, one.spread):
        with pytest.raises(BookInvalid, match=r"acme:spot:AAA is invalid .no snapshot yet"):
            question()
    with pytest.raises(BookInvalid):
        one.depth(1)
    assert BookInvalid.recovery is Recovery.RESUBSCRIBE


def test_it_refuses_until_the_snapshot_is_complete() -> None:
    one = live()
    one.feed(np.concatenate([GAP, row(BID, 1, 1, LAST)]))
    with pytest.raises(BookInvalid, match="GAP, cause SEQUENCE"):
        one.best()
    one.feed(RESET)
    for part in range(3):
        one.feed(IMAGE[part : part + 1])
        with pytest.raises(BookInvalid, match="snapshot is not complete"):
            one.best()
    one.feed(IMAGE[3:])
    assert one.best() == (1010, 50, 1030, 60)


def test_a_gap_in_the_middle_of_a_snapshot_undoes_it() -> None:
    one = book()
    one.feed(np.concatenate([RESET, IMAGE[:2], GAP]))
    assert not one.is_valid
    one.feed(np.concatenate([RESET, IMAGE[2:]]))
    assert one.best() == (0, 0, 1030, 60)


def test_it_answers_as_of_the_last_complete_event() -> None:
    one = live()
    one.feed(row(BID, 1030, 5))  # crossed until the rest of the event is here
    assert one.best() == (1010, 50, 1030, 60)
    one.feed(np.concatenate([row(ASK, 1030, 0, LAST, 10), row(BID, 1030, 0, 0, 11)]))
    assert one.best() == (1030, 5, 1050, 70)
    assert one.sequence == 10
    one.feed(row(BID, 1010, 0, LAST, 11))
    assert one.best() == (1000, 40, 1050, 70)


def test_a_reset_drops_the_event_that_was_waiting() -> None:
    one = live()
    one.feed(row(BID, 1020, 5))
    one.feed(np.concatenate([RESET, IMAGE, row(BID, 1, 1, LAST)]))
    assert one.best() == (1010, 50, 1030, 60)


def test_an_image_without_reset_starts_or_replaces_a_book() -> None:
    one = book()
    partial = IMAGE.copy()
    partial["flags"] |= np.uint16(Flag.PARTIAL)
    one.feed(partial)
    assert one.is_valid
    assert one.partial
    one.feed(np.concatenate([row(BID, 900, 1, SNAPSHOT), row(ASK, 910, 1, SNAPSHOT | LAST)]))
    assert [side.tolist() for side in one.bids()] == [[900], [1]]
    assert not one.partial


def test_two_images_in_one_batch_are_two_books_one_after_the_other() -> None:
    one = book()
    one.feed(np.concatenate([IMAGE, row(BID, 900, 1, SNAPSHOT | LAST)]))
    assert one.best() == (900, 1, 0, 0)


def test_an_empty_snapshot_is_a_valid_book_without_middle() -> None:
    one = live()
    empty = RESET.copy()
    empty["flags"] |= np.uint16(SNAPSHOT)
    one.feed(empty)
    assert one.best() == (0, 0, 0, 0)
    assert math.isnan(one.mid())
    assert math.isnan(one.spread())
    assert one.depth(5) == (0.0, 0.0)
    assert one.bids().prices.shape == (0,)


def test_answers_are_the_callers_own() -> None:
    one = live()
    one.bids().sizes[:] = 0
    assert one.best()[1] == 50


def test_batches_are_routed_by_instrument() -> None:
    table = InstrumentTable(
        instrument("acme", "spot", symbol, symbol, symbol, "USD", "0.1", "0.01")
        for symbol in ("AAA", "BBB")
    )
    books = OrderBooks()
    other = np.concatenate([RESET, IMAGE, row(BID, 1015, 1, LAST)])
    other["instrument"] = 1
    mixed = np.concatenate([other[:3], RESET, IMAGE, other[3:]])
    assert books.feed(TickBatch(RowClass.LEVEL, mixed, table)) == ["acme:spot:AAA", "acme:spot:BBB"]
    assert books["acme:spot:AAA"].best() == (1010, 50, 1030, 60)
    assert books["acme:spot:BBB"].best() == (1015, 1, 1030, 60)
    assert list(books) == ["acme:spot:AAA", "acme:spot:BBB"]
    assert len(books) == 2
    assert books.feed(TickBatch(RowClass.LEVEL, mixed[:0], table)) == []
    finer = table.add(instrument("acme", "spot", "AAA", "AAA", "AAA", "USD", "0.01", "0.01"))
    delta = row(BID, 1010, 1, LAST)
    delta["instrument"] = finer
    books.feed(TickBatch(RowClass.LEVEL, delta, table))
    assert not books["acme:spot:AAA"].is_valid
    with pytest.raises(ValueError, match="QUOTE rows make no book"):
        books.feed(TickBatch(RowClass.QUOTE, np.zeros(1, QUOTE), table))
