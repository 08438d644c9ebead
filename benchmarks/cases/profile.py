"""Where a row's time goes: the stages of its life, one by one, on one core, by both ways.

Measured: CPU time of each stage for the same rows, the least of many short turns of 4,000 rows, in
a process with nothing else around it; `compiled` with the library, `python` without it. Frames have
Binance's form; a read brings 64 KiB of them, and 8 partitions get the rows.
- read: a full socket, 64 KiB at a time, and nothing else.
- decode: websocket frames of a read to rows (compiled), or to what is kept until sealing (python).
- seal: rows from what was taken or kept, in the order of their frames.
- follow: rows that were sent again, jumps of trade numbers.
- count: counters by feed, the four lags, who spoke last.
- queue: split by partition, into the queue of each and out again.
- records, batches: a record batch for each partition, LZ4 and CRC32C, in both encodings.
Not measured: books (`books`), requests and acks (`publish`), waking up (`floor`). What `throughput`
costs beyond the sum is those, and that everything shares the processor's cache there.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import orjson

from benchmarks.harness.frames import SHAPES, SYMBOLS, Connections, receive, table
from benchmarks.harness.processes import ROOT
from ingestor.adapter import TradeNumbers
from ingestor.codec import encoder, headers
from ingestor.decode.frame_queue import take_reads
from ingestor.kafka.aiokafka_compat import DefaultRecordBatchBuilder, use_fast_compression
from ingestor.kafka.lz4_frames import frame_of
from ingestor.kafka.partitions import Partitions
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.native import crc32c
from ingestor.native.library import VARIABLE
from ingestor.pipeline.resent_rows import ResentRows
from ingestor.pipeline.trade_gaps import TradeGaps
from ingestor.sinks.kafka.batch_maker import json_batches_of
from ingestor.sinks.kafka.queue import PartitionQueue
from ingestor.sinks.kafka.record_batch import record_batch
from ingestor.telemetry.metrics import Metrics

ROWS: Final = 4_000
PARTITIONS: Final = 8
READ_BYTES: Final = 64 << 10
WAYS: Final = {"compiled": "", "python": "off"}
_LZ4, _MAGIC, _BATCH_BYTES = 3, 2, 1 << 20
# The stages of a row in each encoding, in order; together they are its way to a record batch.
PATH: Final = ("read", "decode", "seal", "follow", "count", "queue")
STAGES: Final = {
    "read": "read",
    "decode": "decode",
    "seal": "seal",
    "follow": "follow numbers",
    "count": "count",
    "queue": "queue by partition",
    "json": "records and batches, JSON",
    "binary": "records and batches, binary",
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}."""
    read_ns = _read_ns(0.7 if quick else 3.0)
    turns = 30 if quick else 150
    by_way = {way: {"read": read_ns, **_measured(way, turns)} for way in WAYS}
    results = [
        {"stage": text, **{f"{way}_ns": round(by_way[way][name]) for way in WAYS}}
        for name, text in STAGES.items()
    ]
    headline = {}
    for way, suffix in (("compiled", ""), ("python", "_in_python")):
        for encoding in ("json", "binary"):
            whole_ns = sum(by_way[way][name] for name in (*PATH, encoding))
            headline[f"profile_trade_ns_{encoding}{suffix}"] = round(whole_ns)
    return {"results": results, "headline": headline}


def _measured(way: str, turns: int) -> dict[str, float]:
    """Return ns per row of each stage but the first, measured in a process of its own."""
    command = [sys.executable, "-m", __name__, f"{turns}"]
    environment = {**os.environ, VARIABLE: WAYS[way]}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    measured: dict[str, float] = orjson.loads(ended.stdout)
    return measured


class Stopwatch:
    """CPU seconds of each stage: the least of all turns."""

    def __init__(self) -> None:
        self.best_s: dict[str, float] = {}
        self._since_s = 0.0

    def start(self) -> None:
        self._since_s = time.process_time()

    def lap(self, stage: str) -> None:
        """End a stage, start the next."""
        now_s = time.process_time()
        taken_s = now_s - self._since_s
        self.best_s[stage] = min(self.best_s.get(stage, taken_s), taken_s)
        self._since_s = time.process_time()


def measure(turns: int) -> dict[str, float]:
    """Return ns per row of each stage but the first, by the way that this process has."""
    use_fast_compression()
    life = _Life()
    gc.collect()
    gc.disable()  # as good as what the program does: it raises the thresholds
    try:
        for _ in range(turns):
            life.turn()
    finally:
        gc.enable()
    return {name: seconds / ROWS * 1e9 for name, seconds in life.watch.best_s.items()}


