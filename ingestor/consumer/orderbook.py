"""The strategy's side: an order book fed with the rows of `md.book.v1`, or of an image of it.

    books = OrderBooks()
    for batch in batches:              # TickBatch of LEVEL rows, any number of instruments
        books.feed(batch)
    book = books["simulated:spot:S00001-USD"]
    if book.is_valid:
        price, size = book.bids()      # int64 arrays, best first

A book answers as of the last complete venue event, and refuses with `BookInvalid` from a GAP until
RESET and the snapshot behind it are complete. It never answers from half an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingestor.model.batch import TickBatch
from ingestor.model.book_side import BookSide
from ingestor.model.decimals import format_decimal
from ingestor.model.errors import IngestError, Recovery
from ingestor.model.rows import LEVEL, Cause, Flag, Kind, Rows, Side

_LAST: Final = int(Flag.LAST)
_SNAPSHOT: Final = int(Flag.SNAPSHOT)


class BookInvalid(IngestError):
    """The book has a hole. Wait for RESET and snapshot, or start from the compacted topic."""

    recovery = Recovery.RESUBSCRIBE

    def __init__(self, instrument: str, reason: str) -> None:
        super().__init__(instrument, reason)
        self.instrument = instrument
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the book of {self.instrument} is invalid ({self.reason}); "
            "feed rows until a RESET and its snapshot are complete"
        )


class Levels(NamedTuple):
    """Levels of one side, best first: int64 arrays in units of 10^-exponent."""

    prices: NDArray[np.int64]
    sizes: NDArray[np.int64]


class OrderBook:
    """One instrument's book. price_exponent, size_exponent: those of the batch's instrument.

    sequence, ts_event, ts_recv: of the last complete event. partial: the snapshot was cut, the
    venue's book is deeper.
    """

    def __init__(self, instrument: str, price_exponent: int, size_exponent: int) -> None:
        self.instrument = instrument
        self.price_exponent = price_exponent
        self.size_exponent = size_exponent
        self.sequence = 0
        self.ts_event = 0
        self.ts_recv = 0
        self.partial = False
        self._bids = BookSide()
        self._asks = BookSide()
        self._invalid = "no snapshot yet"  # why; empty = valid
        self._in_snapshot = False
        self._waiting: list[Rows] = []  # the rows of an event whose LAST is still to come

    @property
    def is_valid(self) -> bool:
        return not self._invalid

    def feed(self, rows: Rows) -> None:
        """Take LEVEL rows of this instrument, in order. An event may be spread over calls."""
        if not len(rows):
            return
        special = (rows["kind"] != Kind.LEVEL) | ((rows["flags"] & _SNAPSHOT) != 0)
        if not special.any():
            self._events(rows)
            return
        # Cut where the nature of the rows changes: marks stand alone, snapshots and deltas in runs.
        nature = np.where(rows["kind"] != Kind.LEVEL, 2, special)
        starts = np.flatnonzero(np.diff(nature, prepend=-1) | (nature == 2))
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            if nature[start] == 2:
                self._mark(rows[start])
            elif nature[start] == 1:
                self._snapshots(rows[start:end])
            else:
                self._events(rows[start:end])

    def invalidate(self, reason: str) -> None:
        """Refuse to answer until the next snapshot is complete: rows were lost on the way."""
        self._waiting.clear()
        self._in_snapshot = False
        self._invalid = reason

    def bids(self, depth: int | None = None) -> Levels:
        """Return the best `depth` bids (None: all), best first. Raises BookInvalid."""
        return self._levels(self._bids, depth, 1)

    def asks(self, depth: int | None = None) -> Levels:
        """Return the best `depth` asks (None: all), best first. Raises BookInvalid."""
        return self._levels(self._asks, depth, -1)

    def best(self) -> tuple[int, int, int, int]:
        """Return bid price, bid size, ask price, ask size; 0, 0 for an empty side.

        Raises BookInvalid.
        """
        self._require()
        bid_key, bid_size = self._bids.first()
        ask_key, ask_size = self._asks.first()
        return bid_key, bid_size, -ask_key, ask_size

    def mid(self) -> float:
        """Return the middle of best bid and ask; NaN when a side is empty. Raises BookInvalid."""
        bid, bid_size, ask, ask_size = self.best()
        if not (bid_size and ask_size):
            return float("nan")
        return float((bid + ask) / (2 * 10**self.price_exponent))

    def spread(self) -> float:
        """Return best ask minus best bid; NaN when a side is empty. Raises BookInvalid."""
        bid, bid_size, ask, ask_size = self.best()
        if not (bid_size and ask_size):
            return float("nan")
        return float((ask - bid) / 10**self.price_exponent)

    def depth(self, levels: int) -> tuple[float, float]:
        """Return the summed size of the best `levels` bids and asks. Raises BookInvalid."""
        scale = 10**self.size_exponent
        bids, asks = self.bids(levels), self.asks(levels)
        return sum(bids.sizes.tolist()) / scale, sum(asks.sizes.tolist()) / scale

    def price_text(self, price: int) -> str:
        """Return a scaled price as exact decimal text."""
        return format_decimal(price, self.price_exponent)

    def size_text(self, size: int) -> str:
        """Return a scaled size as exact decimal text."""
        return format_decimal(size, self.size_exponent)

    def floats(self, levels: Levels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return levels as floats: prices, sizes."""
        return levels.prices / 10**self.price_exponent, levels.sizes / 10**self.size_exponent

    def _require(self) -> None:
        if self._invalid:
            raise BookInvalid(self.instrument, self._invalid)

    def _levels(self, side: BookSide, depth: int | None, sign: int) -> Levels:
        self._require()
        keys, sizes = side.arrays(len(side) if depth is None else depth)
        return Levels(sign * keys, sizes.copy())

    def _mark(self, row: np.void) -> None:
        self._waiting.clear()
        self._bids.clear()
        self._asks.clear()
        if row["kind"] == Kind.RESET:
            self._in_snapshot = True
            self._invalid = "its snapshot is not complete"
            self.partial = False
            if row["flags"] & _SNAPSHOT:  # the snapshot has no levels
                self._complete(row)
        else:
            self._in_snapshot = False
            self._invalid = f"GAP, cause {Cause(int(row['side'])).name}"

    def _snapshots(self, rows: Rows) -> None:
        """Rows of one snapshot or more; without a RESET (an image of the book), they are one."""
        ends = np.flatnonzero(rows["flags"] & _LAST) + 1
        start = 0
        for end in [*ends.tolist(), len(rows)]:
            if start == end:
                continue
            if not self._in_snapshot:
                self._bids.clear()
                self._asks.clear()
                self._waiting.clear()
                self._in_snapshot = True
                self._invalid = "its snapshot is not complete"
            part = rows[start:end]
            self._apply(part)
            if part["flags"][-1] & _LAST:
                self.partial = bool(part["flags"][-1] & Flag.PARTIAL)
                self._complete(part[-1])
            start = end

    def _complete(self, row: np.void) -> None:
        self._in_snapshot = False
        self._invalid = ""
        self._note(row)

    def _events(self, rows: Rows) -> None:
        """Deltas. What isn't complete waits; what comes while the book is invalid is worthless."""
        if self._invalid:
            return
        ends = np.flatnonzero(rows["flags"] & _LAST)
        if not len(ends):
            self._waiting.append(rows.copy())
            return
        end = int(ends[-1]) + 1
        complete = rows[:end]
        if self._waiting:
            complete = np.concatenate([*self._waiting, complete])
            self._waiting.clear()
        self._apply(complete)
        self._note(complete[-1])
        if end < len(rows):
            self._waiting.append(rows[end:].copy())

    def _apply(self, rows: Rows) -> None:
        for ladder, side, sign in ((self._bids, Side.BID, 1), (self._asks, Side.ASK, -1)):
            levels = rows[rows["side"] == side]
            if len(levels):
                keys: list[int] = (sign * levels["price"]).tolist()
                ladder.apply(zip(keys, levels["size"].tolist(), strict=True), max(keys))

    def _note(self, row: np.void) -> None:
        self.sequence = int(row["sequence"])
        self.ts_event = int(row["ts_event"])
        self.ts_recv = int(row["ts_recv"])


