"""A replay waits for Kafka instead of shedding."""

from __future__ import annotations

import asyncio

from ingestor.app.republishing import ROWS_WAITING_MAX, Room
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.sink import KafkaSink
from tests.fakes.rows import Ledger, table_of, trades


async def test_there_is_room_for_so_many_rows() -> None:
    table = table_of()
    sink = KafkaSink(KafkaSettings("127.0.0.1:9"), table, Ledger(), session=bytes(16))
    room = Room(sink)
    assert room.is_set()
    await asyncio.wait_for(room.wait(), 1)
    sink.submit(TickBatch(RowClass.TRADE, trades(ROWS_WAITING_MAX), table), 0)
    assert not room.is_set()
