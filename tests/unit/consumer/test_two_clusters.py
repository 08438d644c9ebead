"""Two clusters that carry the same streams: each row once, and a hole only where both have one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.consumer import Consumer, LineArbiter, OrderBooks, TwoClusters
from ingestor.consumer.two_clusters import MARGIN_NS
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Cause, Flag, Kind, Rows, Side
from tests.fakes.rows import START_NS, quotes, table_of, trades

TABLE = table_of(3)
ROWS = 400
STEP_NS = 50_000_000
Holes = list[tuple[int, int]]


@dataclass(frozen=True)
class Delivery:
    """Rows that arrive together. at_ns: when."""

    at_ns: int
    line: int
    rows: Rows


def timed(rows: Rows, numbers: np.ndarray[tuple[int], np.dtype[np.int64]], line: int) -> Rows:
    """Rows as one cluster received them: at slightly other times than the other one."""
    rows["ts_event"] = START_NS + numbers * STEP_NS
    rows["ts_recv"] = rows["ts_event"] + 1_000_000 * (1 + line)
    return rows


def gap(row_class: RowClass, instrument: int, at_ns: int) -> Rows:
    return control_row(row_class, Kind.GAP, instrument, at_ns, cause=Cause.DISCONNECT)


@cache
def all_trades(line: int) -> Rows:
    return timed(trades(ROWS, instruments=3), np.arange(1, ROWS + 1), line)


def trade_line(line: int, holes: Holes) -> list[Rows]:
    """The rows of one cluster, each by itself; behind each hole a GAP of every instrument."""
    found: list[Rows] = []
    lost = {number for first, count in holes for number in range(first, first + count)}
    was_lost = False
    for number in range(1, ROWS + 1):
        if number in lost:
            was_lost = True
            continue
        row = all_trades(line)[number - 1 : number]
        if was_lost:
            at_ns = int(row["ts_recv"][0])
            found += [gap(RowClass.TRADE, instrument, at_ns) for instrument in range(3)]
            was_lost = False
        found.append(row)
    return found


def deliveries(lines: list[list[Rows]], lags_ns: tuple[int, int], size: int) -> list[Delivery]:
    """Cut each line into batches, and put all in order of arrival."""
    found = []
    for line, rows in enumerate(lines):
        for start in range(0, len(rows), size):
            part = np.concatenate(rows[start : start + size])
            found.append(Delivery(int(part["ts_recv"][-1]) + lags_ns[line], line, part))
    return sorted(found, key=lambda one: one.at_ns)


def merged(
    row_class: RowClass, arriving: list[Delivery], arbiter: LineArbiter | None = None
) -> list[TickBatch]:
    arbiter = arbiter or LineArbiter()
    return [
        taken
        for one in arriving
        if len(taken := arbiter.take(one.line, TickBatch(row_class, one.rows, TABLE)))
    ]


def lost_of(holes: Holes) -> set[int]:
    return {
        number for first, count in holes for number in range(first, first + count) if number <= ROWS
    }


def are_apart(first: Holes, second: Holes) -> bool:
    """Whether no hole of one is near one of the other, as the arbiter sees it."""
    near = 2 * MARGIN_NS // STEP_NS + 8
    return all(
        one + length + near < other or other + count + near < one
        for one, length in first
        for other, count in second
    )


HOLES = st.lists(st.tuples(st.integers(1, ROWS), st.integers(1, 40)), max_size=3)


@given(
    holes=st.tuples(HOLES, HOLES),
    lags_ms=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    size=st.integers(1, 20),
)
def test_trades_are_the_union_and_only_what_both_lost_is_a_gap(
    holes: tuple[Holes, Holes], lags_ms: tuple[int, int], size: int
) -> None:
    lines = [trade_line(line, holes[line]) for line in range(2)]
    lags_ns = lags_ms[0] * 1_000_000, lags_ms[1] * 1_000_000
    arbiter = LineArbiter()
    batches = merged(RowClass.TRADE, deliveries(lines, lags_ns, size), arbiter)
    rows = np.concatenate([batch.rows for batch in batches] or [trades(0)])
    came = Counter(rows["sequence"][rows["kind"] == Kind.TRADE].tolist())
    lost = lost_of(holes[0]), lost_of(holes[1])
    assert came == Counter(set(range(1, ROWS + 1)) - (lost[0] & lost[1]))
    gaps = rows[rows["kind"] == Kind.GAP]
    end = max(came, default=0)
    for number in lost[0] & lost[1]:
        if number < end - 3:  # behind the last row there is nothing to put a GAP before
            own = gaps[gaps["instrument"] == number % 3]
            assert (own["ts_recv"] > START_NS + number * STEP_NS).any()
    if are_apart(*holes) and all(first > 4 for each in holes for first, _ in each):
        assert len(gaps) == 0
        assert arbiter.filled == sum(
            len([row for row in line if row["kind"][0] == Kind.GAP]) for line in lines
        )


def test_a_gap_counts_where_the_other_cluster_is_gone() -> None:
    arbiter = LineArbiter()
    first, second = trade_line(0, [(100, 50)]), trade_line(1, [(60, ROWS)])
    batches = merged(RowClass.TRADE, deliveries([first, second], (0, 0), 5), arbiter)
    rows = np.concatenate([batch.rows for batch in batches])
    gaps = rows[rows["kind"] == Kind.GAP]
    assert sorted(gaps["instrument"].tolist()) == [0, 1, 2]
    assert arbiter.filled == 0


def test_equal_rows_of_one_cluster_are_as_many_as_they_were() -> None:
    """Without ids two prints may be the same in all that is said; each comes on both lines."""
    rows = trades(6, instruments=1)
    for name in ("trade_id_low", "sequence", "price", "size", "side"):
        rows[name] = 1 if name in ("price", "size", "side") else 0
    rows["ts_event"] = START_NS
    arbiter = LineArbiter()
    batches = [TickBatch(RowClass.TRADE, rows[part], TABLE) for part in (slice(0, 4), slice(4, 6))]
    taken = [
        len(arbiter.take(line, batch))
        for line, batch in ((0, batches[0]), (1, batches[0]), (1, batches[1]), (0, batches[1]))
    ]
    assert taken == [4, 0, 2, 0]


def test_quotes_that_count_the_messages_of_a_connection_are_told_by_what_they_say() -> None:
    arbiter = LineArbiter()
    first, second = quotes(30, instruments=3), quotes(30, instruments=3)
    second["sequence"] += 700
    second["ts_recv"] += 5
    assert len(arbiter.take(0, TickBatch(RowClass.QUOTE, first, TABLE))) == 30
    assert len(arbiter.take(1, TickBatch(RowClass.QUOTE, second, TABLE))) == 0
    assert arbiter.duplicates == 30


# ---------------------------------------------------------------------- books


@cache
def state_of(number: int) -> dict[tuple[int, int], int]:
    """The book after update `number`: (side, price) -> size, of the last eight updates."""
    return {
        (int(side), 1_000 + sign * (number - age) % 8): number - age
        for age in reversed(range(8))
        if number - age > 0
        for side, sign in ((Side.BID, -1), (Side.ASK, 1))
    }


@cache
def book_rows(number: int, line: int, *, whole: bool) -> Rows:
    """Update `number`, or the whole book behind a RESET."""
    changed = {
        place: size
        for place, size in state_of(number).items()
        if whole or state_of(number - 1).get(place) != size
    }
    gone = () if whole else state_of(number - 1).keys() - state_of(number).keys()
    places = [*changed.items(), *((place, 0) for place in gone)]
    rows = np.zeros(len(places), RowClass.LEVEL.dtype)
    rows["sequence"], rows["kind"] = number, Kind.LEVEL
    rows["flags"] = Flag.SNAPSHOT if whole else 0
    rows["flags"][-1] |= Flag.LAST
    for row, ((side, price), size) in zip(rows, places, strict=True):
        row["side"], row["price"], row["size"] = side, price, size
    timed(rows, np.full(len(rows), number), line)
    if not whole:
        return rows
    reset = control_row(RowClass.LEVEL, Kind.RESET, 0, int(rows["ts_recv"][0]))
    reset["sequence"] = number
    return np.concatenate([reset, rows])


def book_line(line: int, holes: Holes, offset: int = 0) -> list[Rows]:
    """A book as one cluster publishes it. offset: of the numbers of its connection."""
    lost = lost_of(holes)
    found: list[Rows] = []
    is_valid = False
    for number in range(1, ROWS + 1):
        if number in lost:
            is_valid = False
            continue
        rows = book_rows(number, line, whole=not is_valid)
        rows = rows.copy()
        rows["sequence"] += offset
        if not is_valid and found:
            found.append(gap(RowClass.LEVEL, 0, int(rows["ts_recv"][0])))
        found.append(rows)
        is_valid = True
    return found


@settings(deadline=None, max_examples=25)
@given(
    holes=st.tuples(HOLES, HOLES),
    lags_ms=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    size=st.integers(1, 20),
    offset=st.sampled_from([0, 0, 5_000]),
)
def test_a_merged_book_is_never_wrong(
    holes: tuple[Holes, Holes], lags_ms: tuple[int, int], size: int, offset: int
) -> None:
    """Whatever was lost: while the book is valid, it is that of the venue after that update."""
    lines = [book_line(0, holes[0]), book_line(1, holes[1], offset)]
    lags_ns = lags_ms[0] * 1_000_000, lags_ms[1] * 1_000_000
    books, seen, gaps = OrderBooks(), [0], 0
    for batch in merged(RowClass.LEVEL, deliveries(lines, lags_ns, size)):
        gaps += int((batch.rows["kind"] == Kind.GAP).sum())
        ends = np.flatnonzero(batch.rows["flags"] & Flag.LAST) + 1
        for start, end in pairwise([0, *ends.tolist(), len(batch)]):
            books.feed(TickBatch(RowClass.LEVEL, batch.rows[start:end], TABLE))
            if len(books) and (book := books[TABLE[0].key]).is_valid:
                number = book.sequence if book.sequence <= ROWS else book.sequence - offset
                levels = {
                    (int(side), price): quantity
                    for side, found in ((Side.BID, book.bids()), (Side.ASK, book.asks()))
                    for price, quantity in zip(found.prices, found.sizes, strict=True)
                }
                assert levels == state_of(number)
                seen.append(number)
    if not offset and are_apart(*holes) and all(first > 20 for each in holes for first, _ in each):
        assert (gaps, seen[-1]) == (0, ROWS)
        assert seen == sorted(seen), "an inversion"


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_line_that_comes_back_ahead_brings_no_inversion(ahead: int) -> None:
    """D2: the other line lags by more than the hole; its updates come after the snapshot."""
    lines = [book_line(0, [(100, 30)]), book_line(1, [])]
    lags_ns = (0, 4_000_000_000) if ahead == 0 else (4_000_000_000, 0)
    numbers = [
        int(number)
        for batch in merged(RowClass.LEVEL, deliveries(lines, lags_ns, 3))
        for number in batch.rows["sequence"][batch.rows["kind"] == Kind.LEVEL]
    ]
    assert numbers == sorted(numbers)


def test_lines_that_are_not_in_order_of_time_are_refused() -> None:
    one = Consumer("localhost:1", "md.a.trades.v1")
    other = Consumer("localhost:1", "md.b.trades.v1", is_ordered=True)
    with pytest.raises(ConfigError, match="order of time"):
        TwoClusters(other, one)
