"""The program and an independent reader agree on every recording, in every digit.

The reader (`reader.py`) parses with the standard library, counts in `Decimal`, keeps books in plain
dicts, and shares no code with the program. What is compared are all fields of all rows, each book
at every flush, and the final books.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from ingestor.adapter import FeedAdapter
from ingestor.consumer.orderbook import Levels, OrderBook, OrderBooks
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Flag, Kind, Side
from ingestor.recording.reader import Problems
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from tests.e2e.harness import Published
from tests.faults.results import RowRecorder
from tests.feeds.fixtures import Fixture, Step, by_kind, load, markets
from tests.feeds.fixtures import Row as FixtureRow
from tests.feeds.harness import outcomes
from tests.reference.reader import (
    CAPTURES,
    READ,
    Book,
    Capture,
    Event,
    Level,
    Quote,
    Reader,
    Trade,
    Update,
    of,
    parse,
    read,
    rest_book,
    tops,
)

SLICE_LINES = 400  # of each capture, in the short suite
FLUSH_ROWS = 100
SHORT_FLUSH_ROWS = 4_000
WHOLE_BOOK_EVERY = 20  # flushes; the best levels are compared at each
BEST = 25
SIDES = {Side.BID: "bid", Side.ASK: "ask"}
FIXTURES = [
    pytest.param(*pair, id=f"{pair[0].venue}_{pair[1]}")
    for pair in markets()
    if pair[0].venue in READ
]


class Compared:
    """A program's run over one capture, held against the reference. numbers: compared so far."""

    def __init__(self, path: Path, capture: Capture, flush_rows: int) -> None:
        self.numbers: Counter[str] = Counter()
        self._capture = capture
        self._replay = Replay(
            ReplayOptions(
                (path,), venue=capture.venue, market=capture.market, flush_rows=flush_rows
            ),
            problems=Problems(),
        )
        self._books = OrderBooks()
        self._rows: Counter[str] = Counter()  # levels that came, by symbol
        self._references = {
            symbol: _ReferenceBook(capture.book(symbol), capture.depths.get(symbol))
            for symbol in capture.symbols
            if capture.book(symbol)
        }

    def run(self) -> None:
        batches: list[TickBatch] = []
        for number, result in enumerate(self._replay.results(), 1):
            batches += result.batches
            changed: set[str] = set()
            for batch in result.batches:
                if batch.row_class is RowClass.LEVEL:
                    self._count(batch)
                    changed |= {key.split(":", 2)[2] for key in self._books.feed(batch)}
            whole = number % WHOLE_BOOK_EVERY == 0
            for symbol in sorted(changed):
                self._compare_book(symbol, whole=whole)
        for symbol in self._references:
            self._compare_book(symbol, whole=True)
        published = Published(batches, 0, 0)
        assert {key.split(":", 2)[2] for one in ROW_CLASSES for key in published.keys(one)} == set(
            self._capture.symbols
        )
        for symbol in self._capture.symbols:
            self._compare_rows(published, symbol)
        assert sum(one.rejected for one in self._replay.counts.values()) == 0

    def _key(self, symbol: str) -> str:
        return f"{self._capture.venue}:{self._capture.market}:{symbol}"

    def _count(self, batch: TickBatch) -> None:
        levels = batch.rows[batch.rows["kind"] == Kind.LEVEL]
        for number, count in zip(*np.unique(levels["instrument"], return_counts=True), strict=True):
            self._rows[self._replay.table[int(number)].symbol] += int(count)

    def _compare_book(self, symbol: str, *, whole: bool) -> None:
        """A book as its rows make it is the reference's, after as many levels."""
        reference = self._references[symbol]
        reference.advance(self._rows[symbol])
        book = self._books[self._key(symbol)]
        assert book.is_valid, symbol
        depth = None if whole else BEST
        found = {"bid": _levels(book, book.bids(depth)), "ask": _levels(book, book.asks(depth))}
        assert found == {side: reference.best(side, depth) for side in SIDES.values()}, symbol
        self.numbers["books"] += 1
        self.numbers["book levels"] += sum(map(len, found.values()))

    def _compare_rows(self, published: Published, symbol: str) -> None:
        capture, key = self._capture, self._key(symbol)
        trades = of(capture.trades, symbol)
        assert published.trades(key) == trades
        assert _received(published, RowClass.TRADE, key) == capture.received(symbol, Trade)
        self.numbers["trades"] += len(trades)
        book = capture.timed_book(symbol)
        quotes = of(capture.quotes, symbol)
        if adapter_of(capture.venue).markets[capture.market].book.quotes_from_book:
            found = [one[1:5] for one in published.quotes(key)]
            assert found == tops(update for _, update in book)
            self.numbers["quotes"] += len(found)
        else:
            assert published.quotes(key) == quotes
            assert _received(published, RowClass.QUOTE, key) == capture.received(symbol, Quote)
            self.numbers["quotes"] += len(quotes)
        expected = list(_level_rows(book, capture.depths.get(symbol)))
        assert _published_levels(published, key) == expected
        self.numbers["levels"] += len(expected)
        rows = published.rows(RowClass.LEVEL, key)
        images = sum(update.is_snapshot for _, update in book)
        assert int((rows["kind"] == Kind.RESET).sum()) == images
        for row_class in ROW_CLASSES:
            assert not (published.rows(row_class, key)["kind"] == Kind.GAP).any()


