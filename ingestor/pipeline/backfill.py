"""Decides which lost trades are asked for next, and when they are given up. Pure.

A range is asked for a moment after it was found, since a venue's history lags behind its streams.
While answers bring something, what is left is asked for at once; an answer that brings nothing, or
none, lets it wait longer each time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from ingestor.model.timestamps import SECOND
from ingestor.pipeline.trade_gaps import Lost


@dataclass(frozen=True, slots=True)
class BackfillSettings:
    """delay_s: from the loss to the first request. backoff_s, backoff_max_s: after the first
    request that brought nothing, doubled with each further one. misses_max: of these in a row.
    trades_max: numbers of one range. ranges_max: that wait at a time.
    """

    delay_s: float = 1.0
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    misses_max: int = 8
    trades_max: int = 100_000
    ranges_max: int = 1_024


DEFAULTS: Final = BackfillSettings()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range to ask for. misses: requests in a row that brought nothing."""

    lost: Lost
    misses: int = 0


class BackfillPlanner:
    """The ranges that one server is asked for, by the time when they are due."""

    def __init__(self, settings: BackfillSettings = DEFAULTS) -> None:
        self._settings = settings
        self._waiting: list[tuple[int, int, Wanted]] = []  # due_ns, a number, what
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, lost: Iterable[Lost], now_ns: int) -> list[Lost]:
        """Take ranges; return those that are too large, or too many, to be asked for."""
        settings = self._settings
        due_ns = now_ns + round(settings.delay_s * SECOND)
        refused = []
        for hole in lost:
            if hole.trades.count > settings.trades_max or len(self) >= settings.ranges_max:
                refused.append(hole)
            else:
                self._put(Wanted(hole), due_ns)
        return refused

    @property
    def due_ns(self) -> int | None:
        """When the next range is to be asked for; None: there is none."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, now_ns: int) -> Wanted | None:
        """Take out a range that is due; None: there is none."""
        if not self._waiting or self._waiting[0][0] > now_ns:
            return None
        return heapq.heappop(self._waiting)[2]

    def answered(self, wanted: Wanted, left: Sequence[Lost], now_ns: int) -> list[Lost]:
        """Take note of the trades that a request left missing.

        Args:
            wanted: The request.
            left: The trades that are still missing.
            now_ns: Monotonic time in ns.

        Returns:
            The trades that are given up.
        """
        if list(left) == [wanted.lost]:
            return self.missed(wanted, now_ns)
        for hole in left:
            self._put(Wanted(hole), now_ns)
        return []

    def missed(self, wanted: Wanted, now_ns: int) -> list[Lost]:
        """Take note that a request brought nothing; return what is given up."""
        settings = self._settings
        if wanted.misses + 1 >= settings.misses_max:
            return [wanted.lost]
        wait_s = min(settings.backoff_s * 2.0**wanted.misses, settings.backoff_max_s)
        self._put(Wanted(wanted.lost, wanted.misses + 1), now_ns + round(wait_s * SECOND))
        return []

    def _put(self, wanted: Wanted, due_ns: int) -> None:
        heapq.heappush(self._waiting, (due_ns, next(self._numbers), wanted))
