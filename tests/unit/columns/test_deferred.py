"""Trades that are read by columns when the buffer is sealed."""

from __future__ import annotations

from ingestor.columns.buffer import ColumnBuffer
from ingestor.columns.sealing import set_column
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.rows import Rows
from tests.fakes.books import Connection


def test_events_of_several_readers_keep_their_order_and_their_rows() -> None:
    """Two venues in one flush: each reader reads its own, rows stay in order of arrival."""

    def read(events: list[int], rows: Rows) -> tuple[list[str], list[str]]:
        set_column(rows, "sequence", [10 * event for event in events])
        return [f"{event}.5" for event in events], ["1"] * len(events)

    table = InstrumentTable([instrument("acme", "spot", "S", "S-USD", "S", "USD", "0.01", "0.001")])
    buffer = ColumnBuffer()
    for number in range(1, 7):
        buffer.begin(Connection([0]), b"")
        if number % 3:
            buffer.add_trade(read, number, 0, number)
        else:
            buffer.trade(0, 1, number, number, str(number), "2", 1)
    trades = buffer.seal(table).trades
    assert trades["sequence"].tolist() == [10, 20, 3, 40, 50, 6]
    assert trades["price"].tolist() == [150, 250, 300, 450, 550, 600]
    assert trades["ts_recv"].tolist() == [1, 2, 3, 4, 5, 6]
