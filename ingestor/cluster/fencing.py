"""Which partitions a worker may write to, and how it is kept from that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition, errors

from ingestor.cluster.claims import Life
from ingestor.cluster.records import transactional_id
from ingestor.cluster.store import Cluster, check_member
from ingestor.kafka.aiokafka_compat import AIOKafkaClient
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.fencing import fence, persist
from ingestor.kafka.settings import AUXILIARY_TOPICS, CLAIMS, KafkaSettings
from ingestor.kafka.transactions import Coordinator
from ingestor.model.errors import SinkUnavailable
from ingestor.model.row_classes import ROW_CLASSES

TRY_S: Final = 10.0


def topics_written(settings: KafkaSettings) -> list[str]:
    """Return all topics that a worker may write to."""
    ticks = [settings.tick_topic(row_class) for row_class in ROW_CLASSES]
    return [*ticks, *map(settings.topic, (*AUXILIARY_TOPICS, CLAIMS))]


async def partitions_written(
    client: AIOKafkaClient, settings: KafkaSettings
) -> list[TopicPartition]:
    """Return all partitions that a worker may write to, as Kafka has them now."""
    metadata = await client.fetch_all_metadata()
    return [
        TopicPartition(topic, number)
        for topic in topics_written(settings)
        for number in sorted(metadata.partitions_for_topic(topic) or ())
    ]


async def fence_life(
    client: AIOKafkaClient, settings: KafkaSettings, cluster: str, life: Life
) -> None:
    """Return once Kafka refuses what a life still sends.

    Args:
        client: A connected client.
        settings: Names of the topics.
        cluster: Name of the cluster.
        life: The life to fence.

    Raises:
        FenceFailed: Kafka refuses.
    """
    name = transactional_id(cluster, life)
    await fence(client, name, await partitions_written(client, settings))


async def try_life(settings: KafkaSettings, cluster: str) -> None:
    """Take a producer id under a name of the cluster's lives, as a worker and whoever fences it do.

    Args:
        settings: How to reach Kafka.
        cluster: Name of the cluster.

    Raises:
        SinkUnavailable: Kafka can't be reached, or refuses; says why.
    """
    producer = AIOKafkaProducer(**settings.client_options())
    try:
        await producer.start()
        name = transactional_id(cluster, Life("doctor", "0"))
        async with asyncio.timeout(TRY_S):
            await persist(Coordinator(producer.client, name).init_producer_id)
    except (errors.KafkaError, OSError, TimeoutError) as failure:
        raise SinkUnavailable("Kafka", error_name(failure)) from failure
    finally:
        await producer.stop()


async def fence_member(settings: KafkaSettings, cluster: Cluster, member: str) -> int:
    """Fence all lives of a member that own something.

    Args:
        settings: How to reach Kafka.
        cluster: What the topics say.
        member: Name of the member.

    Returns:
        How many shards they own.

    Raises:
        ClusterError: No member has that name.
        FenceFailed: Kafka refuses.
    """
    check_member(cluster, member)
    lives = [life for life in cluster.claims.lives() if life.member == member]
    producer = AIOKafkaProducer(**settings.client_options())
    await producer.start()
    try:
        for life in sorted(lives):
            await fence_life(producer.client, settings, cluster.name, life)
    finally:
        await producer.stop()
    return _owned(cluster, lives)


def _owned(cluster: Cluster, lives: Iterable[Life]) -> int:
    owners = set(lives)
    return sum(claim.owner in owners for _, claim in cluster.claims.items())
