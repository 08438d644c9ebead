"""Where a message's time goes: the stages of its life, one by one, on one core.

Measured: CPU time of each stage for the same frames, the least of many short batches of 2,000 rows,
in one process with nothing else around it. Stages that contain others are measured whole, and what
they add is the difference. `floor` marks what the libraries alone cost before anything is encoded.
- socket read: ten saturated connections of a picows client that copies each frame's payload, in a
  process of its own; one read brings many frames. With one frame a read it is what `floor` shows.
  The ingestor's own streams (docs/adr/0018) take the place of it.
- parse: msgspec into a typed struct, which is kept until the batch is complete.
- numbers: decimal texts to scaled int64, exactly and by columns (`ingestor.model.decimals`).
- decode: what frame queue, adapter and buffer add to the parse: order, ledger, look-ups.
- seal: rows from what was kept, numbers included.
- split: by partition of Kafka, 8 of them. encode: rows to records. batch: aiokafka's builder, lz4.
Not measured: books (`books`), sending and acks (`publish`), waking up.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from benchmarks.harness.frames import SHAPES, Connections, Shape, receive, table
from benchmarks.harness.processes import Child, LoadServer
from ingestor.codec import Record, encoder
from ingestor.columns.sealed import Sealed
from ingestor.kafka.aiokafka_compat import DefaultRecordBatchBuilder, use_fast_compression
from ingestor.kafka.partitions import Partitions
from ingestor.model.decimals import parse_column
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows

BATCH_ROWS: Final = 2_000
PARTITIONS: Final = 8
CONNECTIONS: Final = 10
_LZ4, _MAGIC, _BATCH_BYTES = 3, 2, 1 << 20
# The stages of a trade in each encoding, in order; together they are its way to a record batch.
PATH: Final = ("socket read", "parse", "decode", "seal", "split")
FLOORS: Final = ("socket read", "parse", "numbers")
STAGES: Final = {
    "socket read": "socket read: picows, callback into Python, payload copied",
    "orjson": "(for comparison: parse, orjson into dicts)",
    "parse": "parse: msgspec into a typed struct",
    "numbers": "(part of sealing: decimal texts to int64)",
    "decode": "decode: frame queue, adapter and buffer, beyond the parse",
    "seal": "seal",
    "split": "split by partition",
    "encode json": "encode, JSON",
    "batch json": "record batches with lz4, JSON",
    "encode binary": "encode, binary",
    "batch binary": "record batches with lz4, binary",
}


class _Trade(msgspec.Struct, gc=False):
    """The fields of a trade that the adapter needs."""

    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Depth(msgspec.Struct, gc=False):
    s: str
    E: int
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]


_PARSE: Final[dict[str, Callable[[bytes], _Trade | _Depth]]] = {
    "trade": msgspec.json.Decoder(_Trade).decode,
    "book20": msgspec.json.Decoder(_Depth).decode,
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    use_fast_compression()
    trade, book = (one for one in SHAPES if one.name in {"binance trade", "binance book20"})
    batches = 20 if quick else 100
    trade_ns = {"socket read": _socket_ns(0.7 if quick else 3.0), **measure(trade, batches)}
    level_ns = measure(book, batches // 4)
    results = [
        {
            "stage": text,
            "ns_per_trade": _rounded(trade_ns.get(name)),
            "ns_per_level_of_20": _rounded(level_ns.get(name)),
            "floor": "library" if name in FLOORS else "",
        }
        for name, text in STAGES.items()
    ]
    headline = {"profile_floor_ns": round(sum(trade_ns[name] for name in FLOORS))}
    for encoding in ("json", "binary"):
        stages = (*PATH, f"encode {encoding}", f"batch {encoding}")
        headline[f"profile_trade_ns_{encoding}"] = round(sum(trade_ns[name] for name in stages))
    return {"results": results, "headline": headline}


def _rounded(ns: float | None) -> float | str:
    if ns is None:
        return ""
    return round(ns) if ns >= 10 else round(ns, 1)


@dataclass(slots=True)
class Stopwatch:
    """CPU seconds of each stage: the least of all batches."""

    best_s: dict[str, float]
    _since_s: float = 0.0

    def start(self) -> None:
        self._since_s = time.process_time()

    def lap(self, stage: str) -> None:
        """End a stage, start the next."""
        now_s = time.process_time()
        taken_s = now_s - self._since_s
        self.best_s[stage] = min(self.best_s.get(stage, taken_s), taken_s)
        self._since_s = time.process_time()


def measure(shape: Shape, batches: int) -> dict[str, float]:
    """Return ns per row of each stage, for one kind of frame of Binance."""
    instruments = table([shape])
    frames = shape.frames(BATCH_ROWS // shape.rows)
    watch = Stopwatch({})
    gc.collect()
    gc.disable()  # as good as what the program does: it raises the thresholds
    try:
        for _ in range(batches):
            _time_batch(watch, shape, frames, instruments)
    finally:
        gc.enable()
    spent = watch.best_s
    spent["decode"] -= spent["parse"]
    return {name: seconds / BATCH_ROWS * 1e9 for name, seconds in spent.items()}


def _time_batch(
    watch: Stopwatch, shape: Shape, frames: list[bytes], instruments: InstrumentTable
) -> None:
    parse, ts_recv = _PARSE[shape.kind], time.time_ns()
    watch.start()
    for frame in frames:
        orjson.loads(frame)
    watch.lap("orjson")
    kept = [parse(frame) for frame in frames]
    watch.lap("parse")
    del kept

    connections = Connections(shape, instruments, is_compiled=False)
    frame_queue, buffer, session = connections.frame_queue, connections.buffer, connections.open()
    watch.start()
    receive(frame_queue, session, frames, ts_recv)
    watch.lap("decode")
    sealed = buffer.seal(instruments)
    watch.lap("seal")
    if sealed.rows != BATCH_ROWS or frame_queue.counts.rejected:
        raise RuntimeError(f"{shape.name}: {sealed.rows} rows, {frame_queue.counts}")
    _time_numbers(watch, frames, sealed, instruments)
    if shape.kind == "trade":
        _time_records(watch, sealed.trades, instruments)


def _time_numbers(
    watch: Stopwatch, frames: list[bytes], sealed: Sealed, instruments: InstrumentTable
) -> None:
    """Time the conversion alone of the texts in these frames."""
    texts: list[object] = []
    for frame in frames:
        message = orjson.loads(frame)
        levels = (
            [*message["b"], *message["a"]] if "b" in message else [(message["p"], message["q"])]
        )
        texts += [text for level in levels for text in level]
    numbers = np.zeros(BATCH_ROWS, np.int64)
    exponents = np.empty((BATCH_ROWS, 2), np.int64)
    exponents[:, 0] = instruments.price_exponents[numbers]
    exponents[:, 1] = instruments.size_exponents[numbers]
    flat = exponents.ravel()
    watch.start()
    _, bad = parse_column(texts, flat)
    watch.lap("numbers")
    assert not bad, "made frames hold plain numbers"
    assert sealed.rows * 2 == len(texts)


def _time_records(watch: Stopwatch, rows: Rows, instruments: InstrumentTable) -> None:
    partitions = Partitions(instruments, PARTITIONS)
    list(partitions.split(rows[:1]))  # learns where each instrument belongs
    watch.start()
    parts = [part for _, part in partitions.split(rows)]
    watch.lap("split")
    for encoding in ("json", "binary"):
        codec = encoder(encoding, instruments, bytes(16))
        for part in parts:  # what is made once for each instrument
            codec.encode(RowClass.TRADE, part, 0)
        numbered = [(part, 0) for part in parts]
        watch.start()
        encoded = codec.encode_parts(RowClass.TRADE, numbered)
        watch.lap(f"encode {encoding}")
        for records in encoded:
            _build(records)
        watch.lap(f"batch {encoding}")


def _build(records: Sequence[Record]) -> None:
    builder = DefaultRecordBatchBuilder(_MAGIC, _LZ4, 0, 1, 0, 0, _BATCH_BYTES)
    for number, (key, value, ts_ms, _) in enumerate(records):
        builder.append(number, ts_ms, key, value, [])
    builder.build()


def _socket_ns(seconds: float) -> float:
    """Return CPU ns for each frame of a client that reads without looking."""
    with LoadServer(CONNECTIONS, 0.0) as server:
        given = {"url": server.url, "connections": CONNECTIONS, "parse": False}
        with Child("benchmarks.peers.minimum_client", given) as client:
            client.wait_connected(CONNECTIONS)
            windows = [client.window(seconds / 3, 0.3) for _ in range(3)]
    return min(window.us_per("frames") for window in windows) * 1e3