class OrderBooks(Mapping[str, OrderBook]):
    """Books by instrument key, fed with whole batches."""

    def __init__(self) -> None:
        self._books: dict[str, OrderBook] = {}

    def feed(self, batch: TickBatch) -> list[str]:
        """Route the rows of a LEVEL batch to their books; return the keys that had rows.

        A new revision of an instrument (other exponents) starts with an invalid book.
        """
        rows = batch.rows
        if rows.dtype != LEVEL:
            raise ValueError(f"{batch.row_class.name} rows make no book")
        if not len(rows):
            return []
        order = np.argsort(rows["instrument"], kind="stable")
        numbers, starts = np.unique(rows["instrument"][order], return_index=True)
        keys = []
        for number, start, end in zip(numbers, starts, [*starts[1:], len(rows)], strict=True):
            book = self._book(batch, int(number))
            book.feed(rows[order[start:end]])
            keys.append(book.instrument)
        return keys

    def __getitem__(self, key: str) -> OrderBook:
        return self._books[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._books)

    def __len__(self) -> int:
        return len(self._books)

    def _book(self, batch: TickBatch, number: int) -> OrderBook:
        one = batch.instruments[number]
        book = self._books.get(one.key)
        exponents = (one.price_exponent, one.size_exponent)
        if book is None or (book.price_exponent, book.size_exponent) != exponents:
            book = self._books[one.key] = OrderBook(one.key, *exponents)
        return book
