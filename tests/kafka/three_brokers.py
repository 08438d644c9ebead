"""Three nodes of Apache Kafka that are one cluster, each a broker and a controller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from struct import pack, unpack, unpack_from
from typing import Any, Final, Self

from confluent_kafka import ElectionType, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.kafka.broker import KafkaBroker, KafkaEndpoint

NODES: Final = (1, 2, 3)
_ANSWER_S: Final = 30.0
# A lost node loses nothing: two others have all that was acknowledged.
_SAFE: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "auto.leader.rebalance.enable": "false",
}


class ThreeBrokers(KafkaEndpoint):
    """A context manager: all three nodes run within it, unless one is killed."""

    def __init__(self, overrides: Mapping[str, str] | None = None) -> None:
        self.nodes = {node: KafkaBroker({**_SAFE, **(overrides or {})}) for node in NODES}
        voters = ",".join(f"{node}@{broker.controller}" for node, broker in self.nodes.items())
        for node, broker in self.nodes.items():
            broker.node, broker.voters = node, voters
        servers = ",".join(broker.address for broker in self.nodes.values())
        super().__init__(servers, "Apache Kafka from Maven, three nodes")

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(len(NODES)) as pool:  # none is ready before two run
            list(pool.map(lambda broker: broker.start(120.0), self.nodes.values()))
        deadline_s = time.monotonic() + _ANSWER_S
        while len(self._admin().list_topics(timeout=_ANSWER_S).brokers) < len(NODES):
            assert time.monotonic() < deadline_s, "not all nodes joined"
            time.sleep(0.1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for broker in self.nodes.values():
            broker.close()

    def coordinator(self, group: str) -> int:
        """Return the node that coordinates a group."""
        admin = self._admin()
        while True:
            try:
                found = admin.describe_consumer_groups([group])[group].result(_ANSWER_S)
            except KafkaException:  # it has none yet
                time.sleep(0.1)
            else:
                node: int = found.coordinator.id
                return node

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leader of each partition."""
        admin = self._admin()  # kept: without it no answer comes
        described = admin.describe_topics(TopicCollection([topic]))[topic]
        return {part.id: part.leader.id for part in described.result(_ANSWER_S).partitions}

    async def move_leader(self, topic: str, partition: int, node: int) -> None:
        """Have another replica lead a partition, without moving data; return once it does.

        Args:
            topic: Its topic.
            partition: Its number.
            node: Leads from now on.
        """
        order = [node, *(one for one in NODES if one != node)]
        host, _, port = self.nodes[node].address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(_reassignment(topic, partition, order))
            [size] = unpack(">i", await reader.readexactly(4))
            # Correlation id, no tags, throttled for ms, error code.
            [code] = unpack_from(">h", await reader.readexactly(size), 9)
        finally:
            writer.close()
        assert code == 0, f"Kafka refuses with error code {code}"
        await asyncio.to_thread(self._elect, TopicPartition(topic, partition))
        async with asyncio.timeout(_ANSWER_S):
            while self.leaders(topic)[partition] != node:
                await asyncio.sleep(0.02)

    def _elect(self, place: TopicPartition) -> None:
        admin = self._admin()
        found = admin.elect_leaders(ElectionType.PREFERRED, [place]).result(_ANSWER_S)
        assert all(error is None for error in found.values()), found

    def _admin(self) -> Any:
        options: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap_servers,
            "log_level": 0,
        }
        return AdminClient(options)


def _reassignment(topic: str, partition: int, replicas: list[int]) -> bytes:
    """Return AlterPartitionReassignments 0, of Kafka's protocol guide: no client has it in public.

    Lengths of the compact arrays and strings are one more than those of what follows.
    """
    name = topic.encode()
    parts = (
        pack(">hhihB", 45, 0, 1, -1, 0),  # header 2: key, version, correlation id, no client id
        pack(">iBB", int(_ANSWER_S * 1e3), 2, len(name) + 1),
        name,
        pack(">BiB", 2, partition, len(replicas) + 1),
        pack(f">{len(replicas)}i", *replicas),
        b"\0\0\0",  # no tags, of partition, topic and request
    )
    body = b"".join(parts)
    return pack(">i", len(body)) + body
