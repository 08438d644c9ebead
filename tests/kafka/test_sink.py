"""The Kafka sink against Apache Kafka: crashes, pauses, refusals, topics."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ingestor.consumer import EARLIEST, Consumer, audit
from ingestor.kafka.settings import INSTRUMENTS, KafkaSettings
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Kind, Rows
from ingestor.sinks.kafka.overload import Budget, Step
from ingestor.sinks.kafka.sink import KafkaSink
from tests.fakes.rows import MAKERS, Ledger, by_key, levels, quotes, table_of, trades
from tests.kafka.broker import KafkaBroker, KafkaEndpoint

TABLE = table_of()


def sink_of(
    endpoint: KafkaEndpoint, ledger: Ledger, budget: Budget | None = None, **settings: Any
) -> KafkaSink:
    options: dict[str, Any] = {
        "partitions": 3,
        "topic_prefix": f"t{uuid.uuid4().hex}.",
        "retention_ms": -1,
    }
    return KafkaSink(
        KafkaSettings(endpoint.bootstrap_servers, **(options | settings)),
        TABLE,
        ledger,
        session=uuid.uuid4().bytes,
        budget=budget,
    )


@asynccontextmanager
async def running(sink: KafkaSink, timeout_s: float = 60) -> AsyncIterator[None]:
    task = asyncio.create_task(sink.run())
    try:
        await sink.wait_connected(timeout_s)
        yield
    finally:
        await sink.close()
        with suppress(asyncio.CancelledError):
            await task


async def read(sink: KafkaSink, row_class: RowClass, **options: Any) -> list[TickBatch]:
    options = {"start": EARLIEST, "stop_at_end": True, **options}
    servers, topic = sink.settings.bootstrap_servers, sink.settings.tick_topic(row_class)
    async with asyncio.timeout(60), Consumer(servers, [topic], **options) as consumer:
        batches = [batch async for batch in consumer]
        assert not consumer.holes
        return batches


def submit(sink: KafkaSink, row_class: RowClass, rows: Rows, table: Any = TABLE) -> None:
    sink.submit(TickBatch(row_class, rows, table), time.time_ns())


async def feed(sink: KafkaSink, rows_per_s: int, stop: asyncio.Event) -> int:
    """Trades, as many a second, in flushes of 10 ms, until told to stop; return how many."""
    first, started_s = 1, time.monotonic()
    while not stop.is_set():
        due = int((time.monotonic() - started_s) * rows_per_s) + 1 - first
        if due > 0:
            submit(sink, RowClass.TRADE, trades(due, first=first))
            first += due
        await asyncio.sleep(0.01)
    return first - 1


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_rows_of_every_class_come_back(kafka: KafkaEndpoint, encoding: str) -> None:
    ledger = Ledger()
    sink = sink_of(kafka, ledger, encoding=encoding)
    async with running(sink):
        for row_class, make in MAKERS.items():
            submit(sink, row_class, make(2_000))
        sink.publish(INSTRUMENTS, b"acme:spot:S0USDT", b"{}", ts_ms=1)
        assert await sink.drain(60) == 0
        assert not sink.side.dropped
    for row_class, make in MAKERS.items():
        expected = by_key([TickBatch(row_class, make(2_000), TABLE)])
        assert by_key(await read(sink, row_class)) == expected
    rows = sum(len(make(2_000)) for make in MAKERS.values())
    assert rows >= 2_000 * len(MAKERS)
    assert ledger.unexplained(rows, 0) == 0


async def test_topics_are_created_as_configured(kafka: KafkaEndpoint) -> None:
    sink = sink_of(kafka, Ledger(), partitions=5, retention_ms=3_600_000)
    async with running(sink):
        pass
    topics = {name: sink.settings.topic(name) for name in (INSTRUMENTS, "trades.v1", "status.v1")}
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await client.start()
    described = await client.describe_topics(list(topics.values()))
    [answer] = await client.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics.values()]
    )
    await client.close()
    partitions = {one["topic"]: len(one["partitions"]) for one in described}
    assert [partitions[topics[name]] for name in topics] == [1, 5, 1]
    found = {one[3]: {entry[0]: entry[1] for entry in one[4]} for one in answer.resources}
    assert found[topics[INSTRUMENTS]]["cleanup.policy"] == "compact"
    assert found[topics["trades.v1"]]["retention.ms"] == "3600000"


async def test_a_range_of_time_is_read_alone(kafka: KafkaEndpoint) -> None:
    sink = sink_of(kafka, Ledger(), partitions=1)
    rows = trades(1_000)
    rows["ts_recv"] = 1_700_000_000_000_000_000 + np.arange(1_000) * 1_000_000
    async with running(sink):
        submit(sink, RowClass.TRADE, rows)
        await sink.drain(60)
    start, until = int(rows["ts_recv"][250]), int(rows["ts_recv"][750])
    batches = await read(sink, RowClass.TRADE, start=start, end=until, stop_at_end=False)
    found = np.concatenate([batch.rows for batch in batches])
    assert found["sequence"].tolist() == list(range(251, 751))


@pytest.mark.rows("K1")
async def test_killed_and_restarted_under_load(private_kafka: KafkaBroker) -> None:
    """K1: what was acked is in the topic, once after dedup, in order per instrument."""
    ledger, stop = Ledger(), asyncio.Event()
    sink = sink_of(private_kafka, ledger, encoding="binary")
    async with running(sink):
        feeding = asyncio.create_task(feed(sink, 10_000, stop))
        for _ in range(2):
            await asyncio.sleep(1)
            await asyncio.to_thread(private_kafka.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(private_kafka.start)
        await asyncio.sleep(1)
        stop.set()
        submitted = await feeding
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": submitted}
    acked = by_key([TickBatch(row_class, rows, TABLE) for row_class, rows in ledger.kept])
    found = by_key(await read(sink, RowClass.TRADE))
    assert found == acked
    assert found == by_key([TickBatch(RowClass.TRADE, trades(submitted), TABLE)])


@pytest.mark.long(minutes=1)
@pytest.mark.rows("K2")
async def test_paused_for_twenty_seconds(private_kafka: KafkaBroker) -> None:
    await check_pause(private_kafka, 20, request_timeout_ms=8_000)


@pytest.mark.rows("K2")
async def test_paused_for_three_seconds(private_kafka: KafkaBroker) -> None:
    await check_pause(private_kafka, 3, request_timeout_ms=1_200)


async def check_pause(broker: KafkaBroker, seconds: float, request_timeout_ms: int) -> None:
    """Within the default budget a pause of the broker sheds nothing and loses nothing."""
    ledger, stop = Ledger(), asyncio.Event()
    sink = sink_of(broker, ledger, request_timeout_ms=request_timeout_ms)
    async with running(sink):
        feeding = asyncio.create_task(feed(sink, 5_000, stop))
        await asyncio.sleep(0.5)
        broker.pause()
        await asyncio.sleep(seconds)
        broker.resume()
        await asyncio.sleep(0.5)
        stop.set()
        submitted = await feeding
        assert submitted >= seconds * 5_000
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": submitted}
    found = by_key(await read(sink, RowClass.TRADE))
    assert found == by_key([TickBatch(RowClass.TRADE, trades(submitted), TABLE)])
    assert not sink.queue.policy.taken


@pytest.mark.rows("K5")
async def test_a_small_budget_meets_every_step_in_order(private_kafka: KafkaBroker) -> None:
    """Section 4 of the design: conflate, pause, shed; then resume. The ledger balances."""
    ledger = Ledger()
    budget = Budget(bytes_max=200_000, pause_max_s=1.0)
    sink = sink_of(private_kafka, ledger, budget, request_timeout_ms=5_000)
    heard: list[str] = []
    shed: set[tuple[RowClass, int]] = set()
    sink.backpressure.add_reader(lambda: heard.append("pause"), lambda: heard.append("resume"))
    sink.backpressure.observe_shed(lambda row_class, number: shed.add((row_class, number)))
    makers: dict[RowClass, Callable[..., Rows]] = {
        RowClass.QUOTE: quotes,
        RowClass.TRADE: trades,
        RowClass.LEVEL: levels,
    }
    rows_in = 0
    async with running(sink):
        private_kafka.pause()
        for first in range(1, 4_000, 60):
            for row_class, make in makers.items():
                rows = make(60, first=first)
                submit(sink, row_class, rows)
                rows_in += len(rows)
                assert sink.queue.bytes <= budget.bytes_max
                assert ledger.unexplained(rows_in, sink.queue.rows) == 0
            await asyncio.sleep(0.02)
        private_kafka.resume()
        assert await sink.drain(60) == 0
    first_of: dict[Step, int] = {}
    for _, step, _ in sink.queue.policy.events:
        first_of.setdefault(step, len(first_of))
    assert sorted(first_of, key=first_of.__getitem__)[:3] == [Step.CONFLATE, Step.PAUSE, Step.SHED]
    assert heard[:2] == ["pause", "resume"]
    assert ledger.counts["conflated"] > 0
    assert ledger.counts["shed"] > 0
    for row_class in makers:
        marked = {
            (row_class, TABLE.symbols("acme", "spot")[batch.instruments[number].key.split(":")[2]])
            for batch in await read(sink, row_class)
            for number in batch.rows["instrument"][
                (batch.rows["kind"] == Kind.GAP) & (batch.rows["side"] == Cause.SHED)
            ].tolist()
        }
        assert marked == {one for one in shed if one[0] is row_class}


@pytest.mark.rows("K8")
async def test_a_record_that_is_too_large_costs_itself_alone(kafka: KafkaEndpoint) -> None:
    """K8. The broker takes at most 900 bytes; one instrument's name is longer than that."""
    table = InstrumentTable(TABLE)
    long_name = "".join(uuid.uuid4().hex for _ in range(40))
    table.add(instrument("acme", "spot", long_name, "X-Y", "X", "Y", "1", "1"))
    prefix = f"t{uuid.uuid4().hex}."
    kafka.create_topic(f"{prefix}trades.v1", 1, {"max.message.bytes": "900", "retention.ms": "-1"})
    ledger = Ledger()
    sink = KafkaSink(
        KafkaSettings(kafka.bootstrap_servers, topic_prefix=prefix, compression=None),
        table,
        ledger,
        session=uuid.uuid4().bytes,
    )
    rows = trades(9, instruments=3)
    rows["instrument"][4] = len(table) - 1
    submit(sink, RowClass.TRADE, rows, table)
    async with running(sink):
        assert await sink.drain(60) == 0
    # The mark for the lost row has the same long name: it is refused like the row.
    assert ledger.counts == {"acked": 8, "dead_lettered": 2, "declared": 1}
    report = await audit(kafka.bootstrap_servers, [f"{prefix}trades.v1"], f"{prefix}status.v1")
    assert report.complete
    assert [(one.last - one.first) for one in report.void] == [0, 0]


@pytest.mark.rows("K8")
async def test_a_record_from_the_future_is_put_aside(kafka: KafkaEndpoint) -> None:
    """K8: the broker refuses timestamps that are more than an hour ahead."""
    ledger = Ledger()
    sink = sink_of(kafka, ledger)
    rows = trades(5, instruments=1)
    rows["ts_recv"][2] = time.time_ns() + 365 * 86_400 * 1_000_000_000
    async with running(sink):
        submit(sink, RowClass.TRADE, rows)
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 5, "dead_lettered": 1, "declared": 1}


async def test_a_closed_port_is_no_broker(private_kafka: KafkaBroker) -> None:
    """A broker that comes up late is found."""
    broker = private_kafka
    await asyncio.to_thread(broker.kill)
    ledger = Ledger()
    sink = sink_of(broker, ledger, request_timeout_ms=3_000)
    submit(sink, RowClass.TRADE, trades(10))
    task = asyncio.create_task(sink.run())
    await asyncio.sleep(0.5)
    assert sink.failure is not None
    await asyncio.to_thread(broker.start)
    assert await sink.drain(60) == 0
    await sink.close()
    with suppress(asyncio.CancelledError):
        await task
    assert ledger.counts == {"acked": 10}
