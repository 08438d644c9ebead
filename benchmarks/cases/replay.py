"""Recordings: what recording costs, how fast raw frames and Parquet come back, how even 1x is.

Frames are trades of Binance spot; rates are per CPU second.
`live`: two whole ingestors side by side on the same saturated sockets, into the stub broker, one of
them with a recorder: rows acked per CPU second of the process, and the part of them that recording
costs, its thread included (`cost`; quick: JSON only).
`raw to rows`: a recording through decoder and pipeline to nothing. `parquet to batches`: through
the reading API. `foreign`: recordings of others through books, and the part of the CPU time that
the first pass takes, which finds out what they carry. `replay at 1x`: error of the gaps between
frames, recorded 0.5 to 30 ms apart.
`disk full`: lag from the load server's send time to the broker's ack at 20,000 messages/s before,
while and after a tmpfs of 8 MiB refuses the recorder. Not in quick; none where none may be mounted.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Iterable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.cases import disk_full, first_pass, recording_cost
from benchmarks.harness.frames import SHAPES, START_MS, SYMBOLS, Shape, table
from ingestor import history as recordings
from ingestor.adapter.contract import Subscription
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import TRADE, Flag, Kind
from ingestor.recording.recorder import Recorder
from ingestor.recording.segments import RecorderSettings
from ingestor.sinks.digest import AuditSink
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay

BURST: Final = 50  # frames a socket read
GAPS_S: Final = (0.0005, 0.002, 0.010, 0.030)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    shape = next(one for one in SHAPES if one.name == "binance trade")
    live = recording_cost.measure(quick=quick)
    gc.collect()
    gc.freeze()  # as the program does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = _raw(shape, folder / "raw", 3 if quick else 10)
        parquet = _parquet(folder / "parquet", repeats=2 if quick else 5)
        pace = _pace(shape, folder / "paced", 100 if quick else 400)
    foreign = first_pass.measure(quick=quick)
    full = [] if quick else disk_full.measure()
    costs = {f"recording_cost_{row['path'].split()[-1]}": row["cost"] for row in live}
    lags = {f"lag_p99_ms_disk_{row['path'].split()[-1]}": row["lag_p99_ms"] for row in full}
    return {
        "results": [*live, raw, parquet, *foreign, pace, *full],
        "headline": {
            **costs,
            "replay_frames_per_s": raw["per_s"],
            "parquet_rows_per_s": parquet["per_s"],
            "first_pass_share": foreign[0]["first_pass_share"],
            "replay_1x_gap_error_ms_p99": pace["gap_error_ms_p99"],
            **lags,
        },
    }


def _record(shape: Shape, folder: Path, frames: Iterable[tuple[int, bytes]]) -> None:
    """Record frames of one connection. frames: (ts_recv, payload)."""
    instruments = table([shape])
    subscriptions = [
        Subscription(number, symbol, "trades", f"trades:{symbol}")
        for symbol, number in instruments.symbols(shape.venue, shape.market).items()
    ]
    settings = RecorderSettings(folder, buffer_bytes=1 << 30)
    recorder = Recorder(settings, "bench", instruments, lambda _: subscriptions)
    recorder.start()
    recorder.connected(1, time.time_ns(), shape.venue, shape.market, "wss://bench.invalid")
    for ts_ns, frame in frames:
        recorder.received(1, ts_ns, frame)
    asyncio.run(recorder.stop(60.0))


def _raw(shape: Shape, folder: Path, turns: int) -> dict[str, Any]:
    began_ns, frames = time.time_ns(), shape.frames(20_000)
    reads = ((began_ns + at // BURST * 100_000, frame) for at, frame in enumerate(frames * 5))
    _record(shape, folder, reads)
    best_s = float("inf")
    for _ in range(turns):
        replay = Replay(ReplayOptions((folder,)))
        begin_s = time.process_time()
        rows = sum(result.rows for result in replay.results())
        best_s = min(best_s, time.process_time() - begin_s)
        if rows != 5 * len(frames):
            raise RuntimeError(f"{rows} rows of {5 * len(frames)} frames")
    return {"path": "raw to rows", "per_s": round(rows / best_s)}


def _parquet(folder: Path, repeats: int) -> dict[str, Any]:
    """Read a million trades of 200 instruments by the reading API."""
    from ingestor.recording.parquet import Unit, UnitWriter  # noqa: PLC0415  # an extra

    random = np.random.default_rng(1)
    rows = np.zeros(1_000_000, TRADE)
    rows["ts_recv"] = START_MS * 1_000_000 + np.cumsum(random.integers(1, 5_000, len(rows)))
    rows["ts_event"] = rows["ts_recv"] - random.integers(1_000_000, 9_000_000, len(rows))
    rows["instrument"] = random.integers(0, SYMBOLS, len(rows))
    rows["sequence"] = rows["trade_id_low"] = 3_700_000_000 + np.arange(len(rows))
    rows["price"] = random.integers(6_000_000, 6_200_000, len(rows))
    rows["size"] = random.integers(1, 300_000, len(rows))
    rows["side"] = random.integers(1, 3, len(rows))
    rows["kind"], rows["flags"] = Kind.TRADE, Flag.LAST
    unit = Unit("binance", START_MS // 3_600_000)
    writer = UnitWriter(folder, unit, table(SHAPES[:1]))
    writer.add(RowClass.TRADE, rows)
    (file,) = writer.close()
    best_s = float("inf")
    for _ in range(repeats):
        begin_s = time.process_time()
        found = sum(len(batch) for batch in recordings.open(folder, kinds=["trades"]))
        best_s = min(best_s, time.process_time() - begin_s)
        if found != len(rows):
            raise RuntimeError(f"{found} rows of {len(rows)}")
    return {
        "path": "parquet to batches",
        "per_s": round(len(rows) / best_s),
        "bytes_per_row": round(file.stat().st_size / len(rows), 1),
    }


def _pace(shape: Shape, folder: Path, count: int) -> dict[str, Any]:
    """Replay at 1x a recording with gaps of 0.5 to 30 ms; compare the gaps."""
    began_ns, frames = time.time_ns(), shape.frames(count)
    gaps = (int(GAPS_S[at % len(GAPS_S)] * 1e9) for at in range(count))
    _record(shape, folder, zip(accumulate(gaps, initial=began_ns), frames, strict=False))
    seen: list[tuple[int, float]] = []

    async def play() -> None:
        clock = asyncio.get_running_loop().time
        replay = Replay(ReplayOptions((folder,)))
        await replay.run(AuditSink(), speed=1.0, on_frame=lambda ts: seen.append((ts, clock())))

    asyncio.run(play())
    errors_ms = [
        abs((later[1] - earlier[1]) - (later[0] - earlier[0]) / 1e9) * 1e3
        for earlier, later in pairwise(seen)
    ]
    return {
        "path": "replay at 1x",
        "gap_error_ms_p50": round(float(np.percentile(errors_ms, 50)), 3),
        "gap_error_ms_p99": round(float(np.percentile(errors_ms, 99)), 3),
    }
