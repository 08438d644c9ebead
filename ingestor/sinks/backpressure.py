"""Forwards a sink's requests to the parts before it: stop reading, read on, begin books anew."""

from __future__ import annotations

from collections.abc import Callable

from ingestor.model.row_classes import RowClass
from ingestor.telemetry.bulkheads import bulkheads

Shed = Callable[[RowClass, int], None]  # row class and instrument of rows that were dropped


class Backpressure:
    """The way back from a sink. It is built first; the parts that follow it add themselves.

    What one of them raises costs that call alone.
    """

    def __init__(self) -> None:
        self._on_pause: list[Callable[[], None]] = []
        self._on_resume: list[Callable[[], None]] = []
        self._on_shed: list[Shed] = []

    def add_reader(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Add a part that reads. Both calls may come when nothing changes by them."""
        self._on_pause.append(pause)
        self._on_resume.append(resume)

    def observe_shed(self, observer: Shed) -> None:
        """Call `observer` for each instrument whose rows the sink drops."""
        self._on_shed.append(observer)

    def pause(self) -> None:
        """Stop reading."""
        for call in self._on_pause:
            try:
                call()
            except Exception as failure:  # noqa: BLE001  # the boundary
                bulkheads.bug("sink", failure)

    def resume(self) -> None:
        """Read on."""
        for call in self._on_resume:
            try:
                call()
            except Exception as failure:  # noqa: BLE001  # the boundary
                bulkheads.bug("sink", failure)

    def shed(self, row_class: RowClass, instrument: int) -> None:
        """Report that rows of an instrument were dropped: a GAP stands in their place."""
        for call in self._on_shed:
            try:
                call(row_class, instrument)
            except Exception as failure:  # noqa: BLE001  # the boundary
                bulkheads.bug("sink", failure)
