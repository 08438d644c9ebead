"""The last rows of each instrument: for the topic `last`, the status port, and Redis.

Of every class but book levels.

Rows are noted as they are flushed. Whoever publishes them takes what changed at an interval, so
many changes between two of them are one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Protocol

import orjson

from ingestor.app.auxiliary_records import AuxiliarySink
from ingestor.codec.json_encoder import row_values
from ingestor.kafka.settings import LAST
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES, RowClass, is_control
from ingestor.model.rows import Kind, Rows, Side
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sinks.changes import Changes

SLICE: Final = 64  # records made between two turns of the loop
PAUSE_S: Final = 0.02
_MILLISECOND_NS: Final = 1_000_000
_FIELDS: Final = {RowClass.TRADE: "trade", RowClass.QUOTE: "quote"}
# Something that happened: it stays the last one after a GAP.
_EVENTS: Final = {
    *(RowClass.TRADE, RowClass.LIQUIDATION, RowClass.CANDLE, RowClass.INSTRUMENT_STATUS),
    RowClass.ORDER,
}
# The fields that tell the last rows of an instrument and class apart.
_KEYS: Final = {
    row_class: tuple(name for name in row_class.key_fields if name != "start_ns")
    for row_class in ROW_CLASSES
    if row_class.key_fields
}


_Named = tuple[str, tuple[int, ...]]  # the kind, and the values of `_KEYS` of the class


@dataclass(slots=True)
class _Last:
    """The last rows of one instrument, each with the number of its instrument's revision."""

    trade: tuple[Rows, int] | None = None
    quote: tuple[Rows, int] | None = None
    others: dict[_Named, tuple[RowClass, Rows, int]] = field(default_factory=dict)


class LastValues:
    """Keeps the last rows by instrument key."""

    def __init__(self, table: InstrumentTable) -> None:
        """Create the last values.

        Args:
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
        """Note the last rows of each instrument. A GAP ends what is known of a state."""
        for batch in result.batches:
            self._observe(batch)

    def _observe(self, batch: TickBatch) -> None:
        row_class, rows = batch.row_class, batch.rows
        if row_class is RowClass.LEVEL:
            return
        if row_class in _EVENTS:
            rows = rows[~is_control(rows)]
        keys = _KEYS.get(row_class, ())
        columns = [rows[name].tolist() for name in ("instrument", *keys)]
        last_of = dict(zip(zip(*columns, strict=True), range(len(rows)), strict=True))
        for (number, *values), index in sorted(last_of.items(), key=itemgetter(1)):
            start = _event_start(rows, index) if row_class.has_levels else index
            found = rows[start : index + 1].copy()  # a view would keep the whole batch
            self._note(row_class, found, number, tuple(values))
            for changes in self._changes:
                changes.add(self._table[number].key)

    def _note(self, row_class: RowClass, rows: Rows, number: int, values: tuple[int, ...]) -> None:
        """Keep the last row, or the rows of the last event.

        Args:
            row_class: their class.
            rows: one, or one event's.
            number: of the instrument.
            values: of the fields that tell rows of the class apart, as open interest by its unit.
        """
        last = self._last.setdefault(self._table[number].key, _Last())
        is_known = rows["kind"][0] == row_class.id or (
            row_class.has_levels and rows["kind"][0] == Kind.RESET
        )
        name = _FIELDS.get(row_class)
        if name is not None:
            setattr(last, name, (rows, number) if is_known else None)
            return
        kind = RowClass.BOOK_TOP.kind_name if row_class.has_levels else row_class.kind_name
        if is_known:
            last.others[kind, values] = (row_class, rows, number)
        else:
            for named in [named for named in last.others if named[0] == kind]:
                del last.others[named]

    def record(self, key: str) -> dict[str, Any] | None:
        """Return an instrument's last values as JSON types, None where there is none.

        `trade` and `quote` are null where there is none; `more` has the other kinds that there are.
        """
        last = self._last.get(key)
        if last is None:
            return None
        more: dict[str, list[dict[str, Any]]] = {}
        for (kind, _), (row_class, rows, number) in sorted(last.others.items()):
            more.setdefault(kind, []).append(self._values(row_class, rows, number))
        trade, quote = last.trade, last.quote
        return {
            "key": key,
            "trade": self._values(RowClass.TRADE, *trade) if trade is not None else None,
            "quote": self._values(RowClass.QUOTE, *quote) if quote is not None else None,
            "more": more,
        }

    def _values(self, row_class: RowClass, rows: Rows, number: int) -> dict[str, Any]:
        row, one = rows[-1], self._table[number]
        exponents = one.price_exponent, one.size_exponent
        header = {name: int(row[name]) for name in ("ts_event", "ts_recv", "sequence", "flags")}
        if not row_class.has_levels:
            return {**header, **row_values(row_class, row, *exponents)}
        sides = {
            name: [
                [*row_values(row_class, level, *exponents).values()]
                for level in rows[(rows["side"] == side) & (rows["kind"] == row_class.id)]
            ]
            for name, side in (("bids", Side.BID), ("asks", Side.ASK))
        }
        return {**header, **sides}


def _event_start(rows: Rows, index: int) -> int:
    """Return where the event begins that ends at `index`."""
    is_other = (rows["ts_recv"] != rows["ts_recv"][index]) | is_control(rows)
    is_other |= rows["instrument"] != rows["instrument"][index]
    before = is_other[:index].nonzero()[0]
    return int(before[-1]) + 1 if len(before) else 0


class LastValuePublisher:
    """Publishes what changed to the topic `last`, a few records at a time."""

    def __init__(self, last: LastValues, sink: AuxiliarySink, interval_s: float) -> None:
        """Create the last value publisher.

        Args:
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

    async def record(self, key: str) -> dict[str, Any] | None:
        """Return what `LastValues.record` returns, to whoever may have to ask elsewhere."""
        return self.values.record(key)

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
