"""Puts the rows of several partitions in order of `ts_recv`, within a bounded window.

A partition that may still have earlier rows holds the others back: while it has more to read, for
at most `stall_s`; while it has nothing more, for at most `window_s`, since its next row may be just
on its way. Rows of one partition stay in their order, so a row counts as received no earlier than
those before it.

A source is whatever the caller tells apart: here a partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise
from typing import Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ingestor.consumer.joining import Chunk
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows

Source = TypeVar("Source", bound=Hashable)

_NEVER: Final = -(2**63)
_FOR_EVER: Final = 2**63 - 1


class Supply(Enum):
    """Name what is to be expected of a source."""

    BEHIND = auto()  # it has more to read
    QUIET = auto()  # it has nothing more now
    ENDED = auto()  # nothing more of it is wanted


@dataclass(slots=True)
class _Waiting:
    """Rows of one chunk that wait. times_ns: `ts_recv`, never going back within the source."""

    chunk: Chunk
    times_ns: NDArray[np.int64]
    arrived_s: float
    taken: int = 0


@dataclass(slots=True)
class _Held:
    """One source. last_ns: the time of its last row, waiting or not."""

    supply: Supply = Supply.BEHIND
    last_ns: int = _NEVER
    rows: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Slice(Generic[Source]):
    source: Source
    chunk: Chunk
    start: int
    end: int


class Taken(Generic[Source]):
    """Rows in order, to be handed out batch by batch; says how far each source has got."""

    def __init__(self, slices: list[_Slice[Source]], times_ns: NDArray[np.int64]) -> None:
        """Create the taken.

        Args:
            slices: rows of chunks, those of one source in order.
            times_ns: int64, of all rows of the slices.
        """
        self._slices = slices
        self._lengths = np.array([part.end - part.start for part in slices], np.int64)
        order = times_ns.argsort(kind="stable") if len(slices) > 1 else np.arange(len(times_ns))
        self._origin = np.arange(len(slices)).repeat(self._lengths)[order]
        self._order = order
        self._handed = 0
        self._forgotten: set[Source] = set()

    @classmethod
    def whole(cls, source: Source, chunk: Chunk) -> Self:
        """Return all rows of one chunk, in the order they have."""
        rows = len(chunk.batch)
        return cls([_Slice(source, chunk, 0, rows)], np.zeros(rows, np.int64))

    @property
    def sources(self) -> set[Source]:
        return {part.source for part in self._slices}

    def forget(self, source: Source) -> None:
        """Leave a source's offset out of `next_offsets`."""
        self._forgotten.add(source)

    def __iter__(self) -> Iterator[TickBatch]:
        """Yield the rows, one batch for each run of a class."""
        classes: list[RowClass] = list(dict.fromkeys(self._class_of(part) for part in self._slices))
        if len(self._slices) == 1:
            [only] = self._slices
            self._handed = only.end - only.start
            batch = only.chunk.batch
            yield TickBatch(batch.row_class, batch.rows[only.start : only.end], batch.instruments)
            return
        numbers = np.array([classes.index(self._class_of(part)) for part in self._slices])
        class_of_row = numbers[self._origin]
        rows = [self._rows_of(row_class, numbers == n) for n, row_class in enumerate(classes)]
        instruments = self._slices[0].chunk.batch.instruments
        begins = [0] * len(classes)
        edges = [0, *(np.flatnonzero(np.diff(class_of_row)) + 1).tolist(), len(class_of_row)]
        for start, end in pairwise(edges):
            number = int(class_of_row[start])
            begin = begins[number]
            begins[number] += end - start
            self._handed = end
            yield TickBatch(classes[number], rows[number][begin : begin + end - start], instruments)

    def next_offsets(self) -> dict[Source, int]:
        """Return the offset behind the last record, all of whose rows were handed out, of each
        source that has one.
        """
        counts = np.bincount(self._origin[: self._handed], minlength=len(self._slices))
        found: dict[Source, int] = {}
        for one, count in zip(self._slices, counts.tolist(), strict=True):
            offset = one.chunk.next_offset(one.start + count)
            if offset is not None and one.source not in self._forgotten:
                found[one.source] = max(offset, found.get(one.source, 0))
        return found

    def _class_of(self, one: _Slice[Source]) -> RowClass:
        return one.chunk.batch.row_class

    def _rows_of(self, row_class: RowClass, is_wanted: NDArray[np.bool_]) -> Rows:
        """Return the rows of one class in order."""
        parts = [
            part.chunk.batch.rows[part.start : part.end].tobytes()
            for part in self._slices
            if self._class_of(part) is row_class
        ]
        # numpy moves opaque items ten times as fast as structured ones.
        opaque = np.frombuffer(b"".join(parts), np.dtype((np.void, row_class.dtype.itemsize)))
        own = is_wanted.repeat(self._lengths)
        place = own.cumsum() - 1  # of each row among those of its class
        order = place[self._order[own[self._order]]]
        rows: Rows = opaque[order].view(row_class.dtype)
        return rows


