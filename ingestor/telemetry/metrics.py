"""Counters and lag histograms, filled once for many batches and read at scrape time.

A feed is (venue, market, channel). Everything here is an array indexed by feed number, so that
batches of any size cost a handful of numpy calls. Those would cost a small batch more than its
rows do: batches wait, a second at most, to be counted together, and whoever reads has them counted
first. Nothing here knows prometheus-client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.native import native
from ingestor.telemetry.feeds import Feeds
from ingestor.telemetry.histogram import Histogram
from ingestor.telemetry.last_seen import LastSeen
from ingestor.telemetry.row_lags import Acked, RowLags, Sealed, Skew, Stage

_WAITING_ROWS_MAX: Final = 12_288  # a row may wait for being published, sealed and acked
_WAITING_NS_MAX: Final = 1_000_000_000


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
        self._counters = {name: np.zeros(0, np.int64) for name in self.COUNTERS}
        self.last_seen = LastSeen(self.settle)
        self._lags = RowLags(table, self._feeds, self.last_seen, native().library)
        # What waits to be counted.
        self._rows = 0
        self._settled_ns = 0
        self._counted: dict[tuple[tuple[str, ...], RowClass, int], list[NDArray[np.uint32]]] = {}
        self._sealed: dict[RowClass, list[Sealed]] = {}  # of one dtype each
        self._acked: dict[RowClass, list[Acked]] = {}

    @property
    def feeds(self) -> Feeds:
        self.settle()
        return self._feeds

    @property
    def skew(self) -> Skew:
        self.settle()
        return self._lags.skew

    @property
    def lag(self) -> dict[Stage, Histogram]:
        """By stage, as of now: to be asked for anew for every reading."""
        self.settle()
        return self._lags.lag

    @property
    def last_recv_ns(self) -> NDArray[np.int64]:
        self.settle()
        return self._lags.last_recv_ns

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
            self._fit()
            self._lags.sealed(row_class, batches)
        for row_class, answers in acked.items():
            self._fit()
            self._counters["acked"] += self._lags.acked(row_class, answers)

    def _wait(self, rows: int, now_ns: int) -> None:
        self._rows += rows
        if self._rows >= _WAITING_ROWS_MAX or now_ns - self._settled_ns >= _WAITING_NS_MAX:
            self._settled_ns = now_ns
            self.settle()

    def _fit(self) -> int:
        count = len(self._feeds.all)
        missing = count - len(self._lags.last_recv_ns)
        if missing > 0:
            self._lags.fit(count)
            for name, values in self._counters.items():
                self._counters[name] = np.concatenate([values, np.zeros(missing, np.int64)])
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
