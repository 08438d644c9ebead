"""Prepares Kafka for a cluster: topics, the group's settings, and whether brokers allow them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import orjson

from ingestor.app.settings import kafka_settings
from ingestor.cluster.clients import librdkafka_options
from ingestor.cluster.records import CLUSTER_KEY, SHARDS
from ingestor.config.model import ClusterConfig, Config
from ingestor.kafka.settings import CLAIMS, KafkaSettings
from ingestor.model.errors import ClusterError, SinkUnavailable

_Result = TypeVar("_Result")

TIMEOUT_S: Final = 15.0
# Claims that don't count are put right by the owner: none may be compacted away before that.
COMPACTION_LAG_MS: Final = 3_600_000
_SESSION: Final = "group.consumer.min.session.timeout.ms"
_HEARTBEAT: Final = "group.consumer.min.heartbeat.interval.ms"
_CLASSIC: Final = "group.min.session.timeout.ms"
_PROTOCOLS: Final = "group.coordinator.rebalance.protocols"


def floor_problem(found: Mapping[str, str], cluster: ClusterConfig) -> str:
    """Say why a broker doesn't allow the group's settings, "" where it does.

    Args:
        found: settings of a broker, by name.
        cluster: the wanted ones.
    """
    if cluster.protocol == "classic":
        floor_ms = int(found.get(_CLASSIC, "6000"))
        if cluster.session_timeout_ms < floor_ms:
            return _too_low("session_timeout_ms", cluster.session_timeout_ms, _CLASSIC, floor_ms)
        return ""
    if _SESSION not in found or "consumer" not in found.get(_PROTOCOLS, "consumer"):
        return (
            "the broker has no group protocol `consumer` (KIP-848, Kafka 4.0); set "
            'cluster.protocol = "classic"'
        )
    for key, wanted_ms, name in (
        ("session_timeout_ms", cluster.session_timeout_ms, _SESSION),
        ("heartbeat_interval_ms", cluster.heartbeat_interval_ms, _HEARTBEAT),
    ):
        floor_ms = int(found.get(name, "0"))
        if wanted_ms < floor_ms:
            return _too_low(key, wanted_ms, name, floor_ms)
    return ""


def _too_low(key: str, wanted_ms: int, name: str, floor_ms: int) -> str:
    return (
        f"cluster.{key} = {wanted_ms} is below the brokers' {name} = {floor_ms}; set "
        f"{name}={wanted_ms} in server.properties of each broker and restart it, or raise "
        f"cluster.{key} to {floor_ms}"
    )


async def broker_settings(config: Config) -> dict[str, str]:
    """Return the settings of one broker. Raises SinkUnavailable."""
    return await _in_thread(lambda: _describe(config))


async def prepare(config: Config, shards: int) -> list[str]:
    """Create the topics and set the group; return what was done, in words.

    Args:
        config: of any worker.
        shards: partitions of the plan's topic.

    Raises:
        ClusterError: the brokers don't allow it, or a cluster of another size is there.
        SinkUnavailable: Kafka can't be reached.
    """
    problem = floor_problem(await broker_settings(config), config.cluster)
    if problem:
        raise ClusterError(problem)
    return await _in_thread(lambda: _prepare(config, shards))


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    from confluent_kafka import KafkaException  # noqa: PLC0415  # an extra

    try:
        return await asyncio.to_thread(work)
    except KafkaException as failure:
        raise SinkUnavailable("Kafka", failure.args[0].str()) from failure


def _describe(config: Config) -> dict[str, str]:
    from confluent_kafka.admin import ConfigResource, ResourceType  # noqa: PLC0415

    admin = _admin(config)
    broker = next(iter(admin.list_topics(timeout=TIMEOUT_S).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    answers = admin.describe_configs([resource], request_timeout=TIMEOUT_S)
    return {name: entry.value or "" for name, entry in answers[resource].result(TIMEOUT_S).items()}


def _prepare(config: Config, shards: int) -> list[str]:
    settings = kafka_settings(config.kafka)
    admin = _admin(config)
    there = admin.list_topics(timeout=TIMEOUT_S).topics
    plan, claims = settings.topic(SHARDS), settings.topic(CLAIMS)
    done = []
    if plan in there and len(there[plan].partitions) != shards:
        raise ClusterError(
            f"{plan} has {len(there[plan].partitions)} shards, not {shards}; the number is fixed "
            "for a cluster's life",
            f"say --shards {len(there[plan].partitions)}, or use another kafka.topic_prefix",
        )
    lag = {"min.compaction.lag.ms": str(COMPACTION_LAG_MS)}
    for topic, partitions, more in ((plan, shards, {}), (claims, 1, lag)):
        if topic not in there:
            _create(admin, settings, topic, partitions, more)
            done.append(f"created {topic} with {partitions} partitions")
    _name(config, claims)
    if config.cluster.protocol == "consumer":
        _set_group(admin, config.cluster)
        done.append(
            f"group {config.cluster.name}: session {config.cluster.session_timeout_ms} ms, "
            f"heartbeat {config.cluster.heartbeat_interval_ms} ms"
        )
    return done


def group_members(config: Config) -> dict[str, list[int]]:
    """Return the shards that the group gives to each member, by its name."""
    topic = kafka_settings(config.kafka).topic(SHARDS)
    name = config.cluster.name
    admin = _admin(config)  # kept: without it no answer comes
    groups = admin.describe_consumer_groups([name], request_timeout=TIMEOUT_S)
    found: dict[str, list[int]] = {}
    for member in groups[name].result(TIMEOUT_S).members:
        places = member.assignment.topic_partitions if member.assignment else ()
        mine = sorted(place.partition for place in places if place.topic == topic)
        found.setdefault(member.client_id, []).extend(mine)
    return found


def _create(
    admin: Any, settings: KafkaSettings, topic: str, partitions: int, more: Mapping[str, str]
) -> None:
    from confluent_kafka.admin import NewTopic  # noqa: PLC0415

    options = {"cleanup.policy": "compact", **more}
    new = NewTopic(topic, partitions, settings.replication_factor, config=options)
    admin.create_topics([new], operation_timeout=TIMEOUT_S)[topic].result(TIMEOUT_S)


def _set_group(admin: Any, cluster: ClusterConfig) -> None:
    from confluent_kafka.admin import (  # noqa: PLC0415
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    values = {
        "consumer.session.timeout.ms": cluster.session_timeout_ms,
        "consumer.heartbeat.interval.ms": cluster.heartbeat_interval_ms,
    }
    entries = [
        ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    group = ConfigResource(ResourceType.GROUP, cluster.name, incremental_configs=entries)
    admin.incremental_alter_configs([group])[group].result(TIMEOUT_S)


def _name(config: Config, topic: str) -> None:
    """Write whose topics these are."""
    from confluent_kafka import Producer  # noqa: PLC0415

    failures: list[Any] = []
    producer = Producer({**librdkafka_options(config.kafka), "acks": "all"})
    producer.produce(
        topic,
        orjson.dumps({"name": config.cluster.name}),
        key=CLUSTER_KEY,
        partition=0,
        on_delivery=lambda failure, _message: failures.append(failure) if failure else None,
    )
    if producer.flush(TIMEOUT_S) or failures:
        raise SinkUnavailable("Kafka", str(failures[0]) if failures else "no answer")


def _admin(config: Config) -> Any:
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    return AdminClient(librdkafka_options(config.kafka))
