"""One topic or partition of Apache Kafka that fails costs itself alone; clocks and outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
)
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from ingestor.cli.doctor import examine_topics
from ingestor.config.model import Config, KafkaConfig
from ingestor.consumer import EARLIEST, Consumer
from ingestor.kafka.settings import DEAD_LETTER, INSTRUMENTS, STATUS
from ingestor.model.batch import TickBatch
from ingestor.model.errors import SinkUnavailable
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Cause, Kind, Rows
from ingestor.sinks.kafka import topic_keeper
from ingestor.sinks.kafka.overload import Budget
from ingestor.sinks.kafka.sink import KafkaSink
from tests.fakes.rows import MAKERS, Ledger, by_key, quotes, trades
from tests.kafka.broker import KafkaBroker, KafkaEndpoint
from tests.kafka.test_sink import TABLE, read, running, sink_of, submit

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def guarded_kafka(kafka_tools: None) -> Iterator[KafkaBroker]:
    """A broker that heeds access control lists."""
    with KafkaBroker(AUTHORIZER) as broker:
        yield broker


async def until(is_so: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.02)


def admin(broker: KafkaEndpoint) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers})


def denial(topic: str, operation: AclOperation = AclOperation.WRITE) -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        operation,
        AclPermissionType.DENY,
    )


def allowance(topic: str) -> AclBinding:
    """An ACL that lets in what no other one denies."""
    return AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )


async def deny(broker: KafkaEndpoint, topic: str, operation: AclOperation) -> None:
    bindings = [denial(topic, operation), allowance(topic)]
    client = admin(broker)  # what it does ends with it
    for done in client.create_acls(bindings).values():
        await asyncio.to_thread(done.result, 60)


async def allow(broker: KafkaEndpoint, topic: str, operation: AclOperation) -> None:
    client = admin(broker)
    wanted = AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        operation,
        AclPermissionType.DENY,
    )
    for done in client.delete_acls([wanted]).values():
        await asyncio.to_thread(done.result, 60)


async def delete(broker: KafkaEndpoint, topic: str) -> None:
    client = admin(broker)
    done = client.delete_topics([topic], operation_timeout=60)[topic]
    await asyncio.to_thread(done.result, 60)
    await asyncio.sleep(0.5)  # the broker hears of it


async def configure(broker: KafkaEndpoint, topic: str, **changes: str) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await client.start()
    configs: Any = {name.replace("_", "."): value for name, value in changes.items()}
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)
    await client.alter_configs([resource])
    await client.close()


async def others_go_on(sink: KafkaSink, ledger: Ledger, first: int, count: int = 100) -> None:
    """Quotes are acked, and reading isn't stopped."""
    before = ledger.counts["acked"]
    submit(sink, RowClass.QUOTE, quotes(count, first=first))
    await until(lambda: ledger.counts["acked"] >= before + count)


@pytest.mark.rows("I7", "K8")
@pytest.mark.parametrize("operation", [AclOperation.WRITE, AclOperation.DESCRIBE])
async def test_a_topic_that_is_denied_delays_its_own_rows(
    guarded_kafka: KafkaBroker, operation: AclOperation
) -> None:
    broker, ledger = guarded_kafka, Ledger()
    sink = sink_of(broker, ledger, metadata_max_age_ms=1_000)
    paused: list[str] = []
    sink.backpressure.add_reader(lambda: paused.append("pause"), lambda: None)
    topic = sink.settings.tick_topic(RowClass.TRADE)
    async with running(sink):
        submit(sink, RowClass.TRADE, trades(100))
        assert await sink.drain(60) == 0
        await deny(broker, topic, operation)
        await asyncio.sleep(2.5)
        submit(sink, RowClass.TRADE, trades(500, first=101))
        await others_go_on(sink, ledger, 1)
        await until(lambda: bool(sink.statistics().held))
        assert all(text.startswith(topic) for text in sink.statistics().held)
        assert "TopicAuthorizationFailed" in sink.statistics().held[0]
        held = sink.statistics().held_partitions
        assert [name for name, count in held.items() if count] == [topic]
        await others_go_on(sink, ledger, 101)
        assert sink.is_up
        await allow(broker, topic, operation)
        assert await sink.drain(60) == 0
        await until(lambda: not sink.statistics().held)
    assert ledger.counts == {"acked": 800}
    assert not paused
    assert not sink.producer_resets
    rows = by_key([TickBatch(RowClass.TRADE, trades(600), TABLE)])
    assert by_key(await read(sink, RowClass.TRADE)) == rows


