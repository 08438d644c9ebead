"""Brokers that allow a cluster's short sessions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.consumer import LoopThread
from tests.faults.proxy import FaultProxy
from tests.kafka.broker import KafkaBroker

# Docs: the floors can only be set in server.properties (docs/cluster.md).
FLOORS = {
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
}

MakeConfig = Callable[..., Path]


class Link:
    """What lies between one worker and Kafka, for tests without a loop of their own."""

    def __init__(self, proxy: FaultProxy, loop: LoopThread) -> None:
        self._proxy = proxy
        self._loop = loop
        self.address = proxy.address

    def cut(self) -> None:
        """Hold all bytes, those under way too: they arrive once the link is mended."""
        self._loop.call(self._proxy.freeze)

    def mend(self) -> None:
        self._loop.call(self._proxy.mend)


@pytest.fixture(scope="session")
def proxy() -> FaultProxy:
    """It has a port from the beginning: the broker sends its clients there."""
    return FaultProxy()


@pytest.fixture(scope="session")
def cluster_kafka(kafka_tools: None, proxy: FaultProxy) -> Iterator[KafkaBroker]:
    """One broker for the tests that leave it up."""
    with KafkaBroker(FLOORS, through=proxy.address) as broker:
        yield broker


@pytest.fixture
def link(cluster_kafka: KafkaBroker, proxy: FaultProxy) -> Iterator[Link]:
    """A way to the broker that can be cut."""
    proxy.target = cluster_kafka.proxied_address
    loop = LoopThread()
    loop.enter(proxy)
    try:
        yield Link(proxy, loop)
    finally:
        loop.leave(proxy)


def write_config(
    folder: Path,
    servers: str,
    *,
    prefix: str = "",
    name: str = "prod",
    more: str = "",
    feeds: str = "",
    cluster: str = "",
    lists: str = "",
    kafka: str = "",
) -> Path:
    """Write a configuration of a cluster with a prefix of its own; return its path."""
    path = folder / "cluster.toml"
    path.write_text(
        f"""
[kafka]
bootstrap_servers = "{servers}"
topic_prefix = "{prefix or f"c{uuid.uuid4().hex[:10]}."}"
partitions = 3
request_timeout_ms = 5_000
{kafka}
[cluster]
name = "{name}"
session_timeout_ms = 3_000
heartbeat_interval_ms = 500
{cluster}
[http]
port = 0
[catalogue]
cache_dir = "{folder / "lists"}"
{lists}
{more}
{feeds}
""",
        encoding="utf-8",
    )
    return path
