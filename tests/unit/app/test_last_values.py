"""The last trade and quote of each instrument, and what is published of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest

from ingestor.app.last_values import LastValuePublisher, LastValues
from ingestor.kafka.settings import LAST
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import Cause, Kind
from ingestor.pipeline.pipeline import FlushResult
from tests.fakes.rows import MAKERS, START_NS, levels, quotes, table_of, trades
from tests.fakes.schemas import check

TABLE = table_of()
KEY = TABLE[1].key


def last_of(*batches: tuple[RowClass, Any]) -> LastValues:
    last = LastValues(TABLE)
    for row_class, rows in batches:
        last.observe(FlushResult([TickBatch(row_class, rows, TABLE)]), 0)
    return last


def test_the_last_of_each_instrument_is_kept() -> None:
    last = last_of((RowClass.TRADE, trades(30)), (RowClass.QUOTE, quotes(12)))
    record = last.record(KEY)
    assert record is not None
    assert record["trade"] == {
        "ts_event": START_NS + 25_000,
        "ts_recv": START_NS + 25_500,
        "sequence": 25,
        "flags": 1,
        "side": "sell",
        "price": "17.6",
        "size": "0.00075",
        "trade_id": "25",
    }
    assert record["quote"]["bid_price"] == "0.1"
    assert last.record(TABLE[0].key)["trade"]["sequence"] == 24  # type: ignore[index]
    assert last.record("acme:spot:NONE") is None


def test_a_gap_ends_a_quote_and_no_trade() -> None:
    gaps = [
        control_row(row_class, Kind.GAP, 1, START_NS, cause=Cause.DISCONNECT)
        for row_class in (RowClass.TRADE, RowClass.QUOTE)
    ]
    last = last_of(
        (RowClass.TRADE, np.concatenate([trades(12), gaps[0]])),
        (RowClass.QUOTE, np.concatenate([quotes(12), gaps[1]])),
        (RowClass.LEVEL, levels(3)),
    )
    record = last.record(KEY)
    assert record is not None
    assert record["trade"]["sequence"] == 1
    assert record["quote"] is None
    assert last.record(TABLE[2].key)["quote"] is not None  # type: ignore[index]


@pytest.mark.parametrize(
    "row_class",
    [one for one in ROW_CLASSES if one not in {RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL}],
    ids=lambda one: one.name,
)
def test_every_class_has_its_last_rows(row_class: RowClass) -> None:
    """One for each value that tells them apart; after a GAP those of what happened alone."""
    rows = MAKERS[row_class](60)
    last = last_of((row_class, rows))
    record = last.record(KEY)
    assert record is not None
    [(kind, found)] = record["more"].items()
    own = rows[rows["instrument"] == 1]
    fields = [name for name in row_class.key_fields if name != "start_ns"]
    if row_class.has_levels:
        assert kind == "book_top"
        assert [[len(one["bids"]), len(one["asks"])] for one in found] == [[2, 1]]
    else:
        assert kind == row_class.kind_name
        assert len(found) == len({tuple(row) for row in own[fields].tolist()}) if fields else 1
    assert max(one["ts_recv"] for one in found) == own["ts_recv"].max()
    gap = control_row(row_class, Kind.GAP, 1, START_NS, cause=Cause.DISCONNECT)
    again = last_of((row_class, np.concatenate([rows, gap]))).record(KEY)
    assert again is not None
    happened = {"liquidation", "candle", "instrument_status", "order"}
    assert again["more"] == (record["more"] if kind in happened else {})
    after = last_of((row_class, np.concatenate([rows, gap, own[-3:]]))).record(KEY)
    assert after is not None
    assert after["more"][kind]


def test_a_top_without_levels() -> None:
    reset = control_row(RowClass.BOOK_TOP, Kind.RESET, 1, START_NS)
    record = last_of((RowClass.BOOK_TOP, reset)).record(KEY)
    assert record is not None
    [found] = record["more"]["book_top"]
    assert (found["bids"], found["asks"], found["ts_recv"]) == ([], [], START_NS)


class Kept:
    session = bytes(16)

    def __init__(self) -> None:
        self.records: defaultdict[bytes | None, list[bytes]] = defaultdict(list)

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        assert topic == LAST
        assert ts_ms > 0
        self.records[key].append(value)


async def test_what_changed_is_published_once_an_interval() -> None:
    last, kept = last_of((RowClass.TRADE, trades(12))), Kept()
    publisher = LastValuePublisher(last, kept, 0.05)
    for first in range(1, 100):
        last.observe(
            FlushResult([TickBatch(RowClass.TRADE, trades(1, first=first, instruments=1), TABLE)]),
            0,
        )
    task = asyncio.create_task(publisher.run())
    await asyncio.sleep(0.5)
    assert {len(values) for values in kept.records.values()} == {1}
    assert len(kept.records) == publisher.written == 12
    assert publisher.changes.replaced == 99
    [value] = kept.records[TABLE[0].key.encode()]
    assert orjson.loads(value)["trade"]["sequence"] == 99
    last.observe(FlushResult([TickBatch(RowClass.QUOTE, quotes(1), TABLE)]), 0)
    await asyncio.sleep(0.3)
    assert len(kept.records[KEY.encode()]) == 2
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    values = [value for values in kept.records.values() for value in values]
    assert len(check(LAST, values)) == 13
