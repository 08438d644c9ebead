"""Decoding alone: frames -> sealed rows, by venue and kind, on one core.

Measured, in CPU time: the frame queue, the venue's adapter with its JSON parse, the column buffer,
sealing with exact text -> int64. Not measured: sockets, books, Kafka. The floor is `orjson.loads`
of the same frames.

Below the frames that are made stand those of each venue's documents (`tests/fixtures`), received
again and again. `of_binance` is their rows per second against frames of Binance's with as many
rows. `read_by` says who reads them: the compiled library where the venue declares the text, or
Python, and how they are packed. Python takes ten times as long. It reads what no shape can say:

- frames that are packed (gzip, protobuf);
- frames that name their symbol behind their numbers, inside a longer word, or by a number of the
  connection: Bitfinex, bitFlyer, Bitstamp, Bullish, Deribit, Gate's books, KuCoin, Lighter,
  WhiteBIT, books of Phemex and WOO X;
- signed and scaled numbers, levels of both sides in one object, keyed by id or by price: Gate's
  futures, MEXC's futures, Phemex's other markets, books of BitMEX, Upbit and Bithumb;
- times in microseconds or with fractions: Backpack, Gate's spot trades;
- frames whose meaning depends on those before: Gemini, trades of Hyperliquid and WhiteBIT.
"""

from __future__ import annotations

import gc
import time
from typing import Any, Protocol

import orjson

from benchmarks.harness.fixture_frames import FixtureFrames, fixture_frames
from benchmarks.harness.frames import SHAPES, Connections, Shape, binance_book, receive, table
from ingestor.app.ingestor import GC_THRESHOLDS
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass

BATCH_ROWS = 2_000
_TRADE = SHAPES[0]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    made = [Case(MadeFrames(shape)) for shape in SHAPES]
    venues = [(Case(frames), _reference(frames)) for frames in fixture_frames()]
    references = {shape: Case(MadeFrames(shape)) for _, shape in venues}
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as the ingestor does
    others = [*references.values(), *(case for case, _ in venues)]
    for turn in range(20 if quick else 80):
        for case in [*made, *(others if turn % 4 == 0 else ())]:
            case.turn()
    by_name = {case.name: case.result() for case in made}
    results = list(by_name.values())
    for case, shape in venues:
        ratio = references[shape].best_ns / case.best_ns
        results.append(case.result() | {"of_binance": round(ratio, 2)})
    slow = [row for row in results if row["of_binance"] and row["of_binance"] < 0.5]
    return {
        "results": results,
        "headline": {
            "decode_trades_per_s": by_name["binance trade"]["rows_per_s"],
            "decode_levels_per_s": by_name["binance book20"]["rows_per_s"],
            "decode_slow_in_library": sum(row["read_by"] == LIBRARY for row in slow),
        },
    }


LIBRARY = "library"


def _reference(frames: FixtureFrames) -> Shape:
    """Return Binance's frames of as many rows."""
    if frames.row_class is RowClass.TRADE:
        return _TRADE
    return binance_book(round(frames.rows / len(frames.frames)))


class Frames(Protocol):
    """Frames of one market, to be received again and again. rows: of all frames."""

    @property
    def venue(self) -> str: ...
    @property
    def market(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def table(self) -> InstrumentTable: ...
    @property
    def setup(self) -> list[bytes]: ...
    @property
    def frames(self) -> list[bytes]: ...
    @property
    def rows(self) -> int: ...
    @property
    def packed(self) -> str: ...


class MadeFrames:
    """Frames that a shape makes."""

    packed = ""

    def __init__(self, shape: Shape) -> None:
        self.venue, self.market, self.name = shape.venue, shape.market, shape.name
        self.table = table([shape])
        self.setup: list[bytes] = []
        self.frames = shape.frames(max(BATCH_ROWS // shape.rows, 1))
        self.rows = len(self.frames) * shape.rows


class Case:
    """Frames of one kind. Of all turns, which are spread over the whole run, the best counts."""

    def __init__(self, frames: Frames) -> None:
        self.name, self._packed = frames.name, frames.packed
        self._instruments, self._setup = frames.table, frames.setup
        self._connections = Connections(frames, frames.table)
        times = max(1, BATCH_ROWS // frames.rows)
        self._frames, self._rows = frames.frames * times, frames.rows * times
        self._best_s = self._floor_s = float("inf")

    @property
    def best_ns(self) -> float:
        """The time of one row."""
        return self._best_s / self._rows * 1e9

    def turn(self) -> None:
        """Decode and seal one batch on a session of its own."""
        session, ts_recv = self._connections.open(), time.time_ns()
        frame_queue, buffer = self._connections.frame_queue, self._connections.buffer
        receive(frame_queue, session, self._setup, ts_recv)
        buffer.seal(self._instruments)
        rejected = frame_queue.counts.rejected
        fresh = [bytes(memoryview(frame)) for frame in self._frames]
        start = time.process_time()
        if not self._packed:
            for frame in fresh:
                orjson.loads(frame)
        parsed = time.process_time()
        receive(frame_queue, session, fresh, ts_recv)
        rows = buffer.seal(self._instruments).rows
        sealed = time.process_time()
        self._floor_s = min(self._floor_s, parsed - start)
        self._best_s = min(self._best_s, sealed - parsed)
        if rows != self._rows or frame_queue.counts.rejected > rejected:
            raise RuntimeError(f"{self.name}: {rows} of {self._rows} rows, {frame_queue.counts}")

    def result(self) -> dict[str, Any]:
        """Return the row of the table."""
        taken = sum(self._connections.frame_queue.counts.by_shape().values())
        reader = LIBRARY if taken else "Python"
        return {
            "frames": self.name,
            "frames_per_s": round(len(self._frames) / self._best_s),
            "rows_per_s": round(self._rows / self._best_s),
            "ns_per_row": round(self.best_ns),
            "over_orjson": None if self._packed else round(self._best_s / self._floor_s, 2),
            "of_binance": None,
            "read_by": f"{reader}, {self._packed}" if self._packed else reader,
        }
