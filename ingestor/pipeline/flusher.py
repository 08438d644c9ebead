"""When to flush: at the end of a read burst when the batch is full, else after the linger.

One scheduled callback per linger, whatever the number of connections; none when nothing arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from ingestor.decode.frame_queue import FrameQueue
from ingestor.model.batch import TickBatch
from ingestor.model.clocks import Clocks
from ingestor.pipeline.linger import Linger
from ingestor.pipeline.pipeline import FlushResult, Pipeline
from ingestor.sinks.interface import Sink
from ingestor.telemetry.bulkheads import bulkheads

Concern = Literal["rejected", "repairs", "lost", "errors"]
FlushObserver = Callable[[FlushResult, int], None]  # the result, and ns since the epoch


class Flusher:
    """Takes the pipeline's rows to the sinks.

    Each step of a flush has a boundary of its own: a sink or a listener that raises costs itself.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sinks: Sequence[Sink],
        *,
        rows_max: int,
        linger: Linger,
        clocks: Clocks | None = None,
    ) -> None:
        """rows_max: rows that make a batch full. linger: how long a row waits for others."""
        self._pipeline = pipeline
        self._buffer = pipeline.buffer
        self._sinks = tuple(sinks)
        self._rows_max = rows_max
        self._linger = linger
        self._clocks = clocks or Clocks()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # when it is over, by the loop's clock
        self._observers: list[tuple[FlushObserver, str, Concern | None]] = []
        self._read_completes: dict[FrameQueue, Callable[[], None]] = {}
        self.flushes = 0

    def observe(
        self, observer: FlushObserver, unit: str = "listener", concern: Concern | None = None
    ) -> None:
        """Call `observer(result, now_ns)` after each flush, before the next frame is read.

        Args:
            observer: takes what concerns it; those added first are called first.
            unit: its name in docs/bulkheads.md.
            concern: call it for flushes alone that have something in this field.
        """
        self._observers.append((observer, unit, concern))

    def read_complete_of(self, frame_queue: FrameQueue) -> Callable[[], None]:
        """Return what is called after each burst of frames into `frame_queue`: always the same."""
        if frame_queue not in self._read_completes:
            self._read_completes[frame_queue] = self._on_read_complete(frame_queue)
        return self._read_completes[frame_queue]

    def _on_read_complete(self, frame_queue: FrameQueue) -> Callable[[], None]:
        arrived, full = frame_queue.arrived, frame_queue.full

        def on_read_complete() -> None:
            if len(arrived) >= full:
                try:
                    frame_queue.decode()
                except Exception as failure:  # noqa: BLE001  # the boundary of what decodes
                    bulkheads.bug("frame", failure)
                self.request_flush()
            elif frame_queue.has_taken:
                frame_queue.has_taken = False
                self.request_flush()
            elif self._timer is None:
                self._arm()

        return on_read_complete

    def request_flush(self) -> None:
        """Something was decoded: flush if the batch is full, else within the linger."""
        if self._buffer.rows >= self._rows_max:
            self._flush_from_loop()
        elif self._timer is None:
            self._arm()

    def _arm(self) -> None:
        loop, linger = asyncio.get_running_loop(), self._linger
        now_s = loop.time()
        if linger.is_due(now_s):
            linger.observe(now_s, self._clocks.cpu_s())
        self._due_s = now_s + linger.seconds
        self._timer = loop.call_later(linger.seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._linger.ended(asyncio.get_running_loop().time() - self._due_s)
        self._flush_from_loop()

    def _flush_from_loop(self) -> None:
        try:
            self.flush()
        except Exception as failure:  # noqa: BLE001  # the boundary of a flush
            bulkheads.bug("flush", failure)

    def flush(self) -> None:
        """Decode, seal, run the books and hand everything to the sinks, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pipeline.is_empty:
            self._flush()

    def idle(self) -> None:
        """Flush nothing, so that the books can ask again for what is overdue."""
        if self._pipeline.is_empty:
            self._flush()

    def _flush(self) -> None:
        now_ns = self._clocks.wall_ns()
        result = self._pipeline.flush(now_ns, self._clocks.steady_ns())
        for failure in result.frame_bugs:
            bulkheads.bug("frame", failure)
        if result.derived_bug is not None:
            bulkheads.bug("derived rows", result.derived_bug)
        self.flushes += 1
        for batch in result.batches:
            for sink in self._sinks:
                self._submit(sink, batch, now_ns)
        for instrument, failure in result.bugs:
            bulkheads.bug("book", failure, key=self._pipeline.table[instrument].key)
        for observer, unit, concern in self._observers:
            try:
                if concern is None or getattr(result, concern):
                    observer(result, now_ns)
            except Exception as failure:  # noqa: BLE001  # the boundary of an observer
                bulkheads.bug(unit, failure)

    def _submit(self, sink: Sink, batch: TickBatch, now_ns: int) -> None:
        """Hand rows to a sink; what it can't take is shed, and counted as that."""
        try:
            sink.submit(batch, now_ns)
        except Exception as failure:  # noqa: BLE001  # the boundary of a sink
            bulkheads.bug("sink", failure, row_class=batch.row_class.name)
            self._pipeline.metrics.shed(batch.row_class, batch.rows)
