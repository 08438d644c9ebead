"""Membership in the group that deals shards: the one adapter over a client's group protocol.

`Group` over confluent-kafka is what a worker uses; tests use a fake of `Membership`. Ownership is
not decided here: callbacks only say what the group wants (`ingestor.cluster.shards` decides).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog

from ingestor.cluster.clients import librdkafka_options
from ingestor.config.model import Config
from ingestor.model.backoff import Backoff
from ingestor.telemetry.bulkheads import bulkheads

log = structlog.get_logger(__name__)

# A loop that hangs for so long loses its shards: it polls by itself.
POLL_MAX_MS: Final = 10_000
POLL_S: Final = 0.1
BACKOFF: Final = Backoff(base_s=0.5, cap_s=5.0, floor_s=0.2)


class Member(Protocol):
    """Told what the group wants."""

    async def assigned(self, shards: Sequence[int]) -> None:
        """The group gives shards to this worker."""

    async def revoked(self, shards: Sequence[int]) -> None:
        """The group takes shards away; it gives them to others once this returns."""

    async def lost(self, shards: Sequence[int]) -> None:
        """The group may have given shards to others already."""

    def record(self, shard: int, key: bytes, value: bytes | None) -> None:
        """Take the next record of a shard's plan.

        Args:
            shard: Number of the shard.
            key: Key of the record.
            value: Value of the record, None where it is deleted.
        """

    def at_end(self, shard: int) -> None:
        """All records of a shard's plan that there are now were told."""


class Membership(Protocol):
    """A place in the group."""

    async def run(self, member: Member) -> None:
        """Join, and tell the member what happens, until `leave`."""

    def leave(self) -> None:
        """Give all shards back in order and leave the group; `run` ends then."""

    def abandon(self) -> None:
        """Leave the group without giving anything back: this life is over."""


class Group:
    """A dynamic member of a Kafka consumer group, on the loop that it is run on."""

    def __init__(self, config: Config, topic: str, name: str) -> None:
        """Create the group.

        Args:
            config: of the worker.
            topic: full name of the plan's topic.
            name: of this member.
        """
        cluster = config.cluster
        self._topic = topic
        self._options: dict[str, Any] = {
            **librdkafka_options(config.kafka),
            "group.id": cluster.name,
            "client.id": name,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "max.poll.interval.ms": max(POLL_MAX_MS, cluster.session_timeout_ms),
            "fetch.wait.max.ms": 100,
        }
        if cluster.protocol == "consumer":
            self._options |= {"group.protocol": "consumer", "group.remote.assignor": "uniform"}
        else:
            self._options |= {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": cluster.session_timeout_ms,
                "heartbeat.interval.ms": cluster.heartbeat_interval_ms,
            }
        self._leaving = asyncio.Event()
        self._abandoned = False
        self.failure = ""

    def leave(self) -> None:
        """Give all shards back in order and leave the group; `run` ends then."""
        self._leaving.set()

    def abandon(self) -> None:
        """Leave the group without giving anything back: this life is over."""
        self._abandoned = True
        self._leaving.set()

    async def run(self, member: Member) -> None:
        """Join, and tell the member what happens, until `leave`.

        A client that ended for good is made anew.
        """
        attempt = 0
        while not self._leaving.is_set():
            try:
                await self._join(member)
            except Exception as failure:  # noqa: BLE001  # the boundary of the group's client
                self.failure = str(failure)
                log.warning("cluster.group.failed", reason=str(failure))
                await asyncio.sleep(BACKOFF.delay_s(attempt, random.random))
                attempt += 1

    async def _join(self, member: Member) -> None:
        from confluent_kafka.aio import AIOConsumer  # noqa: PLC0415  # an extra

        consumer = AIOConsumer(self._options, max_workers=3)
        told: set[int] = set()

        async def assigned(one: Any, places: Any) -> None:
            shards = [place.partition for place in places]
            await one.incremental_assign(places)
            told.update(shards)
            if not self._abandoned:
                await self._tell(member.assigned, shards)

        async def revoked(one: Any, places: Any) -> None:
            shards = [place.partition for place in places]
            told.difference_update(shards)
            if not self._abandoned:
                await self._tell(member.revoked, shards)
            await one.incremental_unassign(places)

        async def lost(_one: Any, places: Any) -> None:
            shards = [place.partition for place in places]
            told.difference_update(shards)
            if not self._abandoned:
                await self._tell(member.lost, shards)

        try:
            await consumer.subscribe(
                [self._topic], on_assign=assigned, on_revoke=revoked, on_lost=lost
            )
            while not self._leaving.is_set():
                self._take(member, await consumer.poll(POLL_S))
        finally:
            await consumer.close()
            if told and not self._leaving.is_set():
                await self._tell(member.lost, sorted(told))

    async def _tell(self, tell: Callable[[Sequence[int]], Any], shards: Sequence[int]) -> None:
        try:
            await tell(shards)
        except Exception as failure:  # noqa: BLE001  # the boundary of a callback
            bulkheads.bug("cluster", failure, shards=len(shards))

    def _take(self, member: Member, message: Any) -> None:
        from confluent_kafka import KafkaError, KafkaException  # noqa: PLC0415

        if message is None:
            return
        error = message.error()
        if error is None:
            self.failure = ""
            member.record(message.partition(), message.key() or b"", message.value())
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
            member.at_end(message.partition())
        elif error.code() == KafkaError._FATAL or error.fatal():  # noqa: SLF001
            raise KafkaException(error)
        else:
            self.failure = error.str()
            log.debug("cluster.group.error", reason=error.str())
