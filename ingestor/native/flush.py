"""Look at the rows of a flush one by one: numbers that go on, and lags by feed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.rows import TRADE, UPDATE, Rows
from ingestor.native.layouts import CDurations, CRowCounts, address

PYTHON_WAY: Final = 4  # of an instrument whose trades Python looks at; as in `src/flush.h`

Integers = NDArray[np.int64]


class TradeFollower:
    """Takes note of trades that follow the one before them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._follow = library.native_follow
        self._arrays: tuple[NDArray[np.uint8], Integers, Integers] | None = None
        self._addresses: tuple[int, int, int, int] = (0, 0, 0, 0)

    def use(self, ways: NDArray[np.uint8], last: Integers, last_ns: Integers) -> None:
        """Use these arrays from now on.

        Args:
            ways: uint8[instruments], how each one's trades are numbered, as in `src/flush.h`.
            last: int64[instruments], the highest number of each.
            last_ns: int64[instruments], its ts_event.
        """
        self._arrays = ways, last, last_ns
        self._addresses = address(ways), len(ways), address(last), address(last_ns)

    def take(self, trades: Rows) -> int:
        """Take note of the trades at the front that follow the ones before them; return how many.

        The numbers below them that they stand for are cleared in them. trades: TRADE[n].
        """
        assert trades.dtype == TRADE
        if not (trades.flags.c_contiguous and trades.flags.writeable):
            return 0
        return int(self._follow(address(trades), len(trades), *self._addresses))


def take_highest(library: ctypes.CDLL, rows: Rows, highest: NDArray[np.uint64]) -> int:
    """Take note of the highest sequence of the rows up to the first that was resent or fetched.

    Args:
        library: the compiled one.
        rows: of one class.
        highest: uint64[instruments], is raised.

    Returns:
        How many rows that was.
    """
    if not rows.flags.c_contiguous:
        return 0
    known = address(highest), len(highest)
    return int(library.native_highest(address(rows), len(rows), rows.dtype.itemsize, *known))


@dataclass(frozen=True, slots=True)
class Durations:
    """Counts of durations by bins. All arrays are contiguous.

    counts: int64[feeds, bins]. sums_ns: float64[feeds]. edges_ns: int64[bins - 1], rising.
    """

    counts: Integers
    sums_ns: NDArray[np.float64]
    edges_ns: Integers

    def memory(self) -> CDurations:
        """Return the structure that the library reads."""
        arrays = address(self.counts), address(self.sums_ns), address(self.edges_ns)
        return CDurations(*arrays, self.counts.shape[1])


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The counts of rows of one class, and which of the rows are ticks. None: nobody asks.

    feed_of: int64, by instrument. lag: from ts_recv to the time of counting. waited: in the sink.
    seen: rows, last
    ts_recv and last ts_event by instrument. last_recv, rows: int64, by feed. least_raw: the
    least ts_recv - ts_event by feed, of ticks without a flag of `no_raw`. kind: of ticks; 0 = any.
    wanted: flags that ticks have.
    """

    feed_of: Integers
    lag: Durations
    seen: tuple[Integers, Integers, Integers] | None = None
    last_recv: Integers | None = None
    least_raw: Integers | None = None
    rows: Integers | None = None
    waited: Durations | None = None
    kind: int = 0
    wanted: int = 0
    no_raw: int = 0

    def take(self, library: ctypes.CDLL, parts: Sequence[tuple[Rows, int, int]]) -> None:
        """Count rows.

        Args:
            library: the compiled one.
            parts: rows of one dtype, which may be UPDATE; the time in ns; how long in ns they were
                in the sink.

        Raises:
            IndexError: For an instrument that has no feed.
        """
        memory = self._memory(parts[0][0].dtype)
        for part, *times_ns in parts:
            rows = np.ascontiguousarray(part)
            given = address(rows), len(rows), *times_ns
            if library.native_count_rows(ctypes.byref(memory), *given) < len(rows):
                raise IndexError("a row has an instrument that is not known")

    def take_ways(
        self, library: ctypes.CDLL, parts: Sequence[Rows], least_ns: Integers, into: Durations
    ) -> None:
        """Count how long ticks that `take` took were on their way, above the least of their feed.

        Args:
            library: the compiled one.
            parts: rows of one dtype.
            least_ns: int64[feeds], the least ts_recv - ts_event.
            into: gets the durations.
        """
        memory, durations = self._memory(parts[0].dtype), into.memory()
        rest = address(least_ns), ctypes.byref(durations)
        for part in parts:
            rows = np.ascontiguousarray(part)
            library.native_count_ways(ctypes.byref(memory), address(rows), len(rows), *rest)

    def _memory(self, dtype: np.dtype[np.void]) -> CRowCounts:
        def at(array: Integers | None) -> int | None:
            return None if array is None else address(array)

        return CRowCounts(
            address(self.feed_of),
            len(self.feed_of),
            *map(at, self.seen or (None, None, None)),
            *map(at, (self.last_recv, self.least_raw, self.rows)),
            self.lag.memory(),
            CDurations() if self.waited is None else self.waited.memory(),
            dtype.itemsize,
            self.wanted,
            self.no_raw,
            self.kind,
            dtype == UPDATE,
        )
