"""Count the lags of rows by feed: with the compiled library where there is one, else with numpy."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import UPDATE, Flag, Rows
from ingestor.native import RowCounts
from ingestor.telemetry.feeds import Feeds
from ingestor.telemetry.histogram import EDGES_NS, Histogram
from ingestor.telemetry.last_seen import LastSeen

_NO_LAG: Final = int(Flag.NO_VENUE_TIME | Flag.SNAPSHOT | Flag.BACKFILL)
_LAST: Final = int(Flag.LAST)
_SKEW_SLOT_NS: Final = 10_000_000_000
_SKEW_SLOTS: Final = 6
_NOTHING: Final = np.iinfo(np.int64).max

Sealed = tuple[Rows, int]  # and when, ns
Acked = tuple[Rows, int, int]  # and when, and since when they were on their way, ns


class Stage(IntEnum):
    """Name a stretch of the way from the venue's clock to the broker's acknowledgement."""

    VENUE = 0  # venue's event time -> our socket read, corrected for the clocks' difference
    SEAL = 1  # socket read -> sealed and handed to the sink
    PUBLISH = 2  # sealed and handed to the sink -> acknowledged by the broker
    TOTAL = 3  # socket read -> acknowledged


_VENUE, _SEAL, _PUBLISH, _TOTAL = Stage


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
        np.minimum.at(self.slot(count, now_ns), feeds, raw_ns)
        self.settle()

    def slot(self, count: int, now_ns: int) -> NDArray[np.int64]:
        """Return the least raw lags of this part of the minute, a live array; `settle` comes next.

        Args:
            count: Number of feeds known.
            now_ns: Monotonic time in ns.
        """
        if now_ns - self._slot_start_ns >= _SKEW_SLOT_NS or not self._slots:
            self._slots.append(np.full(count, _NOTHING))
            self._slot_start_ns = now_ns
        if len(self._slots[0]) < count:
            for index, slot in enumerate(self._slots):
                missing = np.full(count - len(slot), _NOTHING)
                self._slots[index] = np.concatenate([slot, missing])
        return self._slots[-1]

    def settle(self) -> None:
        """Follow what was put into the slot."""
        self.minimum_ns = np.minimum.reduce(list(self._slots))

    def known(self, feed: int) -> int | None:
        """Return the skew of one feed in ns, None when nothing was seen in the window."""
        if feed >= len(self.minimum_ns) or self.minimum_ns[feed] == _NOTHING:
            return None
        return int(self.minimum_ns[feed])


class RowLags:
    """The lags of all feeds. lag: by stage. last_recv_ns: int64, by feed. skew: of the clocks."""

    def __init__(
        self,
        table: InstrumentTable,
        feeds: Feeds,
        last_seen: LastSeen,
        library: ctypes.CDLL | None,
    ) -> None:
        """Create the row lags.

        Args:
            table: the instruments.
            feeds: of them.
            last_seen: is told of ticks.
            library: the compiled one; None = numpy counts.
        """
        self.lag = {stage: Histogram() for stage in Stage}
        self.last_recv_ns = np.zeros(0, np.int64)
        self.skew = Skew()
        self._table = table
        self._feeds = feeds
        self._last_seen = last_seen
        self._library = library

    def fit(self, count: int) -> None:
        """Know so many feeds."""
        missing = count - len(self.last_recv_ns)
        if missing > 0:
            self.last_recv_ns = np.concatenate([self.last_recv_ns, np.zeros(missing, np.int64)])
            for histogram in self.lag.values():
                histogram.grow(count)

    def sealed(self, row_class: RowClass, batches: Sequence[Sealed]) -> None:
        """Count the first two stages. batches: of one dtype, in order of arrival."""
        if self._library is not None:
            self._sealed_compiled(self._library, row_class, batches)
        else:
            self._sealed(row_class, batches)

    def acked(self, row_class: RowClass, answers: Sequence[Acked]) -> NDArray[np.int64]:
        """Count the last two stages; return the number of rows by feed."""
        if self._library is not None:
            return self._acked_compiled(self._library, row_class, answers)
        return self._acked(row_class, answers)

    def _sealed_compiled(
        self, library: ctypes.CDLL, row_class: RowClass, batches: Sequence[Sealed]
    ) -> None:
        feed_of = self._feeds.by_instrument(row_class)
        is_update = batches[0][0].dtype == UPDATE
        row_counts = RowCounts(
            feed_of,
            self.lag[_SEAL].durations,
            seen=self._last_seen.arrays(row_class, len(self._table)),
            last_recv=self.last_recv_ns,
            least_raw=self.skew.slot(len(self.last_recv_ns), batches[-1][1]),
            kind=0 if is_update else row_class.id,
            wanted=0 if is_update or not row_class.has_levels else _LAST,
            no_raw=_NO_LAG,
        )
        row_counts.take(library, [(rows, now_ns, 0) for rows, now_ns in batches])
        self.skew.settle()
        parts = [rows for rows, _ in batches]
        row_counts.take_ways(library, parts, self.skew.minimum_ns, self.lag[_VENUE].durations)

    def _sealed(self, row_class: RowClass, batches: Sequence[Sealed]) -> None:
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
        self.lag[_SEAL].add(feeds, sealed_ns - ts_recv)
        self.last_recv_ns[feeds] = ts_recv  # in order of arrival: the last one stays
        self._last_seen.update(row_class, instruments, ts_recv, ts_event, len(self._table))
        feeds, raw = _chosen((flags & _NO_LAG) == 0, feeds, ts_recv - ts_event)
        if len(raw):
            self.skew.update(feeds, raw, len(self.last_recv_ns), batches[-1][1])
            self.lag[_VENUE].add(feeds, raw - self.skew.minimum_ns[feeds])

    def _acked_compiled(
        self, library: ctypes.CDLL, row_class: RowClass, answers: Sequence[Acked]
    ) -> NDArray[np.int64]:
        counts = np.zeros(len(self.last_recv_ns), np.int64)
        row_counts = RowCounts(
            self._feeds.by_instrument(row_class),
            self.lag[_TOTAL].durations,
            waited=self.lag[_PUBLISH].durations,
            rows=counts,
            wanted=_LAST if row_class.has_levels else 0,
        )
        row_counts.take(library, [(rows, now, now - since) for rows, now, since in answers])
        return counts

    def _acked(self, row_class: RowClass, answers: Sequence[Acked]) -> NDArray[np.int64]:
        parts = [rows for rows, _, _ in answers]
        feeds = self._feeds.of_rows(row_class, _column(parts, "instrument"))
        counts = np.bincount(feeds, minlength=len(self.last_recv_ns))
        if row_class.has_levels:
            ends = [(rows["flags"] & _LAST) != 0 for rows in parts]
            feeds = feeds[np.concatenate(ends)]
            parts = [rows[is_end] for rows, is_end in zip(parts, ends, strict=True)]
        lengths = list(map(len, parts))
        acked_ns = np.array([now_ns for _, now_ns, _ in answers]).repeat(lengths)
        each_ns = np.array([now_ns - since_ns for _, now_ns, since_ns in answers])
        published_ns, bins = each_ns.repeat(lengths), EDGES_NS.searchsorted(each_ns).repeat(lengths)
        self.lag[_PUBLISH].add(feeds, published_ns, bins)
        self.lag[_TOTAL].add(feeds, acked_ns - _column(parts, "ts_recv"))
        return counts


def _column(parts: Sequence[Rows], name: str) -> NDArray[Any]:
    return np.concatenate([rows[name] for rows in parts])


def _chosen(mask: NDArray[np.bool_], *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the columns where the mask is set."""
    return columns if mask.all() else tuple(column[mask] for column in columns)
