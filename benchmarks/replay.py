"""Recordings: what recording costs, how fast raw frames and Parquet come back, how even 1x is.

Frames are trades of Binance spot, made before the clock starts. Rates are of one core: recording
is charged with the CPU of its thread too.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import disk_full
from benchmarks.frames import SHAPES, START_MS, SYMBOLS, Shape, table
from ingestor import recordings
from ingestor.codec import encoder
from ingestor.edge.recording.recorder import Recorder
from ingestor.edge.recording.segments import RecorderSettings
from ingestor.edge.replay.audit import AuditSink
from ingestor.edge.replay.replay import Replay, ReplayOptions
from ingestor.feeds_registry import adapter_of
from ingestor.pipeline import Pipeline
from ingestor.rows import TRADE, Flag, Kind, RowClass
from ingestor.session import FrameCounts, Session, SessionEvents, Subscription

BURST: Final = 50  # frames a socket read
BATCH_FRAMES: Final = 2_000
GAPS_S: Final = (0.0005, 0.002, 0.010, 0.030)


class _Feed:
    """The live path of one connection up to the encoded record, with or without a recorder."""

    def __init__(self, shape: Shape, encoding: str, recorder_folder: Path | None) -> None:
        self.table = table([shape])
        symbols = self.table.symbols(shape.venue, shape.market)
        adapter = adapter_of(shape.venue)
        rule = adapter.markets[shape.market].book
        self.pipeline = Pipeline(self.table, lambda _: rule)
        self.subscriptions = [
            Subscription(number, symbol, "trades", f"trades:{symbol}")
            for symbol, number in symbols.items()
        ]
        self.session = Session(
            1,
            adapter(shape.market, symbols),
            self.subscriptions,
            self.pipeline.buffer,
            FrameCounts(),
            SessionEvents(),
            shape.market,
        )
        self.encoder = encoder(encoding, self.table, bytes(16))
        self.recorder: Recorder | None = None
        if recorder_folder is not None:
            settings = RecorderSettings(recorder_folder, buffer_bytes=1 << 30)
            self.recorder = Recorder(settings, "bench", self.table, lambda _: self.subscriptions)
            self.recorder.start()
            now_ns = time.time_ns()
            self.recorder.connected(1, now_ns, shape.venue, shape.market, "wss://bench.invalid")

    def run(self, frames: list[bytes]) -> None:
        receive = self.session.receive
        received = self.recorder.received if self.recorder is not None else None
        for first in range(0, len(frames), BATCH_FRAMES):
            batch = frames[first : first + BATCH_FRAMES]
            for start in range(0, len(batch), BURST):
                ts_ns = time.time_ns()
                for frame in batch[start : start + BURST]:
                    if received is not None:
                        received(1, ts_ns, frame)
                    receive(frame, ts_ns)
            for done in self.pipeline.flush(time.time_ns()).batches:
                self.encoder.encode(done.row_class, done.rows, first)

    def close(self) -> None:
        if self.recorder is not None:
            asyncio.run(self.recorder.stop(60.0))


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    shape = next(one for one in SHAPES if one.name == "binance trade")
    frames = shape.frames(20_000) * (3 if quick else 15)
    gc.collect()
    gc.freeze()  # as the program does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = _recording(shape, frames, folder, repeats=2 if quick else 4)
        raw = _raw(folder / "recorded", len(frames), repeats=2 if quick else 3)
        parquet = _parquet(folder / "parquet", repeats=2 if quick else 5)
        pace = _pace(shape, folder / "paced", 200 if quick else 2_000)
    full = disk_full.measure(quick=quick)
    lags = {f"lag_p99_ms_disk_{row['path'].split()[-1]}": row["lag_p99_ms"] for row in full}
    headline = {
        f"recording_cost_{row['path'].split()[1]}": row["cost"] for row in results if row["cost"]
    }
    return {
        "results": [*results, raw, parquet, pace, *full],
        "headline": {
            **headline,
            "replay_frames_per_s": raw["per_s"],
            "parquet_rows_per_s": parquet["per_s"],
            "replay_1x_gap_error_ms_p99": pace["gap_error_ms_p99"],
            **lags,
        },
    }


def _recording(
    shape: Shape, frames: list[bytes], folder: Path, repeats: int
) -> list[dict[str, Any]]:
    """Frames per CPU second of the process, encoded for Kafka, without and with a recorder.

    cost: the part of the throughput that recording takes.
    """
    rows = []
    for encoding in ("json", "binary"):
        best_s = [float("inf"), float("inf")]
        for number in range(repeats):  # in turn: the machine changes under both alike
            target = folder / ("recorded" if encoding == "json" and not number else "more")
            for is_recorded in (False, True):
                feed = _Feed(shape, encoding, target if is_recorded else None)
                begin_s = time.process_time()
                feed.run(frames)
                feed.close()
                taken_s = time.process_time() - begin_s
                best_s[is_recorded] = min(best_s[is_recorded], taken_s)
        rates = [len(frames) / one for one in best_s]
        rows += [
            {"path": f"publish {encoding}", "per_s": round(rates[0]), "cost": 0.0},
            {
                "path": f"record {encoding}",
                "per_s": round(rates[1]),
                "cost": round(1 - rates[1] / rates[0], 3),
            },
        ]
    return rows


def _raw(folder: Path, expected: int, repeats: int) -> dict[str, Any]:
    best_s = float("inf")
    for _ in range(repeats):
        replay = Replay(ReplayOptions((folder,)))
        begin_s = time.process_time()
        rows = sum(result.rows for result in replay.results())
        best_s = min(best_s, time.process_time() - begin_s)
        if rows != expected:
            raise RuntimeError(f"{rows} rows of {expected} frames")
    return {"path": "raw to rows", "per_s": round(expected / best_s)}


def _parquet(folder: Path, repeats: int) -> dict[str, Any]:
    """Read a million trades of 200 instruments by the reading API."""
    from ingestor.edge.recording.parquet import Unit, UnitWriter  # noqa: PLC0415  # an extra

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
    feed = _Feed(shape, "json", folder)
    ts_ns = time.time_ns()
    assert feed.recorder is not None
    for number, frame in enumerate(shape.frames(count)):
        ts_ns += int(GAPS_S[number % len(GAPS_S)] * 1e9)
        feed.recorder.received(1, ts_ns, frame)
    feed.close()
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
