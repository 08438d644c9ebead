"""Decoding alone: frames -> sealed rows, by venue and kind, on one core.

Measured, in CPU time: the session, the venue's adapter with its JSON parse, the tick buffer,
sealing with exact text -> int64. Not measured: sockets, books, Kafka. The floor is `orjson.loads`
of the same frames.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from benchmarks.frames import SHAPES, Shape, table
from ingestor.batch import TickBuffer
from ingestor.feeds_registry import adapter_of
from ingestor.session import FrameCounts, Session, SessionEvents

BATCH_ROWS = 2_000


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    results = [_measure(shape, repeats=5 if quick else 15) for shape in SHAPES]
    by_name = {row["frames"]: row for row in results}
    return {
        "results": results,
        "headline": {
            "decode_trades_per_s": by_name["binance trade"]["rows_per_s"],
            "decode_levels_per_s": by_name["binance book20"]["rows_per_s"],
        },
    }


def _measure(shape: Shape, repeats: int) -> dict[str, Any]:
    instruments = table([shape])
    symbols = instruments.symbols(shape.venue, shape.market)
    frames = shape.frames(max(BATCH_ROWS // shape.rows, 1) * 5)
    batch = max(BATCH_ROWS // shape.rows, 1)
    best_s = floor_s = float("inf")
    for _ in range(repeats):
        buffer = TickBuffer()
        adapter = adapter_of(shape.venue)(shape.market, symbols)
        session = Session(0, adapter, [], buffer, FrameCounts(), SessionEvents(), shape.market)
        receive = session.receive
        rows, spent_s, parsed_s = 0, 0.0, 0.0
        for first in range(0, len(frames), batch):
            fresh = [bytes(memoryview(frame)) for frame in frames[first : first + batch]]
            start = time.process_time()
            for frame in fresh:
                orjson.loads(frame)
            parsed_s += time.process_time() - start
            start, ts_recv = time.process_time(), time.time_ns()
            for frame in fresh:
                receive(frame, ts_recv)
            rows += buffer.seal(instruments).rows
            spent_s += time.process_time() - start
        best_s, floor_s = min(best_s, spent_s), min(floor_s, parsed_s)
        if rows != len(frames) * shape.rows or session.counts.rejected:
            raise RuntimeError(
                f"{shape.name}: {rows} rows of {len(frames)} frames, {session.counts}"
            )
    return {
        "frames": shape.name,
        "frames_per_s": round(len(frames) / best_s),
        "rows_per_s": round(rows / best_s),
        "ns_per_row": round(best_s / rows * 1e9),
        "over_orjson": round(best_s / floor_s, 2),
    }
