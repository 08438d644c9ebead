"""Reads and writes the cluster's two topics as whole tables: what the commands do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors

from ingestor.cluster.claims import ClaimTable
from ingestor.cluster.rates import ShardRates, read_rates
from ingestor.cluster.records import (
    CLUSTER_KEY,
    COMMAND_PREFIX,
    PLAN_KEY,
    SHARDS,
    Revision,
    ShardLog,
    read_claim,
)
from ingestor.kafka.aiokafka_compat import topics_of, wait_for_metadata
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.settings import CLAIMS, KafkaSettings
from ingestor.model.errors import ClusterError, SinkUnavailable

_FETCH_MS: Final = 500
_FENCED: Final = (errors.ProducerFenced, errors.InvalidProducerEpoch)

Changes = Mapping[int, Sequence[tuple[bytes, bytes | None]]]  # records by partition


@dataclass(frozen=True, slots=True)
class Cluster:
    """Hold what the topics say."""

    name: str
    shards: dict[int, ShardLog]
    claims: ClaimTable
    rates: dict[int, ShardRates] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        """The newest revision that any shard was closed with, whole or not."""
        return 0 if self._newest is None else self._newest.revision

    @property
    def config(self) -> str:
        """The digest of the feeds that the newest revision was made of."""
        return "" if self._newest is None else self._newest.config

    @property
    def _newest(self) -> Revision | None:
        closed = [log.closing for log in self.shards.values() if log.closing is not None]
        return max(closed, key=lambda item: item.revision, default=None)


async def read_cluster(settings: KafkaSettings, name: str) -> Cluster:
    """Read the plan and the claims.

    Args:
        settings: how to reach Kafka.
        name: the cluster's, as configured.

    Raises:
        ClusterError: there is none, or it has another name.
        SinkUnavailable: Kafka can't be reached.
    """
    plan, claims = settings.topic(SHARDS), settings.topic(CLAIMS)
    async with _consumer(settings) as consumer:
        try:
            topics = await topics_of(consumer)
            if not {plan, claims} <= topics:
                where = (
                    f"at {settings.bootstrap_servers} under the prefix {settings.topic_prefix!r}"
                )
                hint = f"run `ingestor cluster init`, which creates {plan} and {claims}"
                raise ClusterError(f"no cluster {where}", hint)
            table, rates, found = ClaimTable(), dict[int, ShardRates](), ""
            for _, key, value, ts_ms in await _read(consumer, claims):
                if key == CLUSTER_KEY and value is not None:
                    found = str(orjson.loads(value)["name"])
                claim, measured = read_claim(key, value), read_rates(key, value)
                if claim is not None:
                    table.take(claim, ts_ms)
                if measured is not None:
                    rates[measured[0]] = measured[1]
            check_name(name, found)
            shards: dict[int, ShardLog] = {}
            for partition, key, value, _ in await _read(consumer, plan):
                shards.setdefault(partition, ShardLog()).take(key, value)
            for partition in sorted(consumer.partitions_for_topic(plan) or ()):
                shards.setdefault(partition, ShardLog())
        except (errors.KafkaError, OSError, TimeoutError) as failure:
            raise SinkUnavailable("Kafka", error_name(failure)) from failure
    return Cluster(found, dict(sorted(shards.items())), table, rates)


def check_name(configured: str, found: str) -> None:
    """Raise ClusterError where the topics belong to a cluster of another name."""
    if configured != found:
        near = get_close_matches(configured, [found], 1)
        hint = f"did you mean {found!r}?" if near else f"these topics are those of {found!r}"
        raise ClusterError(f"cluster {configured!r} is unknown", hint)


async def write_plan(
    settings: KafkaSettings, name: str, changes: Changes, expected: int | None = None
) -> None:
    """Write a revision of the plan, as one transaction.

    Two who write at once fence each other: the one that began first fails.

    Args:
        settings: how to reach Kafka.
        name: of the cluster.
        changes: records for each partition, in order; the last one closes the revision.
        expected: the revision that must be the newest one, None for any.

    Raises:
        ClusterError: somebody else writes at the same time, or has written.
        SinkUnavailable: Kafka can't be reached, or refuses.
    """
    topic = settings.topic(SHARDS)
    producer = AIOKafkaProducer(
        transactional_id=f"{name}.apply",
        compression_type=settings.compression,
        max_request_size=settings.max_batch_bytes * 4,
        **settings.client_options(),
    )
    overtaken = ClusterError(
        "another `ingestor cluster apply` ran at the same time; nothing was changed",
        "look at `ingestor cluster status`, then apply again",
    )
    try:
        await producer.start()
        # From here on an `apply` that began before can't commit: what is read now stays true.
        now = (await read_cluster(settings, name)).revision
        if expected is not None and now != expected:
            raise ClusterError(
                f"the plan is at revision {now}, not at {expected}; nothing was changed",
                "look at what was applied, then apply again",
            )
        async with producer.transaction():
            for partition, records in sorted(changes.items()):
                for key, value in records:
                    await producer.send(topic, value, key=key, partition=partition)
    except _FENCED:
        raise overtaken from None
    except errors.KafkaError as failure:
        if isinstance(failure.__context__, _FENCED):
            raise overtaken from None
        raise SinkUnavailable("Kafka", error_name(failure)) from failure
    except (OSError, TimeoutError) as failure:
        raise SinkUnavailable("Kafka", str(failure) or type(failure).__name__) from failure
    finally:
        await producer.stop()


def check_member(cluster: Cluster, member: str) -> None:
    """Raise ClusterError where no member with that name owns anything."""
    known = sorted({life.member for life in cluster.claims.lives()})
    if member not in known:
        near = get_close_matches(member, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
        raise ClusterError(f"no member {member!r} owns a shard", hint)


async def write_command(settings: KafkaSettings, member: str, what: str) -> None:
    """Tell a member something.

    Args:
        settings: How to reach Kafka.
        member: Name of the member.
        what: The command.

    Raises:
        SinkUnavailable: Kafka can't be reached.
    """
    producer = AIOKafkaProducer(acks="all", **settings.client_options())
    key = COMMAND_PREFIX + member.encode()
    value = orjson.dumps({"member": member, "command": what})
    try:
        await producer.start()
        await producer.send_and_wait(settings.topic(CLAIMS), value, key=key, partition=0)
    except (errors.KafkaError, OSError, TimeoutError) as failure:
        raise SinkUnavailable("Kafka", str(failure) or type(failure).__name__) from failure
    finally:
        await producer.stop()


def revision_records(
    before: Mapping[int, ShardLog], after: Mapping[int, Mapping[bytes, bytes]], closing: Changes
) -> dict[int, list[tuple[bytes, bytes | None]]]:
    """Return what to write so that each shard has its new connections.

    Args:
        before: what the topic has.
        after: the connections of each shard, by key.
        closing: the closing record of each shard.
    """
    found: dict[int, list[tuple[bytes, bytes | None]]] = {}
    for shard, wanted in after.items():
        old = before[shard].records if shard in before else {}
        gone: list[tuple[bytes, bytes | None]] = [(key, None) for key in old if key not in wanted]
        new = [(key, value) for key, value in wanted.items() if old.get(key) != value]
        found[shard] = [*gone, *new, *closing[shard]]
    return found


def closing_of(value: bytes) -> list[tuple[bytes, bytes | None]]:
    """Return the closing record as the one change that it is."""
    return [(PLAN_KEY, value)]


@asynccontextmanager
async def _consumer(settings: KafkaSettings) -> AsyncIterator[AIOKafkaConsumer]:
    options = settings.client_options()
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed", enable_auto_commit=False, **options
    )
    try:
        await consumer.start()
        yield consumer
    except (errors.KafkaError, OSError) as failure:
        raise SinkUnavailable("Kafka", str(failure) or error_name(failure)) from failure
    finally:
        await consumer.stop()


async def _read(
    consumer: AIOKafkaConsumer, topic: str
) -> list[tuple[int, bytes, bytes | None, int]]:
    """Return all records of a topic up to now: partition, key, value, time in ms."""
    partitions = await _partitions(consumer, topic)
    places = [TopicPartition(topic, number) for number in partitions]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    ends = await consumer.end_offsets(places)
    found = []
    open_places = {place for place in places if ends[place] > 0}
    while open_places:
        batches = await consumer.getmany(*open_places, timeout_ms=_FETCH_MS)
        for place, records in batches.items():
            found += [
                (place.partition, record.key or b"", record.value, record.timestamp)
                for record in records
            ]
        for place in list(open_places):
            if await consumer.position(place) >= ends[place]:
                open_places.discard(place)
    return found


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    await wait_for_metadata(consumer, topic)
    return sorted(consumer.partitions_for_topic(topic) or ())
