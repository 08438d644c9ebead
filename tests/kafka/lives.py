"""Sinks with lives that can be fenced, and whoever fences them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from ingestor.consumer import audit
from ingestor.kafka.aiokafka_compat import AIOKafkaClient
from ingestor.kafka.settings import AUXILIARY_TOPICS, STATUS, KafkaSettings
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.sinks.kafka.sink import KafkaSink
from tests.fakes.rows import MAKERS, Ledger
from tests.kafka.broker import SASL_PASSWORD, SASL_USER
from tests.kafka.test_sink import TABLE, submit

PARTITIONS = 3
SASL = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": SASL_USER,
    "sasl_plain_password": SASL_PASSWORD,
}


def life_name() -> str:
    return f"group.member.{uuid.uuid4().hex}"


def sink_of(servers: str, ledger: Ledger, life: str, prefix: str, **settings: Any) -> KafkaSink:
    options: dict[str, Any] = {"partitions": PARTITIONS, "retention_ms": -1} | settings
    return KafkaSink(
        KafkaSettings(servers, topic_prefix=prefix, **options),
        TABLE,
        ledger,
        session=uuid.uuid4().bytes,
        life=life,
    )


def places_of(sink: KafkaSink) -> list[TopicPartition]:
    """Every partition that a sink may write to."""
    settings = sink.settings
    topics = [settings.tick_topic(row_class) for row_class in ROW_CLASSES]
    topics += [settings.topic(name) for name in AUXILIARY_TOPICS]
    return [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]


@asynccontextmanager
async def client_of(servers: str, **security: Any) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(bootstrap_servers=servers, **security)
    await client.bootstrap()
    try:
        yield client
    finally:
        await client.close()


def ticks_of(sink: KafkaSink) -> list[TopicPartition]:
    """Every partition of rows."""
    auxiliary = {sink.settings.topic(name) for name in AUXILIARY_TOPICS}
    return [place for place in places_of(sink) if place.topic not in auxiliary]


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ends(servers: str, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Where each partition ends: how far its records and markers go."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    try:
        found: dict[TopicPartition, int] = await consumer.end_offsets(list(places))
        return found
    finally:
        await consumer.stop()


def submit_everywhere(sink: KafkaSink, first: int, count: int = 40) -> int:
    """Rows of all classes, over all partitions; return how many."""
    submitted = 0
    for row_class in MAKERS:
        rows = MAKERS[row_class](count, first=first)
        submit(sink, row_class, rows)
        submitted += len(rows)
    return submitted


async def complete(sink: KafkaSink, **security: Any) -> bool:
    """Whether the trades have every number that was given and not declared void."""
    topic, status = sink.settings.tick_topic(RowClass.TRADE), sink.settings.topic(STATUS)
    return (await audit(sink.settings.bootstrap_servers, [topic], status, **security)).complete
