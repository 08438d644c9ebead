"""Rows and ledgers for the tests of codecs, queues and Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import ABSENT, LEVEL, QUOTE, TRADE, Flag, Kind, Rows, Side

START_NS = 1_700_000_000_000_000_000


def table_of(count: int = 12) -> InstrumentTable:
    """Instruments of many keys, hence many partitions, with exponents 0 to 8."""
    return InstrumentTable(
        instrument(
            "acme",
            "spot",
            f"S{number}USDT",
            f"S{number}-USDT",
            f"S{number}",
            "USDT",
            f"1e-{number % 9}",
            f"1e-{(number * 5) % 9}",
        )
        for number in range(count)
    )


def trades(count: int, *, first: int = 1, instruments: int = 12) -> Rows:
    """Trades numbered from `first` in their `sequence`, over the instruments in turn."""
    rows = np.zeros(count, TRADE)
    number = np.arange(first, first + count)
    _head(rows, number, number % instruments, Kind.TRADE)
    rows["side"] = number % 2 + 1
    rows["price"], rows["size"] = number * 7 + 1, number * 3
    rows["trade_id_low"] = number
    return rows


def quotes(count: int, *, first: int = 1, instruments: int = 12) -> Rows:
    rows = np.zeros(count, QUOTE)
    number = np.arange(first, first + count)
    _head(rows, number, number % instruments, Kind.QUOTE)
    rows["bid_price"], rows["ask_price"] = number, number + 1
    rows["bid_size"], rows["ask_size"] = number * 2, number * 4
    return rows


def levels(
    events: int, *, first: int = 1, instruments: int = 12, row_class: RowClass = RowClass.LEVEL
) -> Rows:
    """Events of three levels each: two bids, one ask."""
    rows = np.zeros(3 * events, LEVEL)
    event = np.repeat(np.arange(first, first + events), 3)
    _head(rows, event, event % instruments, Kind(row_class.id))
    rows["flags"] = np.tile([0, 0, Flag.LAST], events)
    rows["side"] = np.tile([Side.BID, Side.BID, Side.ASK], events)
    rows["price"] = event * 10 + np.tile([2, 1, 3], events)
    rows["size"] = event
    return rows


def others(row_class: RowClass, count: int, *, first: int = 1, instruments: int = 12) -> Rows:
    """Rows of a class without a function of its own; each second one lacks what may be absent."""
    rows = np.zeros(count, row_class.dtype)
    number = np.arange(first, first + count)
    _head(rows, number, number % instruments, Kind(row_class.id))
    for place, name in enumerate(row_class.fields):
        if name in row_class.names:
            rows[name] = number % len(row_class.names[name])
        elif name == "exponent":
            rows[name] = number % 12
        else:
            rows[name] = number * (place + 2)
        if name in row_class.optional:
            rows[name][::2] = ABSENT
    return rows


MAKERS: dict[RowClass, Callable[..., Rows]] = {
    row_class: partial(levels, row_class=row_class)
    if row_class.has_levels
    else partial(others, row_class)
    for row_class in ROW_CLASSES
} | {RowClass.TRADE: trades, RowClass.QUOTE: quotes}


def _head(rows: Rows, number: np.ndarray, instrument: np.ndarray, kind: Kind) -> None:
    rows["ts_event"] = START_NS + number * 1_000
    rows["ts_recv"] = rows["ts_event"] + 500
    rows["sequence"] = number
    rows["instrument"] = instrument
    rows["flags"] = Flag.LAST
    rows["kind"] = kind


def by_key(batches: list[TickBatch]) -> dict[str, list[tuple[object, ...]]]:
    """Every row in order under its instrument's key, without the number of the instrument."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for batch in batches:
        names = [name for name in batch.rows.dtype.names or () if name != "instrument"]
        for number, row in zip(
            batch.rows["instrument"].tolist(), batch.rows[names].tolist(), strict=True
        ):
            found.setdefault(batch.instruments[number].key, []).append(row)
    return found


class Ledger:
    """SinkCounts that counts rows, and keeps those that were acked."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kept: list[tuple[RowClass, Rows]] = []

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None:
        self.counts["acked"] += len(rows)
        self.kept.append((row_class, rows.copy()))

    def conflated(self, row_class: RowClass, rows: Rows) -> None:
        self.counts["conflated"] += len(rows)

    def shed(self, row_class: RowClass, rows: Rows) -> None:
        self.counts["shed"] += len(rows)

    def dead_lettered(self, row_class: RowClass, rows: Rows) -> None:
        self.counts["dead_lettered"] += len(rows)

    def fenced(self, row_class: RowClass, rows: Rows) -> None:
        self.counts["fenced"] += len(rows)

    def declared(self, row_class: RowClass, rows: Rows) -> None:
        self.counts["declared"] += len(rows)

    def unexplained(self, rows_in: int, pending: int) -> int:
        counts = self.counts
        out = ("acked", "conflated", "shed", "dead_lettered", "fenced")
        settled = sum(counts[name] for name in out)
        return rows_in + counts["declared"] - settled - pending