class _Life:
    """The life of one batch of trades, as often as wanted."""

    def __init__(self) -> None:
        [shape] = [one for one in SHAPES if one.name == "binance trade"]
        self.watch = Stopwatch()
        self._table = table([shape])
        self._payloads = shape.frames(ROWS)
        whole = b"".join(map(_framed, self._payloads))
        self._reads = [whole[at : at + READ_BYTES] for at in range(0, len(whole), READ_BYTES)]
        self._connections = Connections(shape, self._table)
        self._partitions = Partitions(self._table, PARTITIONS)
        self._queues = [PartitionQueue(RowClass.TRADE, number) for number in range(PARTITIONS)]
        self._metrics = Metrics(self._table)
        self._records = {name: _Records(name, self._table) for name in ("json", "binary")}

    def turn(self) -> None:
        """Take a batch through all stages."""
        watch, connections = self.watch, self._connections
        now_ns = time.time_ns()
        watch.start()
        self._decode(now_ns)
        watch.lap("decode")
        sealed = connections.buffer.seal(self._table)
        watch.lap("seal")
        rows = sealed.trades
        counts = connections.frame_queue.counts
        if len(rows) != ROWS or counts.rejected:
            raise RuntimeError(f"{len(rows)} rows of {ROWS}, {counts}")
        resent, gaps = ResentRows(self._table), TradeGaps(self._table, _consecutive)
        rows["sequence"] = self._numbers()  # all symbols in turn, each without a hole
        gaps.take(rows[:SYMBOLS])
        watch.start()
        rows, _ = gaps.take(resent.drop(rows[SYMBOLS:])[0])
        watch.lap("follow")
        self._count(rows, now_ns)
        watch.lap("count")
        parts = self._through_queues(rows, now_ns)
        watch.lap("queue")
        for name, records in self._records.items():
            records.make(parts)
            watch.lap(name)

    def _decode(self, now_ns: int) -> None:
        connections = self._connections
        session = connections.open()
        take = take_reads(connections.frame_queue, lambda: None)
        if take is None:
            receive(connections.frame_queue, session, self._payloads, now_ns)
            return
        rest = b""
        for read in self._reads:
            data = rest + read
            rest = data[take(session, data, 0, READ_BYTES, now_ns) :]

    def _count(self, rows: Rows, now_ns: int) -> None:
        metrics = self._metrics
        metrics.count_rows(("decoded", "published"), RowClass.TRADE, rows["instrument"])
        metrics.sealed(RowClass.TRADE, rows, now_ns + 1_000_000)
        metrics.acked(RowClass.TRADE, rows, now_ns + 5_000_000, now_ns + 1_000_000)
        metrics.settle()

    def _through_queues(self, rows: Rows, now_ns: int) -> list[Rows]:
        for partition, part in self._partitions.split(rows):
            self._queues[partition].put(part, now_ns)
        return [queue.take(ROWS)[0] for queue in self._queues if queue.rows]

    def _numbers(self) -> Sequence[int]:
        return [1 + place // SYMBOLS for place in range(ROWS)]


class _Records:
    """Makes record batches of rows in one encoding, as the sink does."""

    def __init__(self, encoding: str, instruments: InstrumentTable) -> None:
        settings = KafkaSettings(bootstrap_servers="", encoding=encoding, compression="lz4")
        self._encoder = encoder(encoding, instruments, bytes(16))
        self._headers = headers(RowClass.TRADE, encoding)
        by_class = {RowClass.TRADE: self._headers}
        self._batches = json_batches_of(settings, self._encoder, instruments, by_class)

    def make(self, parts: Sequence[Rows]) -> None:
        if self._batches is None:
            numbered = [(part, 0) for part in parts]
            for records in self._encoder.encode_parts(RowClass.TRADE, numbered):
                builder = DefaultRecordBatchBuilder(_MAGIC, _LZ4, 0, 1, 0, 0, _BATCH_BYTES)
                for number, (key, value, ts_ms, _) in enumerate(records):
                    builder.append(number, ts_ms, key, value, self._headers)
                builder.build()
            return
        for part in parts:
            found = self._batches.write(RowClass.TRADE, part, 0, _BATCH_BYTES, lz4=True)
            if found is None:
                raise RuntimeError("the library writes no records")
            written, _ = found
            record_batch(frame_of(written.data), written.records, _LZ4, 1, 1, 1, 0, 0, crc32c)


def _consecutive(_instrument: int) -> TradeNumbers:
    return TradeNumbers.CONSECUTIVE


def _framed(payload: bytes) -> bytes:
    """Return a websocket frame, as a server sends it. payload: 126 bytes or more."""
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


def _read_ns(seconds: float) -> float:
    """Return CPU ns for each frame of a loop that reads a full socket, and nothing else."""
    [shape] = [one for one in SHAPES if one.name == "binance trade"]
    whole = b"".join(map(_framed, shape.frames(ROWS)))
    frame_bytes = len(whole) / ROWS
    with socket.create_server(("127.0.0.1", 0)) as server:
        writer = multiprocessing.get_context("spawn").Process(
            target=_write, args=(server.getsockname(), whole), daemon=True
        )
        writer.start()
        try:
            connected, _ = server.accept()
            with connected:
                windows = [_read_for(connected.fileno(), seconds / 3) for _ in range(3)]
        finally:
            writer.kill()
            writer.join()
    return min(windows) * frame_bytes * 1e9


def _read_for(descriptor: int, seconds: float) -> float:
    """Return the CPU seconds of a byte."""
    size, until_s, before_s = 0, time.monotonic() + seconds, time.process_time()
    while time.monotonic() < until_s:
        size += len(os.read(descriptor, READ_BYTES))
    return (time.process_time() - before_s) / size


def _write(address: tuple[str, int], data: bytes) -> None:
    with socket.create_connection(address) as connection, suppress(OSError):
        while True:
            connection.sendall(data)


if __name__ == "__main__":
    print(orjson.dumps(measure(int(sys.argv[1]))).decode())
