"""Seeing to it that the topics are there, and how many partitions they have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ingestor.kafka.settings import (
    AUXILIARY_TOPICS,
    BOOK_SNAPSHOT,
    COMPACTED,
    TICK_TOPICS,
    KafkaSettings,
)
from ingestor.model.errors import SinkUnavailable

log = structlog.get_logger(__name__)

LOOKUP_TIMEOUT_S: Final = 15.0
_EXISTS: Final = 36  # TOPIC_ALREADY_EXISTS


async def create_topics(settings: KafkaSettings) -> None:
    """Create the topics that are missing, where the broker has the call and we have the right.

    A refusal is logged and is no error here: the topics may exist, or be created by first use.
    """
    try:
        admin = AIOKafkaAdminClient(**settings.client_options())
        try:
            await admin.start()
            response = await admin.create_topics(_new_topics(settings))
        finally:
            await admin.close()
    except (errors.IncompatibleBrokerVersion, AttributeError):
        # AttributeError: aiokafka stumbles over a cluster that names no controller.
        log.info("kafka.topics.created_by_use", reason="the broker has no CreateTopics")
        return
    except (errors.KafkaConnectionError, OSError):
        return  # no broker: starting the producer says why
    except errors.KafkaError as failure:
        log.warning("kafka.topics.not_created", reason=repr(failure))
        return
    for topic, code, text in response.topic_errors:
        if code == 0:
            log.info("kafka.topics.created", topic=topic)
        elif code != _EXISTS:
            reason = text or errors.for_code(code).__name__
            log.warning("kafka.topics.not_created", topic=topic, reason=reason)


def _new_topics(settings: KafkaSettings) -> list[NewTopic]:
    wide = {*TICK_TOPICS.values(), BOOK_SNAPSHOT}
    retention = {"cleanup.policy": "delete", "retention.ms": str(settings.retention_ms)}
    return [
        NewTopic(
            settings.topic(name),
            settings.partitions if name in wide else 1,
            settings.replication_factor,
            replica_assignments={},  # aiokafka wants it beside the default replication factor
            topic_configs={"cleanup.policy": "compact"} if name in COMPACTED else retention,
        )
        for name in (*TICK_TOPICS.values(), *AUXILIARY_TOPICS)
    ]


async def count_partitions(producer: AIOKafkaProducer, topics: Iterable[str]) -> dict[str, int]:
    """Return each topic's number of partitions; asking creates it where the broker does that.

    Raises SinkUnavailable, naming the topics that are not there.
    """
    counts: dict[str, int] = {}
    refused: dict[str, str] = {}
    for topic in topics:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                counts[topic] = len(await producer.partitions_for(topic))
        except TimeoutError:
            refused[topic] = "it does not exist and the broker does not create it"
        except errors.KafkaError as failure:
            refused[topic] = type(failure).__name__
    if refused:
        which = "; ".join(f"topic {topic}: {reason}" for topic, reason in refused.items())
        raise SinkUnavailable("Kafka", which)
    return counts
