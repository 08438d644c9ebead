"""Rows that are read by columns when the buffer is sealed."""

from __future__ import annotations

from typing import Any

from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealing import set_column
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from tests.fakes.books import Connection


def test_events_of_several_readers_keep_their_order_and_their_rows() -> None:
    """Two venues in one flush: each reader reads its own, rows stay in order of arrival."""

    def read(events: list[int], rows: Rows) -> list[list[Any]]:
        set_column(rows, "sequence", [10 * event for event in events])
        return [[f"{event}.5" for event in events], [None] * len(events), ["1"] * len(events)]

    def read_plainly(events: list[int], rows: Rows) -> list[list[Any]]:
        set_column(rows, "sequence", events)
        return [[str(event) for event in events], [None] * len(events), ["1"] * len(events)]

    table = InstrumentTable([instrument("acme", "spot", "S", "S-USD", "S", "USD", "0.01", "0.001")])
    buffer = ColumnBuffer()
    for number in range(1, 7):
        buffer.begin(Connection([0]), b"")
        reader = read if number % 3 else read_plainly
        buffer.add_row(RowClass.LIQUIDATION, reader, number, 0, number)
    rows = buffer.seal(table).others[RowClass.LIQUIDATION].rows
    assert rows["sequence"].tolist() == [10, 20, 3, 40, 50, 6]
    assert rows["price"].tolist() == [15, 25, 3, 45, 55, 6]
    assert rows["ts_recv"].tolist() == [1, 2, 3, 4, 5, 6]
