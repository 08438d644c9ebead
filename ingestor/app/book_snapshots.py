"""Images of the books for the compacted topic: after each RESET, and of all at an interval."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.books.manager import BookManager
from ingestor.model.clocks import Clocks
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sinks.kafka.sink import KafkaSink

SLICE: Final = 8  # books published between two turns of the loop
PAUSE_S: Final = 0.02


class BookSnapshotPublisher:
    """Publishes the top of each book, a few at a time: 1,000 levels take a millisecond.

    interval_s: between two images of one book; 0 = after each RESET alone.
    """

    def __init__(
        self,
        books: BookManager,
        table: InstrumentTable,
        sink: KafkaSink,
        publishing: AuxiliaryRecords,
        interval_s: float,
        clocks: Clocks | None = None,
    ) -> None:
        self._books = books
        self._table = table
        self._sink = sink
        self._publishing = publishing
        self._interval_s = interval_s
        self._clocks = clocks or Clocks()
        self._known: set[int] = set()
        self._due: dict[int, None] = {}  # in order

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Books that began anew with a flush are due."""
        for batch in result.batches:
            if batch.row_class is RowClass.LEVEL:
                resets = batch.rows["instrument"][batch.rows["kind"] == Kind.RESET].tolist()
                self._known.update(resets)
                self._due.update(dict.fromkeys(resets))

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._known = {numbers.get(instrument, instrument) for instrument in self._known}
        self._due = {numbers.get(instrument, instrument): None for instrument in self._due}

    async def run(self) -> None:
        """Publish until cancelled."""
        again_s = self._clocks.steady_s() + self._interval_s
        while True:
            await asyncio.sleep(PAUSE_S)
            if self._interval_s and self._clocks.steady_s() >= again_s:
                again_s = self._clocks.steady_s() + self._interval_s
                self._due.update(dict.fromkeys(sorted(self._known)))
            if self._due:
                some = list(self._due)[:SLICE]
                for instrument in some:
                    del self._due[instrument]
                self._publish(some)

    def _publish(self, instruments: Iterable[int]) -> None:
        rows = self._books.snapshots(instruments).rows
        for instrument in instruments:
            of_instrument = rows[rows["instrument"] == instrument]
            position = self._sink.position(RowClass.LEVEL, instrument)
            self._publishing.book(self._table, of_instrument, position)
