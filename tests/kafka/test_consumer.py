"""Reading from Apache Kafka: groups, commits, starts, and books that begin late."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from ingestor.codec import encoder
from ingestor.consumer import EARLIEST, Consumer
from ingestor.kafka.partitions import partition_of_key
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from tests.fakes.rows import START_NS, by_key, table_of, trades
from tests.kafka.broker import KafkaBroker, KafkaEndpoint

TABLE = table_of()
PARTITIONS = 4


def topic_of(kafka: KafkaEndpoint) -> str:
    return kafka.create_topic(f"t{uuid.uuid4().hex}.trades.v1", PARTITIONS)


async def publish(servers: str, topic: str, rows: Rows, first: Counter[int]) -> None:
    """Publish rows as the sink does. first: the next sequence number of each partition."""
    keys = [TABLE[number].key.encode() for number in range(len(TABLE))]
    partitions = np.array([partition_of_key(key, PARTITIONS) for key in keys])[rows["instrument"]]
    encode = encoder("json", TABLE, bytes(16)).encode
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=20) as producer:
        for number in np.unique(partitions).tolist():
            part = rows[partitions == number]
            for key, value, ts_ms, _ in encode(RowClass.TRADE, part, first[number]):
                await producer.send(topic, value, key, partition=number, timestamp_ms=ts_ms)
            first[number] += len(part)
        await producer.flush()


def sequences(batches: list[TickBatch]) -> list[int]:
    return [number for batch in batches for number in batch.rows["sequence"].tolist()]


async def take(consumer: Consumer, rows: int) -> list[int]:
    """Read batches until so many rows came."""
    found: list[int] = []
    while len(found) < rows:
        batch = await consumer.next_batch()
        assert batch is not None
        found += batch.rows["sequence"].tolist()
    return found


async def test_a_group_goes_on_where_it_committed(kafka: KafkaEndpoint) -> None:
    topic, servers, first = topic_of(kafka), kafka.bootstrap_servers, Counter[int]()
    group = f"g{uuid.uuid4().hex}"
    await publish(servers, topic, trades(100), first)
    async with asyncio.timeout(60):
        async with Consumer(servers, topic, group_id=group, start=EARLIEST) as consumer:
            assert sorted(await take(consumer, 100)) == list(range(1, 101))
            assert await consumer.commit()
        await publish(servers, topic, trades(50, first=101), first)
        async with Consumer(servers, topic, group_id=group, start=EARLIEST) as consumer:
            assert sorted(await take(consumer, 50)) == list(range(101, 151))  # and no commit
        async with Consumer(servers, topic, group_id=group) as consumer:
            assert sorted(await take(consumer, 50)) == list(range(101, 151))
            assert not consumer.holes
            assert await consumer.commit()
        options: dict[str, Any] = {"group_id": group, "stop_at_end": True}
        async with Consumer(servers, topic, **options) as consumer:
            assert sequences([batch async for batch in consumer]) == []


async def test_rows_that_were_not_handed_out_are_not_committed(kafka: KafkaEndpoint) -> None:
    """Two topics: the merge holds rows that were read long before they are given."""
    servers, group, firsts = kafka.bootstrap_servers, f"g{uuid.uuid4().hex}", []
    topics = [topic_of(kafka), topic_of(kafka)]
    for n, topic in enumerate(topics):
        rows = trades(300)
        rows["ts_recv"] += n * 10**12  # all of the second topic is later
        await publish(servers, topic, rows, Counter())
    async with asyncio.timeout(60):
        for _ in range(20):
            options: dict[str, Any] = {"group_id": group, "start": EARLIEST, "stop_at_end": True}
            async with Consumer(servers, topics, **options) as consumer:
                batch = await consumer.next_batch()
                if batch is None:
                    break
                firsts.append((int(batch.rows["ts_recv"][0]), len(batch)))
                assert await consumer.commit()
        assert sum(rows for _, rows in firsts) >= 600
        assert [one for one, _ in firsts] == sorted(one for one, _ in firsts)


async def test_members_come_and_go_and_every_row_is_processed(kafka: KafkaEndpoint) -> None:
    """At least once: what a member did not commit goes to another."""
    topic, servers, first = topic_of(kafka), kafka.bootstrap_servers, Counter[int]()
    group = f"g{uuid.uuid4().hex}"
    done: Counter[int] = Counter()
    per_member: Counter[str] = Counter()

    async def member(name: str) -> None:
        options: dict[str, Any] = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300}
        async with Consumer(servers, topic, group_id=group, start=EARLIEST, **options) as consumer:
            async for batch in consumer:
                await asyncio.sleep(0.01)
                found = batch.rows["sequence"].tolist()
                if await consumer.commit():
                    done.update(found)
                    per_member[name] += len(found)

    async with asyncio.timeout(90):
        await publish(servers, topic, trades(500), first)
        members = [asyncio.create_task(member("a"))]
        await until(lambda: len(done) > 50)
        members.append(asyncio.create_task(member("b")))
        for n in range(20):
            await publish(servers, topic, trades(50, first=501 + 50 * n), first)
            await asyncio.sleep(0.1)
        await until(lambda: per_member["b"] > 0)
        members[0].cancel()
        await asyncio.wait({members[0]})
        await publish(servers, topic, trades(500, first=1_501), first)
        await until(lambda: len(done) == 2_000)
        members[1].cancel()
        await asyncio.wait(set(members))
    assert set(done) == set(range(1, 2_001))
    assert min(per_member["a"], per_member["b"]) > 0


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("form", ["ns", "datetime", "iso", "zone"])
async def test_a_start_by_time(kafka: KafkaEndpoint, form: str) -> None:
    topic, servers = topic_of(kafka), kafka.bootstrap_servers
    rows = trades(100)
    seconds = START_NS // 10**9
    rows["ts_recv"] = START_NS + np.arange(100) * 10**9
    await publish(servers, topic, rows, Counter())
    moment = datetime.fromtimestamp(seconds + 40, UTC)
    forms: dict[str, int | str | datetime] = {
        "ns": START_NS + 40 * 10**9,
        "datetime": moment,
        "iso": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "zone": datetime.fromtimestamp(seconds + 40 + 7_200, UTC).strftime(
            "%Y-%m-%dT%H:%M:%S+02:00"
        ),
    }
    start = forms[form]
    end = START_NS + 60 * 10**9
    async with asyncio.timeout(60), Consumer(servers, topic, start=start, end=end) as consumer:
        batches = [batch async for batch in consumer]
    assert sorted(sequences(batches)) == list(range(41, 61))
    wanted = TickBatch(RowClass.TRADE, rows[40:60], TABLE)
    assert by_key(batches) == by_key([wanted])


async def test_the_end_is_a_start(kafka: KafkaEndpoint) -> None:
    topic, servers, first = topic_of(kafka), kafka.bootstrap_servers, Counter[int]()
    await publish(servers, topic, trades(100), first)
    async with asyncio.timeout(60), Consumer(servers, topic) as consumer:
        await publish(servers, topic, trades(10, first=101), first)
        assert sorted(await take(consumer, 10)) == list(range(101, 111))


async def test_where_retention_took_records_reading_goes_on_with_what_is_left(
    private_kafka: KafkaBroker,
) -> None:
    topic, servers, first = topic_of(private_kafka), private_kafka.bootstrap_servers, Counter[int]()
    await publish(servers, topic, trades(100), first)
    async with asyncio.timeout(60):
        async with Consumer(servers, topic, start=EARLIEST) as consumer:
            await take(consumer, 100)
            positions = consumer.positions
        await publish(servers, topic, trades(60, first=101), first)
        client = AIOKafkaAdminClient(bootstrap_servers=servers)
        await client.start()
        await client.delete_records(
            {
                TopicPartition(*one): RecordsToDelete(before_offset=offset + 5)
                for one, offset in positions.items()
            }
        )
        await client.close()
        options: dict[str, Any] = {"start": positions, "stop_at_end": True}
        async with Consumer(servers, topic, **options) as consumer:
            rows = sequences([batch async for batch in consumer])
    assert len(rows) == 60 - 5 * len(positions)


async def test_a_broker_that_stops_and_comes_back_is_no_end(private_kafka: KafkaBroker) -> None:
    topic, servers, first = topic_of(private_kafka), private_kafka.bootstrap_servers, Counter[int]()
    await publish(servers, topic, trades(20), first)
    async with asyncio.timeout(90), Consumer(servers, topic, start=EARLIEST) as consumer:
        await take(consumer, 20)
        reading = asyncio.create_task(take(consumer, 20))
        private_kafka.kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(private_kafka.start)
        await publish(servers, topic, trades(20, first=21), first)
        started_s = time.monotonic()
        assert sorted(await reading) == list(range(21, 41))
        assert time.monotonic() - started_s < 30
