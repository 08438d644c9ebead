"""Find what was shed: the rows that a GAP of cause `shed` in a topic stands for. Pure.

Rows of one instrument and class are in the topic in the order in which they were received. So a
range of shed rows begins with the `ts_recv` of its GAP and ends with that of the row behind it.
Rows at both ends may share their time with published ones, which are told apart by their content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows
from ingestor.model.timestamps import SECOND

_BACKFILL: Final = int(Flag.BACKFILL)
# Rows of several sockets are in order flush by flush, not row by row.
_DISORDER_NS: Final = 5 * SECOND

Stream = tuple[RowClass, str]  # a class, and the key of an instrument


def is_shed_mark(rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return where rows are GAP marks of cause `shed`."""
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (rows["kind"] == Kind.GAP) & (
        rows["side"] == Cause.SHED
    )
    return found


@dataclass(slots=True)
class ShedRange:
    """Describe what one GAP stands for: recorded rows from start_ns to end_ns, without `known`.

    mark: the GAP, one row. known: rows of that time that the topic has, as bytes. is_ended: False
    where no later row of the instrument says when it ended. is_filled: a refill was completed.
    """

    mark: Rows
    start_ns: int
    end_ns: int | None = None
    known: Counter[bytes] = field(default_factory=Counter)
    is_ended: bool = False
    is_filled: bool = False

    def holds(self, ts_recv: int) -> bool:
        """Return True if a row of that time may be one of these."""
        return self.start_ns <= ts_recv <= (self.end_ns or 0)


class PublishedStream:
    """Follows the rows of one instrument and class that one session published, in their order."""

    def __init__(self) -> None:
        self.ranges: list[ShedRange] = []
        self._last: Rows | None = None  # the rows of the newest time

    def take(self, rows: Rows) -> None:
        """Take the next rows."""
        marks = is_shed_mark(rows)
        if not marks.any() and not self._is_open(rows):
            self._remember(rows)
            return
        for at in range(len(rows)):
            one = rows[at : at + 1]
            if marks[at]:
                self._begin(one)
            else:
                self._follow(one)
                self._remember(one)

    def _is_open(self, rows: Rows) -> bool:
        """Return True if rows may end the newest range, or be of the time of its end."""
        if not self.ranges:
            return False
        end_ns = self.ranges[-1].end_ns
        return end_ns is None or bool(len(rows) and rows["ts_recv"][0] <= end_ns)

    def _remember(self, rows: Rows) -> None:
        newest = rows[rows["ts_recv"] == rows["ts_recv"][-1]]
        if self._last is not None and self._last["ts_recv"][0] == newest["ts_recv"][0]:
            newest = np.concatenate((self._last, newest))
        self._last = newest

    def _begin(self, mark: Rows) -> None:
        start_ns = int(mark["ts_recv"][0])
        if self.ranges and self.ranges[-1].end_ns is None:
            self._end(start_ns)
        found = ShedRange(mark.copy(), start_ns)
        if self._last is not None and self._last["ts_recv"][0] == start_ns:
            found.known.update(contents(self._last))
        self.ranges.append(found)

    def _follow(self, row: Rows) -> None:
        ts_recv = int(row["ts_recv"][0])
        if self.ranges[-1:] and self.ranges[-1].end_ns is None:
            self._end(ts_recv)
        for found in reversed(self.ranges):
            if not found.holds(ts_recv):
                break
            found.known.update(contents(row))

    def _end(self, end_ns: int) -> None:
        newest = self.ranges[-1]
        newest.end_ns, newest.is_ended = max(end_ns, newest.start_ns), True


