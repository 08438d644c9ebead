"""Brokers that allow a cluster's short sessions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import KafkaBroker

# Docs: the floors can only be set in server.properties (docs/cluster.md).
FLOORS = {
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
}

MakeConfig = Callable[..., Path]


@pytest.fixture(scope="session")
def cluster_kafka(kafka_tools: None) -> Iterator[KafkaBroker]:
    """One broker for the tests that leave it up."""
    with KafkaBroker(FLOORS) as broker:
        yield broker


def write_config(
    folder: Path,
    servers: str,
    *,
    prefix: str = "",
    name: str = "prod",
    more: str = "",
    feeds: str = "",
    cluster: str = "",
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
[cluster]
name = "{name}"
session_timeout_ms = 3_000
heartbeat_interval_ms = 500
{cluster}
[http]
port = 0
[catalogue]
cache_dir = "{folder / "lists"}"
{more}
{feeds}
""",
        encoding="utf-8",
    )
    return path