@pytest.mark.rows("I7")
async def test_rows_of_a_refused_topic_are_shed_beyond_their_share(
    guarded_kafka: KafkaBroker,
) -> None:
    broker, ledger = guarded_kafka, Ledger()
    sink = sink_of(broker, ledger, Budget(bytes_max=800_000))
    paused: list[str] = []
    sink.backpressure.add_reader(lambda: paused.append("pause"), lambda: None)
    topic = sink.settings.tick_topic(RowClass.TRADE)
    async with running(sink):
        await deny(broker, topic, AclOperation.WRITE)
        async with asyncio.timeout(60):
            while not sink.refused:
                submit(sink, RowClass.TRADE, trades(12))
                await asyncio.sleep(0.1)
        deadline_s, first = time.monotonic() + 6, 1
        while time.monotonic() < deadline_s:
            await others_go_on(sink, ledger, first, 12)
            first += 12
            if sink.queue.apart:
                submit(sink, RowClass.TRADE, trades(120, first=13 + 10 * first))
            await asyncio.sleep(0.02)
        assert sink.statistics().held == (f"{topic}[0,1]: TopicAuthorizationFailed",)
        assert ledger.counts["shed"] > 0
        assert sink.queue.bytes < 400_000
        await allow(broker, topic, AclOperation.WRITE)
        assert await sink.drain(60) == 0
    assert not paused
    found = [batch.rows for batch in await read(sink, RowClass.TRADE)]
    marks = np.concatenate(found)
    marks = marks[marks["kind"] == Kind.GAP]
    assert set(marks["side"].tolist()) == {Cause.SHED}
    assert ledger.counts["conflated"] == 0


