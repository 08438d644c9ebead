"""Begins books anew that are of no use to consumers, though they may be right here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from ingestor.books.manager import BookManager
from ingestor.model.clocks import Clocks
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause
from ingestor.sources.live.tap import FrameTap


class InvalidBooks:
    """Invalidates books whose rows were shed, and books that a REST image proved wrong."""

    def __init__(
        self,
        books: BookManager,
        table: InstrumentTable,
        flush: Callable[[], None],
        recorder: FrameTap | None,
        clocks: Clocks,
    ) -> None:
        """Create the invalid books.

        Args:
            books: all books.
            table: the instruments of all plans.
            flush: takes all that was decoded to the sinks.
            recorder: keeps the decision.
            clocks: of the process.
        """
        self._books = books
        self._table = table
        self._flush = flush
        self._recorder = recorder
        self._clocks = clocks
        self._shed: set[int] = set()

    def shed(self, row_class: RowClass, instrument: int) -> None:
        """Take note that the sink dropped rows of an instrument."""
        if row_class is RowClass.LEVEL:
            if not self._shed:
                asyncio.get_running_loop().call_soon(self._invalidate_shed)
            self._shed.add(instrument)

    def contradicted(self, instrument: int) -> None:
        """Begin a book anew that a REST image proved wrong."""
        self._invalidate([instrument], Cause.CHECKSUM)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._shed = {numbers.get(instrument, instrument) for instrument in self._shed}

    def _invalidate_shed(self) -> None:
        shed, self._shed = self._shed, set()  # the flush may shed more: next time
        self._invalidate(sorted(shed), Cause.SHED)

    def _invalidate(self, instruments: Sequence[int], cause: Cause) -> None:
        """Between two flushes, so that a replay, which reads the decision, takes it there too."""
        self._flush()
        now_ns = self._clocks.wall_ns()
        for instrument in instruments:
            if self._recorder is not None:
                key, why = self._table[instrument].key, cause.name.lower()
                decision = {"action": "invalidate", "key": key, "cause": why}
                self._recorder.record_decision(None, now_ns, decision)
            self._books.invalidate(instrument, cause, now_ns)
