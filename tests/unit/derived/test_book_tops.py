"""Tops of books against a direct computation with Decimal, whatever the flushes."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest

from ingestor.derived.book_tops import BookTops
from ingestor.derived.settings import DerivedSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import LEVEL, Cause, Flag, Kind, Rows, Side
from tests.fakes.rows import START_NS, table_of
from tests.reference.derived import RowsOf, direct_tops, tops_of

MS = 1_000_000
BASE_NS = START_NS - START_NS % (1_000 * MS)
DEPTH = 3


def settings_of(number: int) -> DerivedSettings:
    if number == 4:
        return DerivedSettings()
    return DerivedSettings(top_levels=DEPTH, top_interval_ns=(100, 250)[number % 2] * MS)


def event(
    ts_recv: int, levels: Iterable[tuple[int, int, int]], number: int = 0, flags: int = 0
) -> Rows:
    """levels: side, price, size."""
    rows = np.zeros(len(levels := [*levels]), LEVEL)
    rows["ts_event"], rows["ts_recv"], rows["instrument"] = ts_recv - 5, ts_recv, number
    rows["flags"], rows["kind"], rows["sequence"] = flags, Kind.LEVEL, ts_recv % 1_000
    for name, column in zip(("side", "price", "size"), zip(*levels, strict=True), strict=True):
        rows[name] = column
    rows["flags"][-1] |= Flag.LAST
    return rows


def mark(kind: Kind, ts_recv: int, number: int = 0) -> Rows:
    cause = Cause.SEQUENCE if kind is Kind.GAP else None
    return control_row(RowClass.LEVEL, kind, number, ts_recv, cause=cause)


def stream(seed: int, count: int, instruments: int) -> Rows:
    """Books that begin, change, break, and are held for a while, in order of receipt."""
    random_of = random.Random(seed)
    ts_recv, parts = BASE_NS, []
    is_valid = dict.fromkeys(range(instruments), False)
    for _ in range(count):
        ts_recv += random_of.choice((0, 1, MS, 5 * MS, 5 * MS, 100 * MS, 700 * MS))
        number = random_of.randrange(instruments)
        if not is_valid[number] and random_of.random() < 0.5:
            parts.append(mark(Kind.RESET, ts_recv, number))
            parts.append(event(ts_recv, levels_of(random_of, 30), number, Flag.SNAPSHOT))
            held_ns = ts_recv - random_of.choice((1, 30, 300)) * MS
            parts.append(event(held_ns, levels_of(random_of, 3), number))
            is_valid[number] = True
        elif random_of.random() < 0.03:
            parts.append(mark(Kind.GAP, ts_recv, number))
            is_valid[number] = False
        elif is_valid[number]:
            parts.append(event(ts_recv, levels_of(random_of, random_of.randrange(1, 9)), number))
    return np.concatenate(parts)


def levels_of(random_of: random.Random, count: int) -> list[tuple[int, int, int]]:
    found = []
    for _ in range(count):
        side = random_of.choice((Side.BID, Side.ASK))
        price = random_of.randrange(1, 40) + (40 if side is Side.ASK else 0)
        found.append((side, price, random_of.choice((0, 0, 1, 2, 7))))
    return sorted(found, key=lambda one: one[0])


def flushed(tops: BookTops, rows: Rows, sizes: Iterable[int], end_ns: int) -> dict[RowClass, Rows]:
    """Return what comes of rows in flushes of whole times, of these many rows again and again."""
    found: dict[RowClass, list[Rows]] = {}
    at, now_ns = 0, 0
    times = rows["ts_recv"]
    while at < len(rows):
        for size in sizes:
            end = min(at + size, len(rows))
            now_ns = max(now_ns, int(times[at:end].max(initial=0)))
            while end < len(rows) and times[end] <= now_ns:
                end += 1
            for row_class, some in tops.take(rows[at:end], now_ns).items():
                found.setdefault(row_class, []).append(some)
            at = end
    for row_class, some in tops.take(rows[:0], end_ns).items():
        found.setdefault(row_class, []).append(some)
    return {row_class: np.concatenate(parts) for row_class, parts in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_tops_are_those_of_a_direct_computation(seed: int) -> None:
    table, rows = table_of(5), stream(seed, 600, 5)
    end_ns = int(rows["ts_recv"].max()) + 1_000 * MS
    found = flushed(BookTops(table, settings_of), rows, (1, 40, 7), end_ns)
    by_key = RowsOf(RowClass.LEVEL, [TickBatch(RowClass.LEVEL, rows, table)]).by_key()
    published = found[RowClass.BOOK_TOP]
    assert set(np.unique(published["instrument"])) == {0, 1, 2, 3}
    for number in range(4):
        levels, exponents = by_key[table[number].key]
        own = published[published["instrument"] == number]
        expected = direct_tops(
            levels, exponents, DEPTH, settings_of(number).top_interval_ns, end_ns
        )
        assert tops_of(own, exponents) == {at: (bids, asks) for at, bids, asks in expected}
        gaps = (levels["kind"] == Kind.GAP).sum()
        assert (own["kind"] == Kind.GAP).sum() == gaps > 0
    kept = found[RowClass.BOOK_TOP_LAST].copy()
    kept["kind"][kept["kind"] == Kind.BOOK_TOP_LAST] = Kind.BOOK_TOP
    assert kept.tobytes() == published.tobytes()


def test_flushes_do_not_matter() -> None:
    table, rows = table_of(5), stream(11, 600, 5)
    end_ns = int(rows["ts_recv"].max()) + 1_000 * MS
    found = []
    for sizes in ((1,), (3, 100), (10_000,)):
        tops = flushed(BookTops(table, settings_of), rows, sizes, end_ns)[RowClass.BOOK_TOP]
        found.append([tops[tops["instrument"] == number].tobytes() for number in range(5)])
    assert found[0] == found[1] == found[2]


def test_one_top() -> None:
    tops = BookTops(table_of(1), settings_of)
    bids = [(Side.BID, price, 10 * price) for price in range(1, 6)]
    asks = [(Side.ASK, 9, 1), (Side.ASK, 7, 2)]
    rows = np.concatenate([mark(Kind.RESET, BASE_NS + 1), event(BASE_NS + 1, [*bids, *asks])])
    assert not tops.take(rows, BASE_NS + 99 * MS)
    found = tops.take(rows[:0], BASE_NS + 100 * MS)[RowClass.BOOK_TOP]
    assert found[["side", "price", "size"]].tolist() == [
        *((1, 5, 50), (1, 4, 40), (1, 3, 30)),
        *((2, 7, 2), (2, 9, 1)),
    ]
    plain = Flag.SNAPSHOT | Flag.PARTIAL
    assert found["flags"].tolist() == [*[plain] * 4, plain | Flag.LAST]
    assert set(found["ts_recv"].tolist()) == {BASE_NS + 100 * MS}
    assert set(found["ts_event"].tolist()) == {BASE_NS - 4}
    # Nothing changes: the next one is equal.
    again = tops.take(rows[:0], BASE_NS + 200 * MS)[RowClass.BOOK_TOP]
    assert set(again["ts_recv"].tolist()) == {BASE_NS + 200 * MS}
    assert again["price"].tolist() == found["price"].tolist()
    # All levels go: the book is empty, and valid.
    gone = [(side, price, 0) for side, price, _ in [*bids, *asks]]
    [empty] = tops.take(event(BASE_NS + 201 * MS, gone), BASE_NS + 300 * MS)[RowClass.BOOK_TOP]
    assert (empty["kind"], empty["flags"]) == (Kind.RESET, Flag.SNAPSHOT | Flag.LAST)


def test_another_revision_begins_anew_and_the_same_numbers_go_on() -> None:
    table = InstrumentTable([instrument("a", "m", "A", "A", "A", "USD", "0.1", "1")])
    tops = BookTops(table, lambda _: settings_of(0))
    rows = np.concatenate([mark(Kind.RESET, BASE_NS), event(BASE_NS, [(Side.BID, 5, 1)])])
    tops.take(rows, BASE_NS)
    same = table.add(instrument("a", "m", "A", "A", "A", "USD", "0.2", "1"))
    tops.replace_instruments({0: same})
    [found] = tops.take(rows[:0], BASE_NS + 100 * MS)[RowClass.BOOK_TOP]
    assert (found["instrument"], found["price"]) == (same, 5)
    finer = table.add(instrument("a", "m", "A", "A", "A", "USD", "0.01", "1"))
    tops.replace_instruments({same: finer})
    assert not tops.take(rows[:0], BASE_NS + 200 * MS)


def test_other_settings_and_time_that_nobody_saw() -> None:
    table = table_of(2)
    tops = BookTops(table, lambda _: settings_of(0))
    rows = [
        np.concatenate([mark(Kind.RESET, BASE_NS, at), event(BASE_NS, [(Side.BID, 5, 1)], at)])
        for at in (0, 1)
    ]
    tops.take(np.concatenate(rows), BASE_NS)
    wider = DerivedSettings(top_levels=1, top_interval_ns=500 * MS)
    tops.configure({0: DerivedSettings(), 1: wider}.__getitem__)
    found = tops.take(rows[0][:0], BASE_NS + 1_100 * MS)[RowClass.BOOK_TOP]
    assert found[["instrument", "ts_recv"]].tolist() == [
        (1, BASE_NS + 500 * MS),
        (1, BASE_NS + 1_000 * MS),
    ]
    tops.skip_to(BASE_NS + 10_000 * MS)
    found = tops.take(rows[0][:0], BASE_NS + 10_600 * MS)[RowClass.BOOK_TOP]
    assert found["ts_recv"].tolist() == [BASE_NS + 10_500 * MS]
