"""One flush of book updates: plain columns for the books to work on, LEVEL rows to publish.

Most flushes are published as they came, so the rows of all updates are built at once with numpy.
What the books decide meanwhile is kept as differences to that: levels left out, and rows put in
between (marks, released updates, levels cut at the venue's depth).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, compress, islice
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.books.book import BestBidAsk, Book, Update
from ingestor.columns.sealed import Sealed
from ingestor.model.rows import LEVEL, QUOTE, UPDATE, Cause, Flag, Kind, Rows, Side

_LEVEL: Final = Struct("<qqQIHBBqq")  # rows.LEVEL
_QUOTE: Final = Struct("<qqQIHBBqqqq")
assert (_LEVEL.size, _QUOTE.size) == (LEVEL.itemsize, QUOTE.itemsize)

NEGATIVE: Final = 1 << 15  # flag of our own, never published: the update holds a negative size
_PUBLISHED: Final = int(Flag.SNAPSHOT | Flag.PARTIAL | Flag.NO_VENUE_TIME)
_MARK: Final = int(Flag.LAST | Flag.NO_VENUE_TIME)
_SIGNS: Final = np.array([1, -1], np.int64)  # key of a level = sign * price: bids, asks
_SIDES: Final = np.array([Side.BID, Side.ASK], np.uint8)
_COPIED: Final = (
    ("ts_event", "ts_event"),
    ("ts_recv", "ts_recv"),
    ("instrument", "instrument"),
    ("sequence", "last"),
)
_UPDATE_FIELDS: Final = UPDATE.names or ()
FEW: Final = 4  # updates in a flush up to which Python is faster than numpy
_LAST: Final = np.uint16(Flag.LAST)
# What `_read_many` and `_read_few` set.
_READ: Final = frozenset(
    {
        *("keys", "sizes", "counts", "tops", "instruments", "firsts", "lasts", "previous"),
        *("checksums", "flags", "updates", "levels"),
    }
)


class Flush:
    """The updates of one `Sealed` as lists, and the rows that become of them.

    bounds: update i has its bids at [bounds[2i], bounds[2i+1]), its asks up to bounds[2i+2].
    keys, sizes: all levels; keys as in `side`. counts, tops: how many levels each side of each
    update has, bids and asks in turn, and the greatest key (meaningless where there is none). at:
    an index into the levels; rows are put in before it.
    filtered: levels left out for good (levels that are held are not).

    updates, levels: iterators over what was not taken yet, as `_columns` yields it and as (key,
    size). taken: how many updates were. One iterator costs less than two slices for each side.
    """

    keys: list[int]
    sizes: list[int]
    counts: list[int]
    tops: list[int]
    instruments: list[int]
    firsts: list[int]
    lasts: list[int]
    previous: list[int]
    checksums: list[int]
    flags: list[int]
    updates: Iterator[tuple[int, ...]]
    levels: Iterator[tuple[int, int]]

    def __init__(self, sealed: Sealed, now_ns: int) -> None:
        self.sealed = sealed
        self.now_ns = now_ns
        self.taken = 0
        self.skipped: NDArray[np.bool_] | None = None
        self.filtered = 0
        self.added: list[int] = []  # instrument of each row that removes a level by our own choice
        self._left_out: list[tuple[int, int]] = []
        self._extra = bytearray()
        self._extra_at: list[int] = []
        self._not_last: list[int] = []
        self._quotes = bytearray()
        self._is_cut = False  # `rows` left out rows that nobody asked for

    def __getattr__(self, name: str) -> Any:
        """Read the columns when the first of them is asked for: the library needs none."""
        if name not in _READ:
            raise AttributeError(name)
        sealed = self.sealed
        if len(sealed.updates) <= FEW:
            self._read_few(sealed)
            smallest = min(self.sizes, default=0)
        else:
            self._read_many(sealed)
            smallest = int(sealed.sizes.min(initial=0))
        if smallest < 0:
            self._flag_negative()
        self.go_on_at(self.taken)
        return self.__dict__[name]

    def _read_many(self, sealed: Sealed) -> None:
        updates = sealed.updates
        counts = _counts(updates)
        keys = np.zeros(len(sealed.prices) + 1, np.int64)  # one more: there every part may begin
        np.multiply(sealed.prices, np.repeat(np.tile(_SIGNS, len(updates)), counts), out=keys[:-1])
        self.keys = keys.tolist()
        self.sizes = sealed.sizes.tolist()
        self.counts = counts.tolist()
        self.tops = np.maximum.reduceat(keys, counts.cumsum() - counts).tolist()
        self.instruments = updates["instrument"].tolist()
        self.firsts = updates["first"].tolist()
        self.lasts = updates["last"].tolist()
        self.previous = updates["previous"].tolist()
        self.checksums = updates["check_value"].tolist()
        self.flags = updates["flags"].tolist()

    def _read_few(self, sealed: Sealed) -> None:
        """As `_read_many`, without the fixed cost of numpy's calls."""
        columns = list(zip(*sealed.updates.tolist(), strict=True)) or [()] * len(_UPDATE_FIELDS)
        fields = dict(zip(_UPDATE_FIELDS, map(list, columns), strict=True))
        self.keys = sealed.prices.tolist()
        self.sizes = sealed.sizes.tolist()
        self.counts, self.tops = [], []
        start = 0
        for bids, asks in zip(fields["bids"], fields["asks"], strict=True):
            middle, end = start + bids, start + bids + asks
            self.keys[middle:end] = [-price for price in self.keys[middle:end]]
            self.counts += (bids, asks)
            self.tops.append(max(self.keys[start:middle], default=0))
            self.tops.append(max(self.keys[middle:end], default=0))
            start = end
        self.instruments = fields["instrument"]
        self.firsts = fields["first"]
        self.lasts = fields["last"]
        self.previous = fields["previous"]
        self.checksums = fields["check_value"]
        self.flags = fields["flags"]

    def _flag_negative(self) -> None:
        for index in range(len(self)):
            start, end = self.bounds[2 * index], self.bounds[2 * index + 2]
            if min(self.sizes[start:end], default=0) < 0:
                self.flags[index] |= NEGATIVE

    def __len__(self) -> int:
        return len(self.sealed.updates)

    @cached_property
    def bounds(self) -> list[int]:
        return list(accumulate(self.counts, initial=0))

    @cached_property
    def _times(self) -> tuple[list[int], list[int]]:
        updates = self.sealed.updates
        return updates["ts_event"].tolist(), updates["ts_recv"].tolist()

    def update(self, index: int) -> Update:
        """Return one update as a record that can outlive the flush."""
        start, middle, end = self.bounds[2 * index : 2 * index + 3]
        ts_events, ts_recvs = self._times
        return Update(
            ts_event=ts_events[index],
            ts_recv=ts_recvs[index],
            first=self.firsts[index],
            last=self.lasts[index],
            previous=self.previous[index],
            flags=self.flags[index],
            checksum=self.checksums[index],
            bid_keys=self.keys[start:middle],
            bid_sizes=self.sizes[start:middle],
            ask_keys=self.keys[middle:end],
            ask_sizes=self.sizes[middle:end],
            at=start,
        )

    def _columns(self) -> Iterator[tuple[int, ...]]:
        """Yield for each update: instrument, flags, first, last, previous; how many bids and asks
        it has, and the greatest key of each.
        """
        return zip(
            self.instruments,
            self.flags,
            self.firsts,
            self.lasts,
            self.previous,
            self.counts[0::2],
            self.counts[1::2],
            self.tops[0::2],
            self.tops[1::2],
            strict=True,
        )

    def start(self, index: int) -> int:
        """Return the row at which update `index` begins; `len(self)` gives the end of all."""
        return self.bounds[2 * index]

    def leave_out(self, update: Update) -> None:
        """Don't publish the levels of this update here. No effect on one that was held before."""
        if update.at >= 0 and update.levels:
            self._left_out.append((update.at, update.at + update.levels))

    def discard(self, update: Update) -> None:
        """Leave an update out for good."""
        self.leave_out(update)
        self.filtered += update.levels

    def discard_once(self, update: Update) -> None:
        """Leave an update out, unless it is already."""
        if (update.at, update.at + update.levels) not in self._left_out:
            self.discard(update)

    def go_on_at(self, index: int) -> None:
        """Let `updates` and `levels` go on at an update, wherever they were, without those that are
        skipped.
        """
        self.taken = index
        # (`keys` has one more than `sizes`.)
        start = self.start(index)
        levels: Iterator[tuple[int, int]] = islice(
            zip(self.keys, self.sizes, strict=False), start, None
        )
        updates: Iterator[tuple[int, ...]] = islice(self._columns(), index, None)
        if self.skipped is not None:
            kept = ~self.skipped
            lengths = np.add.reduceat(self.counts, np.arange(0, len(self.counts), 2))
            levels = compress(levels, kept.repeat(lengths)[start:].tolist())
            updates = compress(updates, kept[index:].tolist())
        self.updates, self.levels = updates, levels

    def has_many(self, end: int) -> bool:
        """Return whether many updates are to be taken before `end`."""
        return end - self.taken > FEW

    def skip(self, skipped: NDArray[np.bool_]) -> None:
        """Leave updates out of `updates` and `levels`: they are in their books already."""
        self.skipped = skipped if self.skipped is None else self.skipped | skipped

    def left(self, end: int) -> Sequence[int]:
        """Return the updates before `end` that are neither taken nor skipped."""
        if self.skipped is None:
            return range(self.taken, end)
        indices: list[int] = (np.flatnonzero(~self.skipped[self.taken : end]) + self.taken).tolist()
        return indices

    def first_level(self, index: int) -> int:
        """Return `start` of an update without reading the columns."""
        updates = self.sealed.updates[:index]
        return int(updates["bids"].sum()) + int(updates["asks"].sum())

    def gap(
        self, at: int, instrument: int, ts_recv: int, cause: Cause, first: int = 0, last: int = 0
    ) -> None:
        """Put in a GAP mark.

        Args:
            at: Index of the update that it stands before.
            instrument: Number of the instrument.
            ts_recv: Time of receipt in ns.
            cause: Reason of the hole.
            first: First missing number, 0 = not known.
            last: Last missing number, 0 = not known.
        """
        self._put(at, ts_recv, ts_recv, 0, instrument, _MARK, cause, Kind.GAP, first, last)

    def reset(self, at: int, instrument: int, update: Update) -> None:
        """Put in a RESET mark. Where its snapshot has no levels, the mark is flagged SNAPSHOT.

        Args:
            at: Index of the update that it stands before.
            instrument: Number of the instrument.
            update: The snapshot.
        """
        flags = _MARK if update.levels else _MARK | Flag.SNAPSHOT
        self._put(
            at, update.ts_recv, update.ts_recv, update.last, instrument, flags, 0, Kind.RESET, 0, 0
        )

    def publish(self, at: int, instrument: int, update: Update) -> None:
        """Put in the levels of an update that was held.

        Args:
            at: Index of the update that they stand before.
            instrument: Number of the instrument.
            update: The update that was held.
        """
        waiting = update.levels
        flags = update.flags & _PUBLISHED
        for side, sign, keys, sizes in (
            (Side.BID, 1, update.bid_keys, update.bid_sizes),
            (Side.ASK, -1, update.ask_keys, update.ask_sizes),
        ):
            for key, size in zip(keys, sizes, strict=True):
                waiting -= 1
                self._put(
                    at,
                    update.ts_event,
                    update.ts_recv,
                    update.last,
                    instrument,
                    flags if waiting else flags | Flag.LAST,
                    side,
                    Kind.LEVEL,
                    sign * key,
                    size,
                )

    def remove(
        self,
        at: int,
        instrument: int,
        update: Update,
        bid_keys: Sequence[int],
        ask_keys: Sequence[int],
    ) -> None:
        """Put in rows that remove levels which fell out of the book, as the end of an event.

        Args:
            at: Index of the update that they stand before.
            instrument: Number of the instrument.
            update: The event.
            bid_keys: Sorted keys of the bids that fell out.
            ask_keys: Sorted keys of the asks that fell out.
        """
        if update.at >= 0:
            self._not_last.append(at - 1)
        else:
            self._clear_last()
        flags = update.flags & _PUBLISHED
        prices = [(Side.BID, key) for key in bid_keys] + [(Side.ASK, -key) for key in ask_keys]
        for side, price in prices:
            self._put(
                at,
                update.ts_event,
                update.ts_recv,
                update.last,
                instrument,
                flags,
                side,
                Kind.LEVEL,
                price,
                0,
            )
            self.added.append(instrument)
        self._extra[-_LEVEL.size :] = self._with_flags(flags | Flag.LAST)

    def quote(self, instrument: int, update: Update, top: BestBidAsk) -> None:
        """Put out a quote taken from a book.

        Args:
            instrument: Number of the instrument.
            update: The update that changed the top of the book.
            top: Best bid and ask after it.
        """
        flags = Flag.LAST | update.flags & Flag.NO_VENUE_TIME
        self._quotes += _QUOTE.pack(
            update.ts_event,
            update.ts_recv,
            update.last,
            instrument,
            flags,
            0,
            Kind.QUOTE,
            *top,
        )

    def quote_gap(
        self, instrument: int, ts_recv: int, cause: Cause, first: int = 0, last: int = 0
    ) -> None:
        """Put a GAP mark among the quotes.

        Args:
            instrument: Number of the instrument.
            ts_recv: Time of receipt in ns.
            cause: Reason of the hole.
            first: First missing number, 0 = not known.
            last: Last missing number, 0 = not known.
        """
        self._quotes += _QUOTE.pack(
            *(ts_recv, ts_recv, 0, instrument, _MARK, cause, Kind.GAP, first, last, 0, 0)
        )

    def quotes(self) -> Rows:
        """Return the QUOTE rows that were put out, with their GAP marks."""
        return np.frombuffer(self._quotes, QUOTE)

    @property
    def is_whole(self) -> bool:
        """Return True if all updates are published as they came, and nothing else."""
        return not (self._left_out or self._extra_at or self._is_cut)

    def rows(self, unwanted: Collection[int] = ()) -> Rows:
        """Return the LEVEL rows to publish. unwanted: instruments of which nobody asked for any."""
        rows = self._rows()
        if not unwanted:
            return rows
        is_cut = np.isin(rows["instrument"], list(unwanted))
        self._is_cut = bool(is_cut.any())
        self.filtered += int((rows["kind"][is_cut] == Kind.LEVEL).sum()) - len(self.added)
        self.added = [instrument for instrument in self.added if instrument not in unwanted]
        self.filtered += len(self.added)
        return rows[~is_cut]

    def _rows(self) -> Rows:
        rows = (_few_rows if len(self) <= FEW else _many_rows)(self.sealed)
        if self._not_last:
            rows["flags"][self._not_last] &= ~_LAST
        if self.is_whole:
            return rows
        keep = np.ones(len(rows), np.bool_)
        for start, end in self._left_out:
            keep[start:end] = False
        kept_before = np.concatenate(([0], np.cumsum(keep)))
        extra = np.frombuffer(self._extra, LEVEL)
        return np.insert(rows[keep], kept_before[self._extra_at], extra)

    def _put(
        self,
        at: int,
        ts_event: int,
        ts_recv: int,
        sequence: int,
        instrument: int,
        flags: int,
        side: int,
        kind: int,
        price: int,
        size: int,
    ) -> None:
        self._extra_at.append(at)
        self._extra += _LEVEL.pack(
            ts_event, ts_recv, sequence, instrument, flags, side, kind, price, size
        )

    def _clear_last(self) -> None:
        """The newest row put in is no longer the last of its event."""
        flags = _LEVEL.unpack_from(self._extra, len(self._extra) - _LEVEL.size)[4]
        self._extra[-_LEVEL.size :] = self._with_flags(flags & ~int(Flag.LAST))

    def _with_flags(self, flags: int) -> bytes:
        row = list(_LEVEL.unpack_from(self._extra, len(self._extra) - _LEVEL.size))
        row[4] = flags
        return _LEVEL.pack(*row)


