"""Holds back the rows of streams that another worker still publishes.

Stands between the flush and Kafka. While nothing is held it costs one comparison a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Rows
from ingestor.sinks.interface import Sink

ROWS_MAX: Final = 500_000  # held at a time, about 30 MB

Stream = tuple[RowClass, int]  # instrument number
Count = Callable[[RowClass, Rows], None]


@dataclass(slots=True)
class _Held:
    """A shard whose rows wait. overflow: rows were dropped for lack of room."""

    streams: set[Stream]
    batches: list[TickBatch] = field(default_factory=list)
    overflow: bool = False


class RowGate:
    """A sink before the sink of the process."""

    def __init__(self, sink: Sink, drop: Count, rows_max: int = ROWS_MAX) -> None:
        """Create the row gate.

        Args:
            sink: gets what is not held.
            drop: counts rows that are held and never published.
            rows_max: held at a time.
        """
        self.rows = 0  # held now
        self._sink = sink
        self._drop = drop
        self._rows_max = rows_max
        self._held: dict[int, _Held] = {}
        # By instrument: the shard plus one, 0 where nothing is held.
        self._shard_of: dict[RowClass, NDArray[np.int32]] = defaultdict(
            lambda: np.zeros(64, np.int32)
        )

    def hold(self, shard: int, streams: Iterable[Stream]) -> None:
        """Hold what comes of these streams from now on."""
        held = self._held.setdefault(shard, _Held(set()))
        held.streams.update(streams)
        self._index()

    def open(self, shard: int) -> bool:
        """Publish what is held of a shard, and let the rest pass.

        Returns whether rows had to be dropped for lack of room.
        """
        held = self._held.pop(shard, None)
        if held is None:
            return False
        self._index()
        for batch in held.batches:
            self.rows -= len(batch.rows)
            self._sink.submit(batch, 0)
        return held.overflow

    def drop(self, shard: int) -> None:
        """Forget what is held of a shard."""
        held = self._held.pop(shard, None)
        if held is not None:
            self._index()
            self._forget(held)

    def end(self) -> None:
        """Forget all that is held."""
        for shard in list(self._held):
            self.drop(shard)

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        """Take rows: hold them, or pass them on."""
        if not self._held:
            self._sink.submit(batch, now_ns)
            return
        shards = self._shards(batch.row_class, batch.rows)
        for number in np.unique(shards).tolist():
            rows = batch.rows[shards == number]
            part = TickBatch(batch.row_class, rows, batch.instruments)
            if number == 0:
                self._sink.submit(part, now_ns)
            else:
                self._keep(self._held[number - 1], part)

    async def drain(self, timeout_s: float) -> int:
        """Wait until everything that is not held is delivered; return the rows that are not."""
        return await self._sink.drain(timeout_s)

    def replace_instruments(self, numbers: dict[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        for held in self._held.values():
            held.streams |= {
                (row_class, numbers[number])
                for row_class, number in held.streams
                if number in numbers
            }
        self._index()

    def _keep(self, held: _Held, part: TickBatch) -> None:
        if self.rows + len(part.rows) > self._rows_max:
            held.overflow = True
            self._forget(held)
        held.batches.append(part)
        self.rows += len(part.rows)

    def _forget(self, held: _Held) -> None:
        for batch in held.batches:
            self.rows -= len(batch.rows)
            self._drop(batch.row_class, batch.rows)
        held.batches.clear()

    def _shards(self, row_class: RowClass, rows: Rows) -> NDArray[np.int32]:
        known = self._shard_of[row_class]
        numbers = rows["instrument"]
        if len(numbers) and int(numbers.max()) >= len(known):
            more = np.zeros(2 * (int(numbers.max()) + 1) - len(known), np.int32)
            known = self._shard_of[row_class] = np.concatenate([known, more])
        found: NDArray[np.int32] = known[numbers]
        return found

    def _index(self) -> None:
        numbers = [number for held in self._held.values() for _, number in held.streams]
        size = max(64, max(numbers, default=0) + 1)
        for row_class in ROW_CLASSES:
            self._shard_of[row_class] = np.zeros(size, np.int32)
        for shard, held in self._held.items():
            for row_class, number in held.streams:
                self._shard_of[row_class][number] = shard + 1
