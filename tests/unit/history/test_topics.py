"""Ranges of topics, read from a broker that finds no records by time."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import orjson
import polars as pl
import pytest
from aiokafka import AIOKafkaProducer

from ingestor import history
from ingestor.codec import encoder
from ingestor.model.errors import ConfigError
from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import START_NS, table_of, trades
from tests.unit.consumer.test_consumer import publish, values_of

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
        assert await read(start={("md.trades.v1", 0): COUNT - 3}) == times[-3:]
        assert await read(end={("md.trades.v1", 0): 2}) == times[:2]
        zoned = datetime.fromtimestamp(START_NS // 10**9 + 3_600, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        assert sorted(await read(start=f"{zoned}+01:00")) == times
        assert await read(start=f"{zoned}Z") == []
        with pytest.raises(ConfigError, match="offsets are of topics"):
            history.open(".", start={("md.trades.v1", 0): 1})


async def test_frames_of_topics_have_canonical_symbols() -> None:
    rows, table = trades(COUNT), table_of()
    records = [orjson.dumps({"key": one.key, **one.to_json()}) for one in table]
    with DevBroker({"md.trades.v1": 1, "md.instruments.v1": 1}) as broker:
        servers = broker.bootstrap_servers
        await publish(servers, "md.trades.v1", 0, values_of(RowClass.TRADE, rows))
        await publish(servers, "md.instruments.v1", 0, records)
        url = f"kafka://{servers}/md."
        frame = history.open(url, kinds="trades", symbols="S3-USDT").to_polars()
        assert frame["symbol"].unique().to_list() == ["S3USDT"]
        assert frame["canonical"].unique().to_list() == ["S3-USDT"]
        assert frame["ts_recv"].dtype == pl.Datetime("ns", "UTC")
        assert frame["price"].to_list() == [
            Decimal(price).scaleb(-3) for price in rows["price"][rows["instrument"] == 3].tolist()
        ]
        pandas = history.open(url, kinds="trades").to_pandas(prices="float")
        assert pandas["price"].dtype == "float64"
        assert set(pandas["canonical"]) == {one.canonical for one in table}
