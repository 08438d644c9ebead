"""The last trade and quote of each instrument: for the topic `last`, the status port, and Redis.

Rows are noted as they are flushed. Whoever publishes them takes what changed at an interval, so
many changes between two of them are one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import orjson

from ingestor.codec.json_encoder import row_values
from ingestor.kafka.settings import LAST
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass, is_control
from ingestor.model.rows import Rows
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sinks.changes import Changes

SLICE: Final = 64  # records made between two turns of the loop
PAUSE_S: Final = 0.02
_MILLISECOND_NS: Final = 1_000_000
_FIELDS: Final = {RowClass.TRADE: "trade", RowClass.QUOTE: "quote"}


class LastSink(Protocol):
    """Take records of the topic; `KafkaSink` is one."""

    session: bytes

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        """Queue one record.

        Args:
            topic: Name of the topic without the prefix.
            key: Key of the record.
            value: Value of the record.
            ts_ms: Time of the record in ms since the epoch.
        """


@dataclass(slots=True)
class _Last:
    """The last rows of one instrument, each with the number of its instrument's revision."""

    trade: tuple[np.void, int] | None = None
    quote: tuple[np.void, int] | None = None


class LastValues:
    """Keeps the last rows by instrument key."""

    def __init__(self, table: InstrumentTable) -> None:
        """Args:
        table: The instruments of all plans.
        """
        self._table = table
        self._last: dict[str, _Last] = {}
        self._changes: list[Changes] = []

    def changes(self) -> Changes:
        """Return what changes from here on, and all that there is now."""
        changes = Changes(self._last)
        self._changes.append(changes)
        return changes

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Note the last trade and quote of each instrument. A GAP ends what is known of a quote."""
        for batch in result.batches:
            self._observe(batch)

    def _observe(self, batch: TickBatch) -> None:
        name = _FIELDS.get(batch.row_class)
        if name is None:
            return
        rows = batch.rows
        if batch.row_class is RowClass.TRADE:
            rows = rows[~is_control(rows)]
        numbers = rows["instrument"].tolist()
        for number, index in dict(zip(numbers, range(len(rows)), strict=True)).items():
            self._note(name, rows[index : index + 1], number)

    def _note(self, name: str, rows: Rows, number: int) -> None:
        key = self._table[number].key
        last = self._last.get(key)
        if last is None:
            last = self._last[key] = _Last()
        row = rows.copy()[0]  # a view would keep the whole batch
        setattr(last, name, None if is_control(rows)[0] else (row, number))
        for changes in self._changes:
            changes.add(key)

    def record(self, key: str) -> dict[str, Any] | None:
        """Return an instrument's last trade and quote as JSON types, None where there is none."""
        last = self._last.get(key)
        if last is None:
            return None
        return {
            "key": key,
            "trade": self._values(RowClass.TRADE, last.trade),
            "quote": self._values(RowClass.QUOTE, last.quote),
        }

    def _values(
        self, row_class: RowClass, found: tuple[np.void, int] | None
    ) -> dict[str, Any] | None:
        if found is None:
            return None
        row, number = found
        one = self._table[number]
        return {
            "ts_event": int(row["ts_event"]),
            "ts_recv": int(row["ts_recv"]),
            "sequence": int(row["sequence"]),
            "flags": int(row["flags"]),
            **row_values(row_class, row, one.price_exponent, one.size_exponent),
        }


class LastValuePublisher:
    """Publishes what changed to the topic `last`, a few records at a time."""

    def __init__(self, last: LastValues, sink: LastSink, interval_s: float) -> None:
        """Args:
        last: The values.
        sink: Takes the records. What it has no room for it drops and counts.
        interval_s: Between two records of one instrument.
        """
        self.changes = last.changes()
        self.written = 0
        self._last = last
        self._sink = sink
        self._interval_s = interval_s

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            for number, key in enumerate(self.changes.take(len(self.changes)), start=1):
                self.publish(key)
                if number % SLICE == 0:
                    await asyncio.sleep(PAUSE_S)

    def publish(self, key: str) -> None:
        """Publish one instrument's values."""
        found = self._last.record(key)
        if found is None:
            return
        now_ns = time.time_ns()
        record = {**found, "session": self._sink.session.hex(), "ts": now_ns}
        value = orjson.dumps(record)
        self.written += 1
        self._sink.publish(LAST, key.encode(), value, ts_ms=now_ns // _MILLISECOND_NS)


class Writer(Protocol):
    """Writes last values to a place of its own; `RedisWriter` is one."""

    counts: Counter[str]
    changes: Changes

    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LastValueParts:
    """The parts of one process. redis: None where it is not configured."""

    values: LastValues
    topic: LastValuePublisher
    redis: Writer | None = None

    def tasks(self) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
        """Yield unit and task of each part that runs."""
        yield "last values", self.topic.run
        if self.redis is not None:
            yield "redis", self.redis.run

    def counts(self) -> dict[tuple[str, str], int]:
        """Return what became of changes, by place and outcome."""
        found = {
            ("topic", "written"): self.topic.written,
            ("topic", "replaced"): self.topic.changes.replaced,
        }
        if self.redis is not None:
            found |= {("redis", outcome): count for outcome, count in self.redis.counts.items()}
            found["redis", "replaced"] = self.redis.changes.replaced
        return found