def image(book: Book, depth: int, newest: np.void) -> Rows:
    """Return a book as one snapshot.

    Args:
        book: A valid book.
        depth: Most levels a side.
        newest: The book's newest UPDATE.

    Returns:
        LEVEL rows, best levels first; one RESET for an empty book.
    """
    bids, asks = book.bids.arrays(depth), book.asks.arrays(depth)
    is_deeper = book.partial or book.trimmed or max(len(book.bids), len(book.asks)) > depth
    levels = len(bids[0]) + len(asks[0])
    rows = np.zeros(max(levels, 1), LEVEL)
    rows["ts_event"], rows["ts_recv"] = newest["ts_event"], newest["ts_recv"]
    rows["sequence"], rows["instrument"] = book.last, book.instrument
    rows["flags"] = Flag.SNAPSHOT | (Flag.PARTIAL if is_deeper else 0)
    rows["flags"][-1] |= _LAST
    rows["kind"] = Kind.LEVEL if levels else Kind.RESET
    for side, sign, (keys, sizes), start in (
        (Side.BID, 1, bids, 0),
        (Side.ASK, -1, asks, len(bids[0])),
    ):
        part = rows[start : start + len(keys)] if levels else rows[:0]
        part["side"], part["price"], part["size"] = side, sign * keys, sizes
    return rows


