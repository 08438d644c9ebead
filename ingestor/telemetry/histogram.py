"""Histograms of durations by exponential bins, one row per feed."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.native import Durations

# Upper edges: 100 us x 2^(k/4). Every fourth is exported; with the others between, a percentile is
# exact to 19 %.
_STEPS: Final = np.arange(-16, 61)
EDGES_NS: Final[NDArray[np.int64]] = np.rint(100_000 * 2.0 ** (_STEPS / 4)).astype(np.int64)
EXPORTED: Final[NDArray[np.intp]] = np.flatnonzero(_STEPS % 4 == 0)
_BINS: Final = len(EDGES_NS) + 1


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

    def add(
        self,
        feeds: NDArray[np.intp],
        values_ns: NDArray[np.int64],
        bins: NDArray[np.intp] | None = None,
    ) -> None:
        """Count values.

        Args:
            feeds: intp[n], the feed number of each value.
            values_ns: int64[n].
            bins: intp[n], the bins of the values, if they are known.
        """
        if not len(values_ns):
            return
        if bins is None:
            bins = EDGES_NS.searchsorted(values_ns)
        # A clock that was set back makes lags negative; a sum that falls reads as a restart.
        values_ns = np.maximum(values_ns, 0)
        first = feeds[0]
        if (feeds == first).all():
            self.counts[first] += np.bincount(bins, minlength=_BINS)
            self.sums_ns[first] += values_ns.sum(dtype=np.float64)
            return
        cells = feeds * _BINS + bins
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)
        self.sums_ns += np.bincount(feeds, values_ns, minlength=len(self.sums_ns))

    def add_one(self, feed: int, value_ns: int, weight: int = 1) -> None:
        """Count one value.

        Args:
            feed: Its feed number.
            value_ns: The value.
            weight: How often it counts.
        """
        self.counts[feed, int(np.searchsorted(EDGES_NS, value_ns))] += weight
        self.sums_ns[feed] += value_ns * weight

    @property
    def durations(self) -> Durations:
        """Return the array that the compiled library counts into."""
        return Durations(self.counts, self.sums_ns, EDGES_NS)

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
