"""Topics that are there are found; those that are not are named."""

from __future__ import annotations

import time

import pytest

from ingestor.kafka.aiokafka_compat import end_producer
from ingestor.kafka.settings import AUXILIARY_TOPICS, KafkaSettings
from ingestor.model.errors import SinkUnavailable
from ingestor.sinks.kafka import topic_keeper
from ingestor.sinks.kafka.producer import start_producer
from ingestor.sinks.kafka.topic_keeper import TopicKeeper
from ingestor.testbed.broker import DevBroker

METADATA, UNKNOWN_TOPIC = 3, 3


async def find(settings: KafkaSettings) -> TopicKeeper:
    keeper = TopicKeeper(settings, {})
    await keeper.prepare()
    producer = await start_producer(settings)
    try:
        await keeper.find(producer)
    finally:
        await end_producer(producer)
    return keeper


async def test_a_broker_without_that_call_creates_topics_by_use() -> None:
    with DevBroker() as broker:
        await find(KafkaSettings(broker.bootstrap_servers))


async def test_one_tick_topic_is_enough_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_keeper, "create_topics_by_use", _nothing)
    monkeypatch.setattr(topic_keeper, "FIND_TIMEOUT_S", 0.3)
    topics = {f"md.{name}": 1 for name in ("trades.v1", *AUXILIARY_TOPICS)}
    with DevBroker(topics) as broker:
        await find(KafkaSettings(broker.bootstrap_servers, create_topics=False))


async def test_no_tick_topic_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_keeper, "create_topics_by_use", _nothing)
    monkeypatch.setattr(topic_keeper, "FIND_TIMEOUT_S", 0.3)
    started_s = time.monotonic()
    with DevBroker({"other": 1}) as broker, pytest.raises(SinkUnavailable) as raised:
        await find(KafkaSettings(broker.bootstrap_servers, create_topics=False))
    text = str(raised.value)
    for topic in ("md.trades.v1", "md.quotes.v1", "md.book.v1"):
        assert f"topic {topic}: it does not exist" in text
    assert "\n" not in text
    assert time.monotonic() - started_s < 10


async def _nothing(*_given: object) -> None:
    """Create no topic."""
