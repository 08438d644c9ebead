"""Counters and lag histograms, filled once for many batches and read at scrape time.

A feed is (venue, market, channel). Everything here is an array indexed by feed number, so that
batches of any size cost a handful of numpy calls. Those would cost a small batch more than its
rows do: batches wait, a second at most, to be counted together, and whoever reads has them counted
first. Nothing here knows prometheus-client.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import UPDATE, Flag, Rows
from ingestor.telemetry.histogram import EDGES_NS, EXPORTED, Histogram, percentile_ns

__all__ = [
    "EDGES_NS",
    "EXPORTED",
    "FeedKey",
    "Feeds",
    "Histogram",
    "LastSeen",
    "Metrics",
    "Skew",
    "Stage",
    "percentile_ns",
]

_NO_LAG: Final = int(Flag.NO_VENUE_TIME | Flag.SNAPSHOT | Flag.BACKFILL)
_LAST: Final = int(Flag.LAST)
_SKEW_SLOT_NS: Final = 10_000_000_000
_SKEW_SLOTS: Final = 6
_WAITING_ROWS_MAX: Final = 12_288  # a row may wait for being published, sealed and acked
_WAITING_NS_MAX: Final = 1_000_000_000


class Stage(IntEnum):
    """Name a stretch of the way from the venue's clock to the broker's acknowledgement."""

    VENUE = 0  # venue's event time -> our socket read, corrected for the clocks' difference
    SEAL = 1  # socket read -> sealed and handed to the sink
    PUBLISH = 2  # sealed and handed to the sink -> acknowledged by the broker
    TOTAL = 3  # socket read -> acknowledged


_VENUE, _SEAL, _PUBLISH, _TOTAL = Stage


@dataclass(frozen=True, slots=True)
class FeedKey:
    venue: str
    market: str
    channel: str


class Feeds:
    """Numbers of feeds, and of each instrument's feeds: a market has one for each row class."""

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self._markets: dict[tuple[str, str], int] = {}
        nothing = np.zeros(0, np.intp)
        self._feed_of = dict.fromkeys(ROW_CLASSES, nothing)  # by instrument
        self._all: list[FeedKey] = []

    @property
    def all(self) -> list[FeedKey]:
        """Those of every instrument that there is, whether it has spoken or not."""
        if len(self._feed_of[RowClass.TRADE]) < len(self._table):
            self._learn()
        return self._all

    def market(self, venue: str, market: str) -> int:
        number = self._markets.get((venue, market))
        if number is None:
            number = self._markets[venue, market] = len(self._markets)
            self._all += [FeedKey(venue, market, row_class.channel) for row_class in ROW_CLASSES]
        return number

    def of_rows(self, row_class: RowClass, instruments: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return the feed number of each row, from its instrument number."""
        feed_of = self._feed_of[row_class]
        if len(feed_of) < len(self._table):
            feed_of = self._learn()[row_class]
        feeds: NDArray[np.intp] = feed_of[instruments]
        return feeds

    def _learn(self) -> dict[RowClass, NDArray[np.intp]]:
        more = range(len(self._feed_of[RowClass.TRADE]), len(self._table))
        markets = [
            self.market(self._table[number].venue, self._table[number].market) for number in more
        ]
        first = np.array(markets, np.intp) * len(self._feed_of)
        for place, (row_class, known) in enumerate(self._feed_of.items()):
            self._feed_of[row_class] = np.concatenate([known, first + place])
        return self._feed_of


class Skew:
    """The least (ts_recv - ts_event) of the last minute, per feed: clocks' difference + wire.

    Receive clocks differ from venue clocks by a constant of seconds, either sign, so a naive lag
    can be negative. Lag is reported above this minimum, and the minimum as skew; nothing is
    clamped.
    """

    def __init__(self) -> None:
        self._slots: deque[NDArray[np.int64]] = deque(maxlen=_SKEW_SLOTS)
        self._slot_start_ns = 0
        self.minimum_ns = np.zeros(0, np.int64)

    def update(
        self, feeds: NDArray[np.intp], raw_ns: NDArray[np.int64], count: int, now_ns: int
    ) -> None:
        """Take the raw lags of some rows.

        Args:
            feeds: intp[n], the feed number of each.
            raw_ns: int64[n], ts_recv minus ts_event.
            count: Number of feeds known.
            now_ns: Monotonic time in ns.
        """
        if now_ns - self._slot_start_ns >= _SKEW_SLOT_NS or not self._slots:
            self._slots.append(np.full(count, np.iinfo(np.int64).max))
            self._slot_start_ns = now_ns
        if len(self._slots[0]) < count:
            for index, slot in enumerate(self._slots):
                missing = np.full(count - len(slot), np.iinfo(np.int64).max)
                self._slots[index] = np.concatenate([slot, missing])
        np.minimum.at(self._slots[-1], feeds, raw_ns)
        self.minimum_ns = np.minimum.reduce(list(self._slots))

    def known(self, feed: int) -> int | None:
        """Return the skew of one feed in ns, None when nothing was seen in the window."""
        if feed >= len(self.minimum_ns) or self.minimum_ns[feed] == np.iinfo(np.int64).max:
            return None
        return int(self.minimum_ns[feed])


class LastSeen:
    """When each stream last spoke: (row class, instrument) -> rows, time, lag."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        """settle: called before anything is read."""
        self._settle = settle
        self._rows = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._ts_recv = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._ts_event = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._unpublished = {row_class: np.zeros(0, np.int64) for row_class in ROW_CLASSES}
        self._gaps: Counter[tuple[RowClass, int]] = Counter()

    def count_gaps(self, row_class: RowClass, numbers: NDArray[np.uint32]) -> None:
        """Count GAP marks, which are rare. numbers: uint32[n], their instruments."""
        self._gaps.update((row_class, number) for number in numbers.tolist())

    def gaps(self, row_class: RowClass, instrument: int) -> int:
        """Return how many GAP marks a stream has had."""
        self._settle()
        return self._gaps[row_class, instrument]

    def update(
        self,
        row_class: RowClass,
        numbers: NDArray[np.uint32],
        ts_recv: NDArray[np.int64],
        ts_event: NDArray[np.int64],
        instruments: int,
    ) -> None:
        """Take the ticks of a flush.

        Args:
            row_class: Their class.
            numbers: uint32[n], their instruments, in order of arrival.
            ts_recv: int64[n] in ns.
            ts_event: int64[n] in ns.
            instruments: Number of instruments known.
        """
        missing = instruments - len(self._rows[row_class])
        if missing > 0:
            for arrays in (self._rows, self._ts_recv, self._ts_event):
                arrays[row_class] = np.concatenate([arrays[row_class], np.zeros(missing, np.int64)])
        self._rows[row_class] += np.bincount(numbers, minlength=len(self._rows[row_class]))
        self._ts_recv[row_class][numbers] = ts_recv  # the last of equal indices stays
        self._ts_event[row_class][numbers] = ts_event

    def note_arrivals(self, row_class: RowClass, numbers: NDArray[np.uint32]) -> None:
        """Count what arrived and was not published: a stream that is refused or held speaks.

        numbers: instruments, one for each event.
        """
        size = max(len(self._unpublished[row_class]), int(numbers.max(initial=0)) + 1)
        counts = np.bincount(numbers, minlength=size)
        counts[: len(self._unpublished[row_class])] += self._unpublished[row_class]
        self._unpublished[row_class] = counts

    def unpublished(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return by instrument how many events arrived that were not published."""
        return self._unpublished[row_class]

    def times(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return ts_recv of each instrument's last row, 0 = none; a live array, only to be read."""
        self._settle()
        return self._ts_recv[row_class]

    def of(self, row_class: RowClass, instrument: int) -> tuple[int, int, int]:
        """Return (rows, ts_recv of the last one, its ts_recv - ts_event); zeros when none came."""
        self._settle()
        if instrument >= len(self._rows[row_class]):
            return 0, 0, 0
        ts_recv = int(self._ts_recv[row_class][instrument])
        lag_ns = ts_recv - int(self._ts_event[row_class][instrument])
        return int(self._rows[row_class][instrument]), ts_recv, lag_ns

    def rows(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return how many rows of each instrument came; a live array, only to be read."""
        self._settle()
        return self._rows[row_class]


_Sealed = tuple[Rows, int]  # and when, ns
_Acked = tuple[Rows, int, int]  # and when, and since when they were on their way, ns


class Metrics:
    """Count the rows of one loop. Every array is indexed by feed number."""

    COUNTERS: Final = (
        "decoded",  # rows that the decoder appended: trades, quotes, price levels
        "duplicate",  # trades resent by the venue, dropped
        "published",  # rows handed to the sinks that stem from decoded rows
        "marks",  # rows that we added: GAP, RESET, quotes taken from books
        "gaps",  # of these, GAP marks
        "acked",
        "conflated",
        "shed",
        "dead_lettered",
        "fenced",  # dropped: another life has taken over
        "declared",  # GAP marks that the sink put in the place of what it shed
    )

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self._feeds = Feeds(table)
        self._skew = Skew()
        self._lag = {stage: Histogram() for stage in Stage}
        self._last_recv_ns = np.zeros(0, np.int64)
        self._counters = {name: np.zeros(0, np.int64) for name in self.COUNTERS}
        self.last_seen = LastSeen(self.settle)
        # What waits to be counted.
        self._rows = 0
        self._settled_ns = 0
        self._counted: dict[tuple[tuple[str, ...], RowClass, int], list[NDArray[np.uint32]]] = {}
        self._sealed: dict[RowClass, list[_Sealed]] = {}  # of one dtype each
        self._acked: dict[RowClass, list[_Acked]] = {}

    @property
    def feeds(self) -> Feeds:
        self.settle()
        return self._feeds

    @property
    def skew(self) -> Skew:
        self.settle()
        return self._skew

    @property
    def lag(self) -> dict[Stage, Histogram]:
        """By stage, as of now: to be asked for anew for every reading."""
        self.settle()
        return self._lag

    @property
    def last_recv_ns(self) -> NDArray[np.int64]:
        self.settle()
        return self._last_recv_ns

    def counter(self, name: str) -> NDArray[np.int64]:
        """Return one counter by feed; grown to all feeds known. Raises KeyError if unknown."""
        self.settle()
        self._fit()
        return self._counters[name]

    def total(self, name: str) -> int:
        self.settle()
        return int(self._counters[name].sum())

    def settle(self) -> None:
        """Count what waits."""
        if not self._rows:
            return
        self._rows = 0
        counted, self._counted = self._counted, {}
        sealed, self._sealed = self._sealed, {}
        acked, self._acked = self._acked, {}
        for (names, row_class, sign), columns in counted.items():
            self._count(names, row_class, np.concatenate(columns), sign)
        for row_class, batches in sealed.items():
            self._count_sealed(row_class, batches)
        for row_class, answers in acked.items():
            self._count_acked(row_class, answers)

    def _wait(self, rows: int, now_ns: int) -> None:
        self._rows += rows
        if self._rows >= _WAITING_ROWS_MAX or now_ns - self._settled_ns >= _WAITING_NS_MAX:
            self._settled_ns = now_ns
            self.settle()

    def _fit(self) -> int:
        count = len(self._feeds.all)
        if len(self._last_recv_ns) < count:
            missing = np.zeros(count - len(self._last_recv_ns), np.int64)
            self._last_recv_ns = np.concatenate([self._last_recv_ns, missing])
            for name, values in self._counters.items():
                self._counters[name] = np.concatenate([values, missing])
            for histogram in self._lag.values():
                histogram.grow(count)
        return count

    def count_rows(
        self,
        names: str | tuple[str, ...],
        row_class: RowClass,
        instruments: NDArray[np.uint32],
        sign: int = 1,
        rows_each: NDArray[np.int64] | None = None,
    ) -> None:
        """Add one to some counters for each row.

        Args:
            names: The counters.
            row_class: Class of the rows.
            instruments: uint32[n], the rows' instrument numbers.
            sign: -1 takes back rows that were counted as something else before.
            rows_each: int64[n], how many rows each number stands for; one by default.
        """
        if not len(instruments):
            return
        names = (names,) if isinstance(names, str) else names
        if rows_each is not None:
            self._count(names, row_class, instruments, sign, rows_each)
            return
        self._counted.setdefault((names, row_class, sign), []).append(instruments)
        self._wait(len(instruments), self._settled_ns)

    def _count(
        self,
        names: Iterable[str],
        row_class: RowClass,
        instruments: NDArray[np.uint32],
        sign: int,
        rows_each: NDArray[np.int64] | None = None,
    ) -> None:
        feeds = self._feeds.of_rows(row_class, instruments)
        counts = np.bincount(feeds, rows_each, minlength=self._fit())
        counts = sign * counts.astype(np.int64)  # sums of rows are exact in a double
        if "gaps" in names:
            self.last_seen.count_gaps(row_class, instruments)
        for name in names:
            self._counters[name] += counts

    def count(self, name: str, row_class: RowClass, instrument: int, rows: int = 1) -> None:
        """Add rows to a counter for one instrument.

        Args:
            name: The counter.
            row_class: Class of the rows.
            instrument: Number of the instrument.
            rows: How many.
        """
        feed = int(self._feeds.of_rows(row_class, np.array([instrument], np.uint32))[0])
        self._fit()
        self._counters[name][feed] += rows

    def sealed(self, row_class: RowClass, rows: Rows, now_ns: int) -> None:
        """Fill in the lag of the first two stages, once an event, for rows that a flush sealed.

        Args:
            row_class: Class of the rows.
            rows: They must not change any more. For book levels, the events: an array of UPDATE.
            now_ns: Time in ns since the epoch.
        """
        if not len(rows):
            return
        waiting = self._sealed.get(row_class)
        if waiting and waiting[0][0].dtype != rows.dtype:
            self.settle()  # in order of arrival
        self._sealed.setdefault(row_class, []).append((rows, now_ns))
        self._wait(len(rows), now_ns)

    def _count_sealed(self, row_class: RowClass, batches: list[_Sealed]) -> None:
        parts = [rows for rows, _ in batches]
        flags = _column(parts, "flags")
        if parts[0].dtype == UPDATE:
            is_tick = _column(parts, "bids") + _column(parts, "asks") > 0
        else:
            is_tick = _column(parts, "kind") == row_class.id
            if row_class.has_levels:
                is_tick &= (flags & _LAST) != 0
        fields = (_column(parts, name) for name in ("instrument", "ts_recv", "ts_event"))
        sealed_ns = np.repeat([now_ns for _, now_ns in batches], list(map(len, parts)))
        instruments, ts_recv, ts_event, sealed_ns, flags = _chosen(
            is_tick, *fields, sealed_ns, flags
        )
        if not len(instruments):
            return
        feeds = self._feeds.of_rows(row_class, instruments)
        count = self._fit()
        self._lag[_SEAL].add(feeds, sealed_ns - ts_recv)
        self._last_recv_ns[feeds] = ts_recv  # in order of arrival: the last one stays
        self.last_seen.update(row_class, instruments, ts_recv, ts_event, len(self._table))
        feeds, raw = _chosen((flags & _NO_LAG) == 0, feeds, ts_recv - ts_event)
        if len(raw):
            self._skew.update(feeds, raw, count, batches[-1][1])
            self._lag[_VENUE].add(feeds, raw - self._skew.minimum_ns[feeds])

    # What a sink tells (ingestor.sinks.kafka.queue.SinkCounts).

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None:
        """Fill in the lag of rows that the broker acknowledged, once an event.

        Args:
            row_class: Class of the rows.
            rows: The rows.
            now_ns: Time in ns since the epoch.
            since_ns: Time at which the first of them was handed to the sink. PUBLISH takes all of
                them for as old, so it is never too small.
        """
        self._acked.setdefault(row_class, []).append((rows, now_ns, since_ns))
        self._wait(len(rows), now_ns)

    def _count_acked(self, row_class: RowClass, answers: list[_Acked]) -> None:
        parts = [rows for rows, _, _ in answers]
        feeds = self._feeds.of_rows(row_class, _column(parts, "instrument"))
        counts = np.bincount(feeds, minlength=self._fit())
        self._counters["acked"] += counts
        if row_class.has_levels:
            ends = [(rows["flags"] & _LAST) != 0 for rows in parts]
            feeds = feeds[np.concatenate(ends)]
            parts = [rows[is_end] for rows, is_end in zip(parts, ends, strict=True)]
        lengths = list(map(len, parts))
        acked_ns = np.array([now_ns for _, now_ns, _ in answers]).repeat(lengths)
        each_ns = np.array([now_ns - since_ns for _, now_ns, since_ns in answers])
        published_ns, bins = each_ns.repeat(lengths), EDGES_NS.searchsorted(each_ns).repeat(lengths)
        self._lag[_PUBLISH].add(feeds, published_ns, bins)
        self._lag[_TOTAL].add(feeds, acked_ns - _column(parts, "ts_recv"))

    def conflated(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("conflated", row_class, rows["instrument"])

    def shed(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("shed", row_class, rows["instrument"])

    def dead_lettered(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("dead_lettered", row_class, rows["instrument"])

    def fenced(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("fenced", row_class, rows["instrument"])

    def declared(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("declared", row_class, rows["instrument"])

    @property
    def unsettled(self) -> int:
        """Rows handed to the sink, or declared by it, whose end it has not told."""
        into = self.total("published") + self.total("marks") + self.total("declared")
        out = ("acked", "conflated", "shed", "dead_lettered", "fenced")
        return into - sum(self.total(name) for name in out)


def _column(parts: list[Rows], name: str) -> NDArray[Any]:
    return np.concatenate([rows[name] for rows in parts])


def _chosen(mask: NDArray[np.bool_], *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the columns where the mask is set."""
    return columns if mask.all() else tuple(column[mask] for column in columns)
