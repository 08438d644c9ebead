"""Publishing alone: sealed rows -> Kafka and back, by class and encoding, on one core.

Measured: the sink (split by partition, queue, encode, lz4, produce requests, acks) against the
embedded broker in a process of its own, at full speed and at light load; then the consumer that
reads the same records back, and the same into an Arrow table. CPU is this process's. Not measured:
sockets, decoding, books.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
import uvloop

from ingestor.codec import ENCODINGS
from ingestor.consumer import EARLIEST, Consumer
from ingestor.history.frames import to_arrow
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Flag, Rows, Side
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.testbed.broker import DevBroker

INSTRUMENTS: Final = 200
PARTITIONS: Final = 8
BATCH_ROWS: Final = 2_000
LEVELS_PER_EVENT: Final = 20
QUEUE_ROWS_MAX: Final = 40_000  # what may wait: the bench offers no more than the sink takes
LIGHT_FLUSHES: Final = 100
LIGHT_FLUSHES_PER_S: Final = 200
LIGHT_ROWS: Final = 10
_START_NS: Final = 1_760_000_000_000_000_000


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return {"results": [...], "headline": {...}}; see docs/benchmarks.md."""
    total = 100_000 if quick else 400_000
    names = {
        f"{one}.{row_class.topic}": PARTITIONS
        for one in ENCODINGS
        for row_class in STANDARD_CLASSES
    }
    with DevBroker(names) as broker:
        results = [
            uvloop.run(_measure(broker.bootstrap_servers, encoding, row_class, total))
            for encoding in ENCODINGS
            for row_class in STANDARD_CLASSES
        ]
    rate = {(row["encoding"], row["class"]): row["rows_per_s"] for row in results}
    return {
        "results": results,
        "headline": {
            "publish_json_trades_per_s": rate["json", "trade"],
            "publish_binary_trades_per_s": rate["binary", "trade"],
        },
    }


async def _measure(
    bootstrap: str, encoding: str, row_class: RowClass, total: int
) -> dict[str, Any]:
    table = _instruments()
    settings = KafkaSettings(
        bootstrap,
        topic_prefix=f"{encoding}.",
        encoding=encoding,
        partitions=PARTITIONS,
        create_topics=False,
    )
    sink = KafkaSink(settings, table, _NoCounts(), session=os.urandom(16))
    running = asyncio.create_task(sink.run())
    await sink.wait_connected(10)
    wall_s, cpu_s = await _saturate(sink, TickBatch(row_class, _rows(row_class), table), total)
    light = TickBatch(row_class, _rows(row_class)[:LIGHT_ROWS], table)
    light_cpu_s = await _trickle(sink, light)
    await sink.close()
    with suppress(asyncio.CancelledError):
        await running
    read, read_cpu_s = await _read(settings, row_class)
    told, told_cpu_s = await _to_arrow(settings, row_class)
    return {
        "encoding": encoding,
        "class": row_class.name.lower(),
        "rows_per_s": round(total / wall_s),
        "cpu_ns_per_row": round(cpu_s / total * 1e9),
        "cpu_us_per_light_flush": round(light_cpu_s * 1e6),
        "read_rows_per_cpu_s": round(read / read_cpu_s),
        "arrow_rows_per_cpu_s": round(told / told_cpu_s),
    }


async def _saturate(sink: KafkaSink, batch: TickBatch, total: int) -> tuple[float, float]:
    """Return (wall seconds, CPU seconds) from the first submit to the last ack."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(total // BATCH_ROWS):
        sink.submit(batch, time.time_ns())
        await asyncio.sleep(0)
        await sink.room(QUEUE_ROWS_MAX)
    if await sink.drain(60):
        raise RuntimeError("the broker did not take all rows")
    return time.perf_counter() - wall, time.process_time() - cpu


async def _trickle(sink: KafkaSink, batch: TickBatch) -> float:
    """Return the CPU seconds of one small flush."""
    cpu = time.process_time()
    for _ in range(LIGHT_FLUSHES):
        sink.submit(batch, time.time_ns())
        await asyncio.sleep(1 / LIGHT_FLUSHES_PER_S)
    await sink.drain(10)
    return (time.process_time() - cpu) / LIGHT_FLUSHES


async def _read(settings: KafkaSettings, row_class: RowClass) -> tuple[int, float]:
    """Return (rows, CPU seconds) of reading what the broker still holds: 5 MiB a partition."""
    cpu = time.process_time()
    rows = sum([len(batch) async for batch in _batches(settings, row_class)])
    return rows, time.process_time() - cpu


async def _to_arrow(settings: KafkaSettings, row_class: RowClass) -> tuple[int, float]:
    """Return (rows, CPU seconds) of reading the same into a table of decimals and UTC times.

    The first table of a process loads Arrow's kernels, whatever its size: it comes before.
    """
    to_arrow([TickBatch(row_class, _rows(row_class), _instruments())], row_class)
    cpu = time.process_time()
    batches = [batch async for batch in _batches(settings, row_class)]
    table = to_arrow(batches, row_class)
    return table.num_rows, time.process_time() - cpu


async def _batches(settings: KafkaSettings, row_class: RowClass) -> AsyncIterator[TickBatch]:
    async with Consumer(
        settings.bootstrap_servers,
        settings.tick_topic(row_class),
        start=EARLIEST,
        stop_at_end=True,
    ) as consumer:
        async for batch in consumer:
            yield batch


def _instruments() -> InstrumentTable:
    return InstrumentTable(
        instrument("acme", "spot", f"C{n}-USDT", f"C{n}-USDT", f"C{n}", "USDT", "0.01", "0.00001")
        for n in range(INSTRUMENTS)
    )


def _rows(row_class: RowClass) -> Rows:
    """BATCH_ROWS rows of random prices and sizes; book rows in events of LEVELS_PER_EVENT."""
    random = np.random.default_rng(1)
    rows = np.zeros(BATCH_ROWS, row_class.dtype)
    number = np.arange(BATCH_ROWS)
    if row_class is RowClass.LEVEL:
        place = number % LEVELS_PER_EVENT
        rows["side"] = np.where(place < LEVELS_PER_EVENT // 2, Side.BID, Side.ASK)
        rows["flags"] = np.where(place == LEVELS_PER_EVENT - 1, Flag.LAST, 0)
        number //= LEVELS_PER_EVENT
    else:
        rows["flags"] = Flag.LAST
        rows["side"] = Side.BID if row_class is RowClass.TRADE else Side.NONE
    rows["kind"] = row_class.id
    rows["instrument"] = random.permutation(INSTRUMENTS)[number % INSTRUMENTS]
    rows["sequence"] = 5_000_000_000 + number
    rows["ts_event"] = _START_NS + number * 1_000
    rows["ts_recv"] = rows["ts_event"] + 5_000_000
    for field in (rows.dtype.names or ())[7:]:
        if field != "trade_id_high":  # decimal ids; a UUID costs a few hundred ns more in JSON
            rows[field] = random.integers(1, 10_000_000, BATCH_ROWS)
    return rows


class _NoCounts:
    """A ledger that nobody reads."""

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None: ...
    def conflated(self, row_class: RowClass, rows: Rows) -> None: ...
    def shed(self, row_class: RowClass, rows: Rows) -> None: ...
    def dead_lettered(self, row_class: RowClass, rows: Rows) -> None: ...
    def fenced(self, row_class: RowClass, rows: Rows) -> None: ...
    def declared(self, row_class: RowClass, rows: Rows) -> None: ...
