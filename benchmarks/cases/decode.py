"""Decoding alone: frames -> sealed rows, by venue and kind, on one core.

Measured, in CPU time: the frame queue, the venue's adapter with its JSON parse, the column buffer,
sealing with exact text -> int64. Not measured: sockets, books, Kafka. The floor is `orjson.loads`
of the same frames.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import orjson

from benchmarks.harness.frames import SHAPES, Connections, Shape, receive, table
from ingestor.app.ingestor import GC_THRESHOLDS

BATCH_ROWS = 2_000


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    cases = [Case(shape) for shape in SHAPES]
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as the ingestor does
    for _ in range(20 if quick else 80):
        for case in cases:
            case.turn()
    by_name = {case.shape.name: case.result() for case in cases}
    return {
        "results": list(by_name.values()),
        "headline": {
            "decode_trades_per_s": by_name["binance trade"]["rows_per_s"],
            "decode_levels_per_s": by_name["binance book20"]["rows_per_s"],
        },
    }


class Case:
    """One shape of frames. Of all turns, which are spread over the whole run, the best counts."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._instruments = table([shape])
        self._connections = Connections(shape, self._instruments)
        self._frames = shape.frames(max(BATCH_ROWS // shape.rows, 1))
        self._rows = len(self._frames) * shape.rows
        self._best_s = self._floor_s = float("inf")

    def turn(self) -> None:
        """Decode and seal one batch on a session of its own."""
        shape, session = self.shape, self._connections.open()
        frame_queue, buffer = self._connections.frame_queue, self._connections.buffer
        fresh = [bytes(memoryview(frame)) for frame in self._frames]
        start = time.process_time()
        for frame in fresh:
            orjson.loads(frame)
        parsed = time.process_time()
        ts_recv = time.time_ns()
        receive(frame_queue, session, fresh, ts_recv)
        rows = buffer.seal(self._instruments).rows
        sealed = time.process_time()
        self._floor_s = min(self._floor_s, parsed - start)
        self._best_s = min(self._best_s, sealed - parsed)
        if rows != self._rows or frame_queue.counts.rejected:
            raise RuntimeError(f"{shape.name}: {rows} of {self._rows} rows, {frame_queue.counts}")

    def result(self) -> dict[str, Any]:
        """Return the row of the table."""
        return {
            "frames": self.shape.name,
            "frames_per_s": round(len(self._frames) / self._best_s),
            "rows_per_s": round(self._rows / self._best_s),
            "ns_per_row": round(self._best_s / self._rows * 1e9),
            "over_orjson": round(self._best_s / self._floor_s, 2),
        }
