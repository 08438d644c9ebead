"""Batches out of topics of the embedded broker. Groups and times are in tests/kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from ingestor.codec import encoder
from ingestor.consumer import EARLIEST, Consumer, audit
from ingestor.model.batch import TickBatch
from ingestor.model.errors import ConfigError, SinkUnavailable, TopicAbsent
from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import by_key, quotes, table_of, trades
from tests.kafka.broker import free_ports

TABLE = table_of()
TOPICS = {"md.trades.v1": 2, "md.quotes.v1": 2}


@pytest.fixture
def servers() -> Iterator[str]:
    with DevBroker(TOPICS) as broker:
        yield broker.bootstrap_servers


async def publish(servers: str, topic: str, partition: int, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=10) as producer:
        for value in values:
            await producer.send(topic, value, partition=partition)
        await producer.flush()


def values_of(row_class: RowClass, rows: np.ndarray, first: int = 0) -> list[bytes]:
    return [one[1] for one in encoder("json", TABLE, bytes(16)).encode(row_class, rows, first)]


async def read(servers: str, topics: str | list[str], **options: object) -> list[TickBatch]:
    options = {"start": EARLIEST, "stop_at_end": True, **options}
    async with asyncio.timeout(30), Consumer(servers, topics, **options) as consumer:  # type: ignore[arg-type]
        return [batch async for batch in consumer]


async def test_many_records_come_as_few_batches(servers: str) -> None:
    rows = trades(200)
    await publish(servers, "md.trades.v1", 0, values_of(RowClass.TRADE, rows))
    batches = await read(servers, "md.trades.v1")
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, rows, TABLE)])
    assert len(batches) < 20


async def test_topics_are_merged_so_that_nothing_is_seen_before_its_time(servers: str) -> None:
    """Trades are published long after the quotes that follow them."""
    both = {RowClass.QUOTE: quotes(300, first=1), RowClass.TRADE: trades(300, first=1)}
    both[RowClass.TRADE]["ts_recv"] += 1
    for row_class, rows in both.items():
        for partition in range(2):
            part = rows[rows["instrument"] % 2 == partition]
            values = values_of(row_class, part)
            await publish(servers, f"md.{row_class.topic}", partition, values)
    batches = await read(servers, list(TOPICS))
    times = np.concatenate([batch.rows["ts_recv"] for batch in batches])
    assert len(times) == 600
    assert (np.diff(times) >= 0).all()
    unmerged = await read(servers, list(TOPICS), window_s=None)
    assert (np.diff(np.concatenate([one.rows["ts_recv"] for one in unmerged])) < 0).any()
    for row_class, rows in both.items():
        own = [one for one in batches if one.row_class is row_class]
        assert by_key(own) == by_key([TickBatch(row_class, rows, TABLE)])


async def test_a_foreign_record_is_named_counted_and_skipped(servers: str) -> None:
    ours = values_of(RowClass.TRADE, trades(3))
    values = [ours[0], b"hello", b'{"seq": 1}', ours[1], b"MDR\x09", ours[2]]
    await publish(servers, "md.trades.v1", 1, values)
    async with (
        asyncio.timeout(30),
        Consumer(servers, "md.trades.v1", start=EARLIEST, stop_at_end=True) as consumer,
    ):
        batches = [batch async for batch in consumer]
        assert [n for one in batches for n in one.rows["sequence"].tolist()] == [1, 2, 3]
        assert not consumer.holes
        assert consumer.foreign_records == 3
        assert [(one.topic, one.partition, one.offset) for one in consumer.foreign] == [
            ("md.trades.v1", 1, 1),
            ("md.trades.v1", 1, 2),
            ("md.trades.v1", 1, 4),
        ]
        assert all(one.reason for one in consumer.foreign)
        assert consumer.positions == {("md.trades.v1", 1): 6}
    report = await audit(servers, ["md.trades.v1"])
    assert report.complete
    assert (report.rows, report.foreign_records) == (3, 3)
    assert report.foreign[0].offset == 1


async def test_positions_are_a_start(servers: str) -> None:
    await publish(servers, "md.trades.v1", 0, values_of(RowClass.TRADE, trades(10)))
    async with (
        asyncio.timeout(30),
        Consumer(servers, "md.trades.v1", start={("md.trades.v1", 0): 4}) as consumer,
    ):
        batch = await consumer.next_batch()
        assert batch is not None
        assert batch.rows["sequence"][0] == 5
        found = len(batch)
        while consumer.positions[("md.trades.v1", 0)] < 10:
            batch = await consumer.next_batch()
            assert batch is not None
            found += len(batch)
        assert found == 6
        positions = consumer.positions
    await publish(servers, "md.trades.v1", 0, values_of(RowClass.TRADE, trades(2, first=11), 10))
    rest = await read(servers, "md.trades.v1", start=positions)
    assert [n for one in rest for n in one.rows["sequence"].tolist()] == [11, 12]
    beyond = await read(servers, "md.trades.v1", start={("md.trades.v1", 0): 99})
    assert beyond == []
    part = await read(servers, "md.trades.v1", end={("md.trades.v1", 0): 3})
    assert [n for one in part for n in one.rows["sequence"].tolist()] == [1, 2, 3]


async def test_leaving_the_loop_and_coming_back_loses_nothing(servers: str) -> None:
    for first, row_class in ((1, RowClass.TRADE), (1, RowClass.QUOTE)):
        rows = (trades if row_class is RowClass.TRADE else quotes)(40, first=first)
        await publish(servers, f"md.{row_class.topic}", 0, values_of(row_class, rows))
    seen = 0
    async with (
        asyncio.timeout(30),
        Consumer(servers, list(TOPICS), start=EARLIEST, stop_at_end=True) as consumer,
    ):
        for _ in range(5):
            async for batch in consumer:
                seen += len(batch)
                break
        async for batch in consumer:
            seen += len(batch)
    assert seen == 80


async def test_what_can_not_be_read(servers: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TopicAbsent, match=r"has no topic absent\.v1"):
        await read(servers, ["md.trades.v1", "absent.v1"])
    [port] = free_ports(1)
    caplog.clear()
    with pytest.raises(SinkUnavailable, match=f"Kafka at 127.0.0.1:{port} is unavailable: Conn"):
        await read(f"127.0.0.1:{port}", "md.trades.v1")
    assert not caplog.records  # aiokafka's own words would come before ours
    with pytest.raises(ConfigError, match="is no time"):
        Consumer(servers, "md.trades.v1", start="yesterday")
    async with Consumer(servers, "md.trades.v1") as consumer:
        with pytest.raises(ConfigError, match="no group commits"):
            await consumer.commit()