class _ReferenceBook:
    """A book of the reference, moved forward by the number of level rows that it led to."""

    def __init__(self, updates: list[Update], depth_max: int | None) -> None:
        counting = Book(depth_max)
        self._ends = [0]
        for update in updates:
            self._ends.append(self._ends[-1] + len(counting.apply(update)))
        self._updates = updates
        self._at = 0
        self._book = Book(depth_max)

    def advance(self, rows: int) -> None:
        """Apply the updates whose levels are among so many rows: a flush never parts an event."""
        end = bisect_right(self._ends, rows) - 1
        assert self._ends[end] == rows
        for update in self._updates[self._at : end]:
            self._book.apply(update)
        self._at = max(self._at, end)

    def best(self, side: str, depth: int | None) -> list[tuple[Decimal, Decimal]]:
        levels = sorted(self._book.sides[side].items(), reverse=side == "bid")
        return levels[:depth]


def _levels(book: OrderBook, levels: Levels) -> list[tuple[Decimal, Decimal]]:
    return [
        (Decimal(price).scaleb(-book.price_exponent), Decimal(size).scaleb(-book.size_exponent))
        for price, size in zip(levels.prices.tolist(), levels.sizes.tolist(), strict=True)
    ]


LevelRow = tuple[Level, int, int | None, int, bool, bool]


def _level_rows(book: list[tuple[int, Update]], depth_max: int | None) -> Iterator[LevelRow]:
    """Each level with its update's number and times, whether it is an image's, and the last."""
    reference = Book(depth_max)
    for received, update in book:
        levels = reference.apply(update)
        for place, level in enumerate(levels, 1):
            last = place == len(levels)
            yield level, update.last, update.ts_event, received, update.is_snapshot, last


def _published_levels(published: Published, key: str) -> list[LevelRow]:
    rows = published.rows(RowClass.LEVEL, key)
    rows = rows[rows["kind"] == Kind.LEVEL]
    return [
        (
            level,
            int(row["sequence"]),
            None if row["flags"] & Flag.NO_VENUE_TIME else int(row["ts_event"]),
            int(row["ts_recv"]),
            bool(row["flags"] & Flag.SNAPSHOT),
            bool(row["flags"] & Flag.LAST),
        )
        for level, row in zip(published.levels(key), rows, strict=True)
    ]