class Merge(Generic[Source]):
    """Holds rows back until no earlier ones are to be expected.

    late_rows: rows that came so late that later ones had been given out.
    """

    def __init__(self, window_s: float, stall_s: float) -> None:
        self.late_rows = 0
        self._window_s = window_s
        self._stall_s = stall_s
        self._held: dict[Source, _Held] = {}
        self._given_ns = _NEVER

    def expect(self, source: Source, supply: Supply) -> None:
        """Say what is to be expected of a source, which may be a new one."""
        self._held.setdefault(source, _Held()).supply = supply

    def add(self, source: Source, chunk: Chunk, now_s: float) -> None:
        """Take rows of a source.

        Args:
            source: The source.
            chunk: Its rows, at least one.
            now_s: Monotonic time in seconds.
        """
        held = self._held.setdefault(source, _Held())
        times_ns = np.maximum.accumulate(chunk.batch.rows["ts_recv"])
        times_ns = np.maximum(times_ns, held.last_ns)
        self.late_rows += int(times_ns.searchsorted(self._given_ns))
        held.last_ns = int(times_ns[-1])
        held.rows += len(times_ns)
        held.waiting.append(_Waiting(chunk, times_ns, now_s))

    def drop(self, source: Source) -> None:
        """Forget a source and its rows."""
        self._held.pop(source, None)

    def rows(self, source: Source) -> int:
        """Return how many rows of a source wait."""
        held = self._held.get(source)
        return held.rows if held else 0

    def wait_s(self, now_s: float) -> float | None:
        """Return how long until rows are given out although a source is quiet; None where no row
        waits.
        """
        firsts = [held.waiting[0].arrived_s for held in self._held.values() if held.waiting]
        return max(min(firsts) + self._window_s - now_s, 0.0) if firsts else None

    def take(self, now_s: float) -> Taken[Source] | None:
        """Return the rows that need not wait any longer, None if there are none."""
        limit_ns = self._limit_ns(now_s)
        slices: list[_Slice[Source]] = []
        times: list[NDArray[np.int64]] = []
        for source, held in self._held.items():
            while held.waiting:
                first = held.waiting[0]
                end = int(first.times_ns.searchsorted(limit_ns, "right"))
                if end > first.taken:
                    slices.append(_Slice(source, first.chunk, first.taken, end))
                    times.append(first.times_ns[first.taken : end])
                    held.rows -= end - first.taken
                    first.taken = end
                if end < len(first.times_ns):
                    break
                held.waiting.popleft()
        if not slices:
            return None
        merged = np.concatenate(times)
        self._given_ns = max(self._given_ns, int(merged.max()))
        return Taken(slices, merged)

    def _limit_ns(self, now_s: float) -> int:
        """Return the time up to which rows need not wait."""
        window_ns = self._arrived_ns(now_s - self._window_s)
        stall_ns = self._arrived_ns(now_s - self._stall_s)
        limit_ns = _FOR_EVER
        for held in self._held.values():
            if held.supply is not Supply.ENDED:
                excused_ns = window_ns if held.supply is Supply.QUIET else stall_ns
                limit_ns = min(limit_ns, max(held.last_ns, excused_ns))
        return limit_ns

    def _arrived_ns(self, until_s: float) -> int:
        """Return the time of the last waiting row that arrived by then."""
        found = [
            int(item.times_ns[-1])
            for held in self._held.values()
            for item in held.waiting
            if item.arrived_s <= until_s
        ]
        return max(found, default=_NEVER)
