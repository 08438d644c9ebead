"""Takes the tops of books at fixed times, from the rows of the channel `book`.

Pure. The top at a time T, a multiple of the interval, has all rows that were received before T, as
`ts_recv` says; a row that was held (a book waited for its snapshot) counts with the rows before it.
So it does not depend on when the rows are looked at. A book that is not valid has no top; its GAP
stands among the tops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from ingestor.derived.settings import DerivedSettings
from ingestor.model.book_side import BookSide
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass, is_control
from ingestor.model.rows import LEVEL, Flag, Kind, Rows, Side

WAITING_MAX: Final = 20_000  # rows that wait for the next top
TOPS_MAX: Final = 10_000  # of one book at a time; time that stands still this long is jumped over
_KEPT: Final = int(Flag.NO_VENUE_TIME)

SettingsOf = Callable[[int], DerivedSettings]


class _Book:
    """One book. arrived_ns: the latest ts_recv of its rows. next_ns: when its next top is due."""

    __slots__ = (
        "arrived_ns",
        "asks",
        "bids",
        "flags",
        "is_cut",
        "is_valid",
        "next_ns",
        "sequence",
        "settings",
        "top",
        "ts_event",
    )

    def __init__(self, settings: DerivedSettings, ts_recv: int) -> None:
        self.bids, self.asks = BookSide(), BookSide()
        self.is_valid = self.is_cut = False
        self.arrived_ns = ts_recv
        self.ts_event = self.sequence = self.flags = 0
        self.top: Rows | None = None  # as it was last; None if the book has changed since
        self.follow(settings, ts_recv)

    def follow(self, settings: DerivedSettings, now_ns: int) -> None:
        """Take tops as other settings say, from `now_ns` on."""
        self.settings, self.top = settings, None
        self.next_ns = (now_ns // settings.top_interval_ns + 1) * settings.top_interval_ns

    def begin(self, *, is_valid: bool) -> None:
        """Forget all levels."""
        self.is_valid, self.is_cut, self.top = is_valid, False, None
        self.bids.clear()
        self.asks.clear()

    def apply(self, rows: Rows) -> None:
        """Take levels in order. rows: at least one."""
        is_bid = rows["side"] == Side.BID
        for side, keys, sizes in (
            (self.bids, rows["price"][is_bid], rows["size"][is_bid]),
            (self.asks, -rows["price"][~is_bid], rows["size"][~is_bid]),
        ):
            if len(keys):
                levels = zip(keys.tolist(), sizes.tolist(), strict=True)
                side.apply(levels, int(keys.max()))
        last = rows[-1]
        self.ts_event, self.sequence = int(last["ts_event"]), int(last["sequence"])
        self.flags = int(last["flags"]) & _KEPT
        self.is_cut |= bool((rows["flags"] & Flag.PARTIAL).any())
        self.top = None

    def image(self, number: int) -> Rows:
        """Return the best levels, best first; one RESET row where there are none.

        number: of the instrument.
        """
        if self.top is None:
            depth = self.settings.top_levels
            sides = [side.arrays(depth + 1) for side in (self.bids, self.asks)]
            counts = [min(len(keys), depth) for keys, _ in sides]
            rows = np.zeros(max(sum(counts), 1), LEVEL)
            rows["instrument"], rows["ts_event"] = number, self.ts_event
            rows["sequence"] = self.sequence
            is_cut = self.is_cut or any(len(keys) > depth for keys, _ in sides)
            rows["flags"] = self.flags | Flag.SNAPSHOT | (Flag.PARTIAL if is_cut else 0)
            rows["flags"][-1] |= Flag.LAST
            rows["kind"] = RowClass.BOOK_TOP.id if sum(counts) else Kind.RESET
            at = 0
            for side, sign, (keys, sizes), count in zip(
                (Side.BID, Side.ASK), (1, -1), sides, counts, strict=True
            ):
                rows["side"][at : at + count] = side
                rows["price"][at : at + count] = sign * keys[:count]
                rows["size"][at : at + count] = sizes[:count]
                at += count
            self.top = rows
        return self.top


class BookTops:
    """The tops of the books of one loop."""

    def __init__(self, table: InstrumentTable, settings_of: SettingsOf) -> None:
        """Create the book tops.

        Args:
            table: the instruments, may grow.
            settings_of: instrument number -> what is derived for it.
        """
        self._table = table
        self._settings_of = settings_of
        self._intervals_ns = np.zeros(0, np.int64)  # by instrument; 0 = no tops
        self._books: dict[int, _Book] = {}
        self._waiting: list[Rows] = []
        self._waiting_rows = 0
        self._now_ns = 0
        self._next_ns = _NEVER  # no top is due before
        self._out: dict[RowClass, list[Rows]] = {}

    def take(self, levels: Rows, now_ns: int) -> dict[RowClass, Rows]:
        """Take the book rows of one flush; return the tops that are published, by class.

        Args:
            levels: LEVEL rows in order of arrival, with GAP and RESET.
            now_ns: all that was received before is in them, or in those taken before.
        """
        if len(levels):
            self._keep(levels)
        self._now_ns = max(self._now_ns, now_ns)
        if self._now_ns < self._next_ns and self._waiting_rows < WAITING_MAX:
            return {}
        self._advance()
        out, self._out = self._out, {}
        return {row_class: np.concatenate(parts) for row_class, parts in out.items()}

    def skip_to(self, now_ns: int) -> None:
        """Take no tops of the time up to `now_ns`."""
        self._advance()
        for book in self._books.values():
            book.follow(book.settings, now_ns)

    def configure(self, settings_of: SettingsOf) -> None:
        """Follow other settings, as `DerivedRows.configure` says.

        A book whose tops begin has the first one after its next snapshot.
        """
        self._advance()
        self._settings_of = settings_of
        self._intervals_ns = self._intervals_ns[:0]
        self._fit()
        changed = [one for one, book in self._books.items() if settings_of(one) != book.settings]
        for number in changed:
            settings = settings_of(number)
            book = self._books[number]
            if settings.has_tops:
                book.follow(settings, self._now_ns)
            else:
                del self._books[number]

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._advance()
        self._fit()
        for old, new in numbers.items():
            book = self._books.pop(old, None)
            if book is None:
                continue
            self._books[new] = book
            book.top = None
            if (self._table.exponents[old] != self._table.exponents[new]).any():
                book.begin(is_valid=False)

    def _keep(self, levels: Rows) -> None:
        """Keep the rows of the books that are wanted until a top is due."""
        self._fit()
        intervals_ns = self._intervals_ns[levels["instrument"]]
        wanted = intervals_ns > 0
        if not wanted.all():
            levels, intervals_ns = levels[wanted], intervals_ns[wanted]
        if len(levels):
            self._waiting.append(levels)
            self._waiting_rows += len(levels)
            due_ns = (levels["ts_recv"] // intervals_ns + 1) * intervals_ns
            self._next_ns = min(self._next_ns, int(due_ns.min()))

    def _fit(self) -> None:
        known = len(self._intervals_ns)
        if known < len(self._table):
            found = [self._settings_of(number) for number in range(known, len(self._table))]
            fresh = [spec.top_interval_ns if spec.has_tops else 0 for spec in found]
            self._intervals_ns = np.concatenate([self._intervals_ns, np.array(fresh, np.int64)])

    def _advance(self) -> None:
        """Apply what waits, and take the tops that are due."""
        parts, self._waiting, self._waiting_rows = self._waiting, [], 0
        for number, rows in _by_instrument(parts):
            book = self._books.get(number)
            if book is None:
                settings = self._settings_of(number)
                book = self._books[number] = _Book(settings, int(rows["ts_recv"][0]))
            self._run(number, book, rows)
        for number, book in self._books.items():
            if book.next_ns <= self._now_ns:
                self._run(number, book, _NOTHING)
        self._next_ns = min((book.next_ns for book in self._books.values()), default=_NEVER)

    def _run(self, number: int, book: _Book, rows: Rows) -> None:
        """Apply rows of one book, and take its tops between them."""
        interval_ns, taken = book.settings.top_interval_ns, 0
        arrived_ns = np.maximum(np.maximum.accumulate(rows["ts_recv"]), book.arrived_ns)
        book.next_ns = max(book.next_ns, (self._now_ns // interval_ns - TOPS_MAX) * interval_ns)
        while book.next_ns <= self._now_ns:
            end = int(arrived_ns.searchsorted(book.next_ns))
            self._apply(book, rows[taken:end])
            taken = end
            if book.is_valid:
                image = book.image(number).copy()
                image["ts_recv"] = book.next_ns
                self._publish(book, image)
                book.next_ns += interval_ns
            else:
                until_ns = int(arrived_ns[end]) if end < len(rows) else self._now_ns
                book.next_ns = (max(until_ns, book.next_ns) // interval_ns + 1) * interval_ns
        self._apply(book, rows[taken:])
        if len(rows):
            book.arrived_ns = int(arrived_ns[-1])

    def _apply(self, book: _Book, rows: Rows) -> None:
        at = 0
        for mark in [*np.flatnonzero(is_control(rows)).tolist(), len(rows)]:
            if mark > at and book.is_valid:
                book.apply(rows[at:mark])
            if mark < len(rows):
                is_valid = bool(rows["kind"][mark] == Kind.RESET)
                book.begin(is_valid=is_valid)
                if not is_valid:
                    self._publish(book, rows[mark : mark + 1])
            at = mark + 1

    def _publish(self, book: _Book, rows: Rows) -> None:
        for row_class in book.settings.top_classes:
            own = rows
            if row_class is not RowClass.BOOK_TOP:
                own = rows.copy()
                own["kind"][~is_control(own)] = row_class.id
            self._out.setdefault(row_class, []).append(own)


_NEVER: Final = 2**63 - 1
_NOTHING: Final = np.empty(0, LEVEL)


def _by_instrument(parts: Sequence[Rows]) -> Iterator[tuple[int, Rows]]:
    """Yield each instrument and its rows, in order."""
    if not parts:
        return
    rows = np.concatenate(parts)
    numbers = rows["instrument"]
    order = numbers.argsort(kind="stable")
    rows, numbers = rows[order], numbers[order]
    edges = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
    for start, end in pairwise([0, *edges.tolist(), len(rows)]):
        yield int(numbers[start]), rows[start:end]