class PublishedRows:
    """Follows what topics hold, record by record, and finds the ranges that were shed."""

    def __init__(self) -> None:
        self._streams: dict[str, dict[Stream, PublishedStream]] = {}  # by session
        self._refilled: dict[Stream, list[Rows]] = {}
        self._newest: dict[tuple[str, RowClass, int], int] = {}  # by session, class, partition
        self._partitions: dict[Stream, int] = {}

    def take(self, session: str, partition: int, batch: TickBatch, *, is_recorded: bool) -> None:
        """Take rows of one record, those that were not seen before.

        Args:
            session: The publisher's.
            partition: Where the record is.
            batch: Its rows.
            is_recorded: Whether there is a recording of that session. The rows of others matter
                only where they are of a refill.
        """
        for number in np.unique(batch.rows["instrument"]).tolist():
            rows = batch.rows[batch.rows["instrument"] == number]
            stream = batch.row_class, batch.instruments[number].key
            if is_recorded:
                streams = self._streams.setdefault(session, {})
                streams.setdefault(stream, PublishedStream()).take(rows)
                place = session, batch.row_class, partition
                newest = int(rows["ts_recv"].max())
                self._newest[place] = max(self._newest.get(place, 0), newest)
                self._partitions[stream] = partition
            else:
                fetched = rows[(rows["flags"] & _BACKFILL) != 0]
                if len(fetched):
                    self._refilled.setdefault(stream, []).append(fetched)

    def ranges(self) -> dict[str, dict[Stream, list[ShedRange]]]:
        """Return what was shed and is not filled, by session; call it once, at the end."""
        found: dict[str, dict[Stream, list[ShedRange]]] = {}
        for session, streams in self._streams.items():
            for stream, published in streams.items():
                ranges = published.ranges
                if ranges and ranges[-1].end_ns is None:
                    place = session, stream[0], self._partitions[stream]
                    ranges[-1].end_ns = self._newest[place] - _DISORDER_NS
                for rows in self._refilled.get(stream, ()):
                    _take_refilled(ranges, rows)
                if missing := [shed_range for shed_range in ranges if not shed_range.is_filled]:
                    found.setdefault(session, {})[stream] = missing
        return found


def _take_refilled(ranges: list[ShedRange], rows: Rows) -> None:
    """Note what an earlier refill published of these ranges."""
    for at in range(len(rows)):
        row = rows[at : at + 1]
        ts_recv = int(row["ts_recv"][0])
        if is_shed_mark(row)[0]:
            for shed_range in ranges:
                if shed_range.mark.tobytes()[:16] == row.tobytes()[:16]:  # both times
                    shed_range.is_filled = True
            continue
        for shed_range in ranges:
            if shed_range.holds(ts_recv):
                shed_range.known.update(contents(row))


def contents(rows: Rows) -> Iterator[bytes]:
    """Yield each row as bytes, without the number of its instrument and the flag BACKFILL."""
    plain = rows.copy()
    plain["instrument"] = 0
    plain["flags"] &= ~np.uint16(_BACKFILL)
    return (plain[at : at + 1].tobytes() for at in range(len(plain)))


class MissingRows:
    """Chooses the rows of one stream to publish from those that a recording gives, in order."""

    def __init__(self, ranges: list[ShedRange]) -> None:
        self._ranges = sorted(ranges, key=lambda shed_range: shed_range.start_ns)
        self._starts = [shed_range.start_ns for shed_range in self._ranges]
        self._known = [Counter(shed_range.known) for shed_range in self._ranges]
        self._is_partial = [False] * len(self._ranges)
        self.rows = 0

    def choose(self, rows: Rows) -> Rows:
        """Return what is to be published of the next recorded rows, flagged BACKFILL."""
        places = np.searchsorted(self._starts, rows["ts_recv"], "right") - 1
        ends = np.array([shed_range.end_ns or 0 for shed_range in self._ranges])
        candidates = (places >= 0) & (rows["ts_recv"] <= ends[places])
        for at in np.flatnonzero(candidates & is_shed_mark(rows)).tolist():
            self._is_partial[places[at]] = True  # the recording lost lines here
            candidates[at] = False
        for at in np.flatnonzero(candidates).tolist():
            known = self._known[places[at]]
            if known:
                content = next(contents(rows[at : at + 1]))
                if known[content] > 0:
                    known[content] -= 1
                    candidates[at] = False
        chosen: Rows = rows[candidates]
        chosen["flags"] |= _BACKFILL
        self.rows += len(chosen)
        return chosen

    def filled(self, first_ns: int, last_ns: int) -> list[Rows]:
        """Return the closing marks of the ranges that are complete now.

        Args:
            first_ns: Time of the first line of the recording.
            last_ns: Time of its last line that was read.
        """
        marks = []
        for shed_range, is_partial in zip(self._ranges, self._is_partial, strict=True):
            is_covered = first_ns <= shed_range.start_ns and last_ns >= (shed_range.end_ns or 0)
            if shed_range.is_ended and is_covered and not is_partial:
                mark = shed_range.mark.copy()
                mark["flags"] |= _BACKFILL
                marks.append(mark)
        return marks
