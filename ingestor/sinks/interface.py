"""Defines what a sink is to the pipeline."""

from __future__ import annotations

from typing import Protocol

from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows


class Sink(Protocol):
    """Take sealed rows."""

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        """Take rows. Never blocks, never raises for a full queue: the overload policy decides."""

    async def drain(self, timeout_s: float) -> int:
        """Wait until everything is delivered; return the rows that are not."""


class SinkCounts(Protocol):
    """The sink's side of the ledger: rows in + declared = acked + conflated + shed + dead-lettered
    + fenced + pending. Called with the rows themselves, so that the owner can count by feed.
    """

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None:
        """Count rows that Kafka has.

        Args:
            row_class: Class of the rows.
            rows: The rows.
            now_ns: Time of the acknowledgement; lag is this minus `ts_recv`.
            since_ns: Time at which the first of them was submitted.
        """

    def conflated(self, row_class: RowClass, rows: Rows) -> None:
        """These quotes gave way to later ones of their instrument."""

    def shed(self, row_class: RowClass, rows: Rows) -> None:
        """These rows (marks may be among them) were dropped for lack of room."""

    def dead_lettered(self, row_class: RowClass, rows: Rows) -> None:
        """Kafka would never accept these rows."""

    def fenced(self, row_class: RowClass, rows: Rows) -> None:
        """Another life has taken over: these rows were dropped."""

    def declared(self, row_class: RowClass, rows: Rows) -> None:
        """The sink put these GAP marks into the stream itself."""


class Tee:
    """A sink of several."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        for sink in self._sinks:
            sink.submit(batch, now_ns)

    async def drain(self, timeout_s: float) -> int:
        return sum([await sink.drain(timeout_s) for sink in self._sinks])
