"""Counters and lag histograms, filled once per batch and read at scrape time.

A feed is (venue, market, channel). Everything here is an array indexed by feed number, so that a
batch of any size costs a handful of numpy calls. Nothing here knows prometheus-client.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.instruments import InstrumentTable
from ingestor.rows import CHANNEL_OF, Flag, Kind, RowClass, Rows

# Upper edges: 100 us x 2^(k/4). Every fourth is exported; with the others between, a percentile is
# exact to 19 %.
_STEPS: Final = np.arange(-16, 61)
EDGES_NS: Final[NDArray[np.int64]] = np.rint(100_000 * 2.0 ** (_STEPS / 4)).astype(np.int64)
EXPORTED: Final[NDArray[np.intp]] = np.flatnonzero(_STEPS % 4 == 0)
_BINS: Final = len(EDGES_NS) + 1
_CLASSES: Final = len(RowClass)
_NO_LAG: Final = int(Flag.NO_VENUE_TIME | Flag.SNAPSHOT)
_SKEW_SLOT_NS: Final = 10_000_000_000
_SKEW_SLOTS: Final = 6


class Stage(IntEnum):
    """Where time goes between the venue's clock and the broker's ack."""

    VENUE = 0  # venue's event time -> our socket read, corrected for the clocks' difference
    SEAL = 1  # socket read -> sealed and handed to the sink
    PUBLISH = 2  # sealed and handed to the sink -> acknowledged by the broker
    TOTAL = 3  # socket read -> acknowledged


class Histogram:
    """Counts by exponential bins, one row per feed. Values are ns."""

    def __init__(self) -> None:
        self.counts = np.zeros((0, _BINS), np.int64)
        self.sums_ns = np.zeros(0, np.float64)

    def grow(self, feeds: int) -> None:
        missing = feeds - len(self.counts)
        if missing > 0:
            self.counts = np.vstack([self.counts, np.zeros((missing, _BINS), np.int64)])
            self.sums_ns = np.concatenate([self.sums_ns, np.zeros(missing)])

    def add(self, feeds: NDArray[np.intp], values_ns: NDArray[np.int64]) -> None:
        """feeds: feed number of each value."""
        if not len(values_ns):
            return
        cells = feeds * _BINS + np.searchsorted(EDGES_NS, values_ns)
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)
        self.sums_ns += np.bincount(feeds, values_ns, minlength=len(self.sums_ns))

    def add_equal(self, feeds: NDArray[np.int64], value_ns: int) -> None:
        """Add one value many times. feeds: how often, by feed number."""
        self.counts[:, int(np.searchsorted(EDGES_NS, value_ns))] += feeds
        self.sums_ns += feeds * float(value_ns)

    def add_one(self, feed: int, value_ns: int, weight: int = 1) -> None:
        self.counts[feed, int(np.searchsorted(EDGES_NS, value_ns))] += weight
        self.sums_ns[feed] += value_ns * weight

    def percentile_ns(self, fraction: float, feed: int | None = None) -> float:
        """Return the upper edge of the bin that holds the quantile; NaN when empty.

        feed: one feed's, or all together.
        """
        counts = self.counts.sum(axis=0) if feed is None else self.counts[feed]
        return percentile_ns(counts, fraction)


def percentile_ns(counts: NDArray[np.int64], fraction: float) -> float:
    """Return the quantile of one histogram row, linear inside its bin; NaN when empty."""
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    cumulative = np.cumsum(counts)
    bin_index = int(np.searchsorted(cumulative, fraction * total))
    bin_index = min(bin_index, len(counts) - 1)
    if bin_index >= len(EDGES_NS):
        return float(EDGES_NS[-1])
    low = float(EDGES_NS[bin_index - 1]) if bin_index else 0.0
    before = float(cumulative[bin_index - 1]) if bin_index else 0.0
    inside = (fraction * total - before) / max(float(counts[bin_index]), 1.0)
    return low + (float(EDGES_NS[bin_index]) - low) * min(max(inside, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Feed:
    venue: str
    market: str
    channel: str


class Feeds:
    """Numbers of feeds, and of each instrument's feeds: feed = 3 x market number + class - 1."""

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self._markets: dict[tuple[str, str], int] = {}
        self._feed_of = np.zeros((_CLASSES, 0), np.intp)  # by class and instrument
        self.all: list[Feed] = []

    def market(self, venue: str, market: str) -> int:
        number = self._markets.get((venue, market))
        if number is None:
            number = self._markets[venue, market] = len(self._markets)
            self.all += [Feed(venue, market, CHANNEL_OF[one]) for one in RowClass]
        return number

    def of_rows(self, row_class: RowClass, instruments: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return the feed number of each row, from its instrument number."""
        feed_of = self._feed_of
        if feed_of.shape[1] < len(self._table):
            feed_of = self._learn()
        feeds: NDArray[np.intp] = feed_of[row_class - 1][instruments]
        return feeds

    def _learn(self) -> NDArray[np.intp]:
        more = range(self._feed_of.shape[1], len(self._table))
        new = [self.market(self._table[one].venue, self._table[one].market) for one in more]
        feeds = np.array(new, np.intp) * _CLASSES + np.arange(_CLASSES)[:, None]
        self._feed_of = np.concatenate([self._feed_of, feeds], axis=1)
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
        """count: number of feeds known."""
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

    def __init__(self) -> None:
        self._rows = {one: np.zeros(0, np.int64) for one in RowClass}
        self._ts_recv = {one: np.zeros(0, np.int64) for one in RowClass}
        self._ts_event = {one: np.zeros(0, np.int64) for one in RowClass}

    def update(self, row_class: RowClass, rows: Rows, instruments: int) -> None:
        """rows: ticks in order of arrival. instruments: how many there are."""
        missing = instruments - len(self._rows[row_class])
        if missing > 0:
            for arrays in (self._rows, self._ts_recv, self._ts_event):
                arrays[row_class] = np.concatenate([arrays[row_class], np.zeros(missing, np.int64)])
        numbers = rows["instrument"]
        self._rows[row_class] += np.bincount(numbers, minlength=len(self._rows[row_class]))
        self._ts_recv[row_class][numbers] = rows["ts_recv"]  # the last of equal indices stays
        self._ts_event[row_class][numbers] = rows["ts_event"]

    def times(self, row_class: RowClass) -> NDArray[np.int64]:
        """Return ts_recv of each instrument's last row, 0 = none; a live array, only to be read."""
        return self._ts_recv[row_class]

    def of(self, row_class: RowClass, instrument: int) -> tuple[int, int, int]:
        """Return (rows, ts_recv of the last one, its ts_recv - ts_event); zeros when none came."""
        if instrument >= len(self._rows[row_class]):
            return 0, 0, 0
        ts_recv = int(self._ts_recv[row_class][instrument])
        lag_ns = ts_recv - int(self._ts_event[row_class][instrument])
        return int(self._rows[row_class][instrument]), ts_recv, lag_ns


class Metrics:
    """What one loop counts about its rows. Every array is indexed by feed number."""

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
        "declared",  # GAP marks that the sink put in the place of what it shed
    )

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self.feeds = Feeds(table)
        self.skew = Skew()
        self.last_seen = LastSeen()
        self.lag = {stage: Histogram() for stage in Stage}
        self._counters = {name: np.zeros(0, np.int64) for name in self.COUNTERS}
        self.last_recv_ns = np.zeros(0, np.int64)

    def _fit(self) -> int:
        count = len(self.feeds.all)
        if len(self.last_recv_ns) < count:
            missing = np.zeros(count - len(self.last_recv_ns), np.int64)
            self.last_recv_ns = np.concatenate([self.last_recv_ns, missing])
            for name, values in self._counters.items():
                self._counters[name] = np.concatenate([values, missing])
            for histogram in self.lag.values():
                histogram.grow(count)
        return count

    def counter(self, name: str) -> NDArray[np.int64]:
        """Return one counter by feed; grown to all feeds known. Raises KeyError if unknown."""
        self._fit()
        return self._counters[name]

    def total(self, name: str) -> int:
        return int(self._counters[name].sum())

    def count_rows(
        self,
        names: str | tuple[str, ...],
        row_class: RowClass,
        instruments: NDArray[np.uint32],
        sign: int = 1,
        rows_each: NDArray[np.int64] | None = None,
    ) -> None:
        """Add one to some counters for each row, given the rows' instrument numbers.

        sign: -1 takes rows back that were counted as something else before. rows_each: how many
        rows each number stands for, instead of one.
        """
        if not len(instruments):
            return
        feeds = self.feeds.of_rows(row_class, instruments)
        counts = np.bincount(feeds, rows_each, minlength=self._fit())
        counts = sign * counts.astype(np.int64)  # sums of rows are exact in a double
        for name in (names,) if isinstance(names, str) else names:
            self._counters[name] += counts

    def count(self, name: str, row_class: RowClass, instrument: int, rows: int = 1) -> None:
        """Add `rows` to a counter for one instrument."""
        feed = int(self.feeds.of_rows(row_class, np.array([instrument], np.uint32))[0])
        self._fit()
        self._counters[name][feed] += rows

    def sealed(self, row_class: RowClass, rows: Rows, now_ns: int) -> None:
        """A flush sealed these rows: fill the lag of the first two stages, once an event."""
        if not len(rows):
            return
        if row_class is RowClass.LEVEL:
            rows = rows[(rows["flags"] & Flag.LAST) != 0]
        ticks = rows[rows["kind"] == row_class] if _has_marks(rows, row_class) else rows
        if not len(ticks):
            return
        feeds = self.feeds.of_rows(row_class, ticks["instrument"])
        count = self._fit()
        ts_recv = ticks["ts_recv"]
        self.lag[Stage.SEAL].add(feeds, now_ns - ts_recv)
        self.last_recv_ns[feeds] = ts_recv  # in order of arrival: the last one stays
        self.last_seen.update(row_class, ticks, len(self._table))
        timed = (ticks["flags"] & _NO_LAG) == 0
        if not timed.all():
            ticks, feeds = ticks[timed], feeds[timed]
        if len(ticks):
            raw = ticks["ts_recv"] - ticks["ts_event"]
            self.skew.update(feeds, raw, count, now_ns)
            self.lag[Stage.VENUE].add(feeds, raw - self.skew.minimum_ns[feeds])

    # What a sink tells (ingestor.edge.kafka.channel.SinkCounts).

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None:
        """The broker acknowledged these rows. since_ns: when the first of them was handed to the
        sink; PUBLISH takes all of them for as old, so it is never too small. Lags are counted once
        an event."""
        feeds = self.feeds.of_rows(row_class, rows["instrument"])
        by_feed = np.bincount(feeds, minlength=self._fit())
        self._counters["acked"] += by_feed
        if row_class is RowClass.LEVEL:
            ends = (rows["flags"] & Flag.LAST) != 0
            rows, feeds = rows[ends], feeds[ends]
            by_feed = np.bincount(feeds, minlength=len(by_feed))
        self.lag[Stage.PUBLISH].add_equal(by_feed, now_ns - since_ns)
        self.lag[Stage.TOTAL].add(feeds, now_ns - rows["ts_recv"])

    def conflated(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("conflated", row_class, rows["instrument"])

    def shed(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("shed", row_class, rows["instrument"])

    def dead_lettered(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("dead_lettered", row_class, rows["instrument"])

    def declared(self, row_class: RowClass, rows: Rows) -> None:
        self.count_rows("declared", row_class, rows["instrument"])

    @property
    def unsettled(self) -> int:
        """Rows handed to the sink, or declared by it, whose end it has not told."""
        into = self.total("published") + self.total("marks") + self.total("declared")
        out = ("acked", "conflated", "shed", "dead_lettered")
        return into - sum(self.total(name) for name in out)


def _has_marks(rows: Rows, row_class: RowClass) -> bool:
    return bool((rows["kind"] != Kind(row_class)).any())
