"""Ranges of topics, read from a broker that finds no records by time."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from ingestor import history
from ingestor.codec import encoder
from ingestor.model.errors import ConfigError
from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import table_of, trades

COUNT = 40


async def test_a_range_where_the_broker_knows_no_times() -> None:
    rows = trades(COUNT)
    with DevBroker({"md.trades.v1": 1}) as broker:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
            for key, value, ts_ms, _ in encoder("json", table_of(), bytes(16)).encode(
                RowClass.TRADE, rows, 0
            ):
                await producer.send_and_wait("md.trades.v1", value, key, timestamp_ms=ts_ms)
        times = rows["ts_recv"].tolist()
        url = f"kafka://{broker.bootstrap_servers}/md."

        async def read(**chosen: object) -> list[int]:
            topics = history.open(url, kinds=["trades"], **chosen)  # type: ignore[arg-type]
            assert isinstance(topics, history.Readable)
            return [time async for batch in topics for time in batch.rows["ts_recv"].tolist()]  # type: ignore[attr-defined]

        assert sorted(await read()) == times
        assert sorted(await read(start=times[10])) == times[10:]
        assert sorted(await read(start=times[10], end=times[30])) == times[10:30]
        assert await read(start=times[-1] + 1) == []
        with pytest.raises(ConfigError, match="no instrument 'S3USD' is recorded; did you mean S3"):
            await read(symbols=["S3USD"])