@pytest.mark.rows("I7")
async def test_a_topic_that_is_deleted_is_created_again_as_configured(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker would create it by first use, with its own number of partitions."""
    monkeypatch.setattr(topic_keeper, "LOOK_S", 0.5)
    ledger = Ledger()
    sink = sink_of(kafka, ledger)
    topic = sink.settings.tick_topic(RowClass.TRADE)
    async with running(sink):
        submit(sink, RowClass.TRADE, trades(100))
        assert await sink.drain(60) == 0
        await delete(kafka, topic)
        submit(sink, RowClass.TRADE, trades(100, first=101))
        await others_go_on(sink, ledger, 1)
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 300}
    rows = by_key([TickBatch(RowClass.TRADE, trades(100, first=101), TABLE)])
    assert by_key(await read(sink, RowClass.TRADE)) == rows
    assert len(admin(kafka).list_topics(topic, timeout=60).topics[topic].partitions) == 3


@pytest.mark.rows("I7")
@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_topic_that_is_made_again_with_fewer_partitions(
    kafka: KafkaEndpoint, encoding: str
) -> None:
    ledger = Ledger()
    sink = sink_of(kafka, ledger, partitions=8, encoding=encoding)
    topic = sink.settings.tick_topic(RowClass.TRADE)
    async with running(sink):
        submit(sink, RowClass.TRADE, trades(600))
        assert await sink.drain(60) == 0
        await delete(kafka, topic)
        await asyncio.to_thread(kafka.create_topic, topic, 2, {"retention.ms": "-1"})
        for first in range(601, 1_201, 60):
            submit(sink, RowClass.TRADE, trades(60, first=first))
            await others_go_on(sink, ledger, first, 12)
        assert await sink.drain(60) == 0
    assert ledger.unexplained(1_320, 0) == 0
    assert ledger.counts["acked"] == 1_320
    found = by_key(await read(sink, RowClass.TRADE))
    rows = by_key([TickBatch(RowClass.TRADE, trades(600, first=601), TABLE)])
    assert {key: set(rows) for key, rows in found.items()} == {
        key: set(rows) for key, rows in rows.items()
    }


@pytest.mark.rows("I7")
@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_a_compacted_tick_topic_is_refused_at_the_start(
    kafka: KafkaEndpoint, policy: str
) -> None:
    sink = sink_of(kafka, Ledger())
    topic = sink.settings.tick_topic(RowClass.QUOTE)
    kafka.create_topic(topic, 2, {"cleanup.policy": policy})
    await asyncio.sleep(0.5)  # the broker that is asked may hear of it later
    started_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match=rf"topic {topic}: cleanup\.policy compacts"):
        async with running(sink):
            pass
    assert time.monotonic() - started_s < 60
    config = Config(
        kafka=KafkaConfig(
            bootstrap_servers=kafka.bootstrap_servers, topic_prefix=sink.settings.topic_prefix
        )
    )
    [finding] = await examine_topics(config)
    assert (finding.what, finding.state) == ("topics", "failed")
    assert topic in finding.text


@pytest.mark.rows("I7")
async def test_a_topic_that_becomes_compacted_is_not_written_to(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_keeper, "CHECK_S", 0.5)
    monkeypatch.setattr(topic_keeper, "LOOK_S", 0.2)
    ledger = Ledger()
    sink = sink_of(kafka, ledger, encoding="binary")
    topic = sink.settings.tick_topic(RowClass.TRADE)
    async with running(sink):
        await configure(kafka, topic, cleanup_policy="compact", retention_ms="-1")
        await until(lambda: topic in sink.refused_topics)
        submit(sink, RowClass.TRADE, trades(100))
        await others_go_on(sink, ledger, 1)
        assert f"{topic}: its cleanup.policy compacts" in sink.statistics().held
        await configure(kafka, topic, cleanup_policy="delete", retention_ms="-1")
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 200}


async def test_topics_have_the_replication_factor_that_is_configured(kafka: KafkaEndpoint) -> None:
    sink = sink_of(kafka, Ledger(), replication_factor=1, partitions=5)
    async with running(sink):
        pass
    topics = admin(kafka).list_topics(timeout=60).topics
    assert len(topics[sink.settings.tick_topic(RowClass.TRADE)].partitions) == 5
    assert len(topics[sink.settings.topic(STATUS)].partitions) == 1


@pytest.mark.parametrize("setting", [("replication_factor", 3), ("retention_ms", -2)])
async def test_topics_that_can_not_be_created_as_configured_are_an_error(
    kafka: KafkaEndpoint, setting: tuple[str, int]
) -> None:
    """The broker would create them by first use, with its defaults."""
    sink = sink_of(kafka, Ledger(), None, **dict([setting]))
    started_s = time.monotonic()
    with pytest.raises(SinkUnavailable, match=r"trades\.v1: it could not be created: .+") as raised:
        async with running(sink):
            pass
    assert time.monotonic() - started_s < 60
    assert "\n" not in str(raised.value)
    topics = admin(kafka).list_topics(timeout=60).topics
    assert not {sink.settings.tick_topic(row_class) for row_class in STANDARD_CLASSES} & set(topics)


class SteppingClock:
    """A wall clock that a test sets wrong."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns


def stamped(rows: Rows, now_ns: int) -> Rows:
    rows["ts_recv"] = rows["ts_event"] = now_ns
    return rows


@pytest.mark.rows("I8")
@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_clock_that_is_ahead_makes_rows_wait(kafka: KafkaEndpoint, encoding: str) -> None:
    """Two hours ahead, where the broker allows one; then it is set right."""
    ledger, clock = Ledger(), SteppingClock()
    sink = _with_clock(kafka, ledger, clock, encoding)
    async with running(sink):
        clock.ahead_ns = 2 * HOUR_NS
        for row_class, make in MAKERS.items():
            submit(sink, row_class, stamped(make(90), clock()))
        sink.publish(STATUS, None, b'{"n":1}', ts_ms=clock() // 1_000_000)
        await until(
            lambda: sink.refused["InvalidTimestamp: our clock, or the broker's, is wrong"] > 9
        )
        assert not ledger.counts
        await until(lambda: not sink.is_up)
        clock.ahead_ns = 0
        submit(sink, RowClass.TRADE, stamped(trades(10, first=91), clock()))
        assert await sink.drain(60) == 0
        assert sink.is_up
    assert ledger.counts == {"acked": sum(len(make(90)) for make in MAKERS.values()) + 10}
    assert not sink.side.refused
    for row_class, count in zip(STANDARD_CLASSES, (100, 90, 270), strict=True):
        assert sum(len(batch.rows) for batch in await read(sink, row_class)) == count


async def test_one_record_of_the_future_is_put_aside_among_fresh_ones(kafka: KafkaEndpoint) -> None:
    ledger, clock = Ledger(), SteppingClock()
    sink = _with_clock(kafka, ledger, clock, "json")
    rows = stamped(trades(60, instruments=1), clock())
    rows["ts_recv"][30] += 24 * HOUR_NS
    async with running(sink):
        submit(sink, RowClass.TRADE, rows)
        assert await sink.drain(60) == 0
    assert ledger.counts == {"acked": 60, "dead_lettered": 1, "declared": 1}
    assert sink.side.acked[sink.settings.topic(DEAD_LETTER)] == 1


def _with_clock(
    kafka: KafkaEndpoint, ledger: Ledger, clock: Callable[[], int], encoding: str
) -> KafkaSink:
    settings = sink_of(kafka, ledger, encoding=encoding).settings
    return KafkaSink(settings, TABLE, ledger, session=bytes(16), clock=clock)


async def test_up_follows_acknowledgements(private_kafka: KafkaBroker) -> None:
    sink = sink_of(private_kafka, Ledger(), request_timeout_ms=20_000)
    async with running(sink):
        submit(sink, RowClass.TRADE, trades(10))
        assert await sink.drain(60) == 0
        await asyncio.to_thread(private_kafka.kill)
        assert sink.is_up  # nothing waits
        submit(sink, RowClass.TRADE, trades(10, first=11))
        await until(lambda: not sink.is_up)
        await asyncio.to_thread(private_kafka.start)
        assert await sink.drain(60) == 0
        assert sink.is_up
        private_kafka.pause()
        submit(sink, RowClass.QUOTE, quotes(10))
        await until(lambda: not sink.is_up)
        private_kafka.resume()
        await until(lambda: sink.is_up)


@pytest.mark.rows("I7")
async def test_a_side_topic_that_is_denied_delays_no_other(guarded_kafka: KafkaBroker) -> None:
    broker, ledger = guarded_kafka, Ledger()
    sink = sink_of(broker, ledger)
    topic = sink.settings.topic(STATUS)
    async with running(sink):
        await deny(broker, topic, AclOperation.WRITE)
        await asyncio.sleep(1)
        for number in range(300):
            sink.publish(STATUS, b"key", b'{"n":%d}' % number, ts_ms=1)
            sink.publish(INSTRUMENTS, b"key", b'{"n":%d}' % number, ts_ms=1)
        await until(lambda: sink.side.acked[sink.settings.topic(INSTRUMENTS)] == 300)
        await others_go_on(sink, ledger, 1)
        assert sink.statistics().held == (f"{topic}[0]: TopicAuthorizationFailed",)
        assert sink.statistics().side[topic, "pending"] == 300
        await allow(broker, topic, AclOperation.WRITE)
        assert await sink.drain(60) == 0
        await until(lambda: not len(sink.side))
    consuming = Consumer(broker.bootstrap_servers, [topic], start=EARLIEST, stop_at_end=True)
    async with asyncio.timeout(60), consuming as consumer:
        values = [value async for _, _, value in consumer.records()]
    assert list(dict.fromkeys(values)) == [b'{"n":%d}' % number for number in range(300)]