def _counts(updates: Rows) -> NDArray[np.int64]:
    """Return how many bids and asks each update has, in turn: int64[2n]."""
    counts = np.empty(2 * len(updates), np.int64)
    counts[0::2], counts[1::2] = updates["bids"], updates["asks"]
    return counts


def _many_rows(sealed: Sealed) -> Rows:
    """Return all levels of the updates as rows."""
    updates = sealed.updates
    counts = _counts(updates)
    heads = np.zeros((len(updates), 2), LEVEL)
    for name, source in _COPIED:
        heads[name] = updates[source][:, None]
    heads["flags"] = (updates["flags"] & _PUBLISHED)[:, None]
    heads["side"] = _SIDES
    heads["kind"] = Kind.LEVEL
    rows = np.repeat(heads.ravel(), counts)
    rows["price"], rows["size"] = sealed.prices, sealed.sizes
    levels = counts[0::2] + counts[1::2]
    rows["flags"][levels.cumsum()[levels > 0] - 1] |= _LAST
    return rows


def _few_rows(sealed: Sealed) -> Rows:
    """As `_many_rows`, without the fixed cost of numpy's calls: rows are repeated as bytes."""
    parts: list[bytes] = []
    for update in sealed.updates.tolist():
        ts_event, ts_recv, _, last, _, instrument, bids, asks, _, _, flags, _ = update
        flags &= _PUBLISHED
        head = (ts_event, ts_recv, last, instrument)
        bid = _LEVEL.pack(*head, flags, Side.BID, Kind.LEVEL, 0, 0)
        ask = _LEVEL.pack(*head, flags, Side.ASK, Kind.LEVEL, 0, 0)
        if bids + asks:
            side = Side.ASK if asks else Side.BID
            parts += (bid * (bids - (not asks)), ask * (asks - 1))
            parts.append(_LEVEL.pack(*head, flags | Flag.LAST, side, Kind.LEVEL, 0, 0))
    rows = np.frombuffer(bytearray().join(parts), LEVEL)
    rows["price"], rows["size"] = sealed.prices, sealed.sizes
    return rows