def _received(published: Published, row_class: RowClass, key: str) -> list[int]:
    rows = published.rows(row_class, key)
    return (
        [int(time) for time in rows[rows["kind"] == row_class.id]["ts_recv"]] if len(rows) else []
    )


@pytest.mark.captures
@pytest.mark.long(minutes=2)
@pytest.mark.rows("D7")
@pytest.mark.parametrize("name", CAPTURES)
def test_every_number_of_a_capture(name: str, captures: Path, row: RowRecorder) -> None:
    capture = read(captures / name)
    compared = Compared(captures / name, capture, FLUSH_ROWS)
    compared.run()
    counts = ", ".join(f"{count:,} {kind}" for kind, count in compared.numbers.items())
    row("D7", promised="0 differences", measured=f"{name.partition('.')[0]}: {counts}: 0 differ")


@pytest.mark.captures
@pytest.mark.rows("D7")
@pytest.mark.parametrize("name", CAPTURES)
def test_every_number_of_the_beginning_of_a_capture(
    name: str, captures: Path, tmp_path: Path
) -> None:
    part = tmp_path / name
    with zstandard.open(captures / name, "rt", encoding="utf-8") as whole:
        part.write_bytes(zstandard.compress("".join(islice(whole, SLICE_LINES)).encode()))
    compared = Compared(part, read(part), SHORT_FLUSH_ROWS)
    compared.run()
    assert compared.numbers["books"] > 0


@pytest.mark.rows("D7")
@pytest.mark.parametrize(("adapter", "market"), FIXTURES)
def test_every_frame_of_a_fixture(adapter: type[FeedAdapter], market: str) -> None:
    """Each frame that is accepted means to the program what it means to the reader, who knows
    trades, quotes and books."""
    fixture = load(adapter, market)
    reader = Reader(adapter.venue)
    compared = 0
    for step, outcome in zip(fixture.steps, outcomes(adapter, market), strict=True):
        if step.outcome == "rejected" or step.verb not in {"frame", "snapshot"}:
            continue
        events = list(_events(fixture, step, reader))
        if step.outcome == "expect":
            found = [{name: one[name] for name in one if name not in {"checksum", "flags"}}
                     for one in outcome.rows
                     if one["kind"] in {"trade", "quote", "update"}]  # fmt: skip
            assert found == by_kind([_fixture_row(event) for event in events]), step.line
            images = [one for one in outcome.rows if "SNAPSHOT" in one.get("flags", ())]
            of_books = [one for one in images if one["kind"] == "update"]
            assert len(of_books) == sum(isinstance(e, Update) and e.is_snapshot for e in events)
            compared += len(found)
    assert compared > 5


def _events(fixture: Fixture, step: Step, reader: Reader) -> Iterator[Event]:
    if step.verb == "snapshot":
        yield rest_book(step.symbol, parse(step.value))
        return
    known = {one.symbol for one in fixture.instruments}
    try:
        message = parse(step.value)
    except ValueError:
        return  # bare text
    if isinstance(message, dict):
        yield from (one for one in reader.events(message) if one.symbol in known)


def _fixture_row(event: Event) -> FixtureRow:
    """Return an event in the words of the fixtures."""
    row: dict[str, Any] = {"symbol": event.symbol, "ts_event": event.ts_event}
    names: tuple[str, ...]
    match event:
        case Trade():
            row |= {"kind": "trade", "side": {"buy": "bid", "sell": "ask"}[event.side]}
            names = ("price", "size", "trade_id", "sequence")
        case Quote():
            row["kind"] = "quote"
            names = ("bid_price", "bid_size", "ask_price", "ask_size", "sequence")
        case Update():
            row["kind"] = "update"
            names = ("first", "last", "previous")
            for side, key in (("bid", "bids"), ("ask", "asks")):
                row[key] = [[one.price, one.size] for one in event.levels if one.side == side]
    return row | {name: getattr(event, name) for name in names}
