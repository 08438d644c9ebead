"""Check the surroundings for `ingestor doctor`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from ingestor.app.descriptors import RESERVE, raise_limit
from ingestor.app.settings import kafka_settings
from ingestor.cli.surroundings import (
    Finding,
    State,
    examine_disk,
    examine_limits,
    examine_login,
    examine_venues,
)
from ingestor.cluster.fencing import try_life
from ingestor.cluster.setup import broker_settings, floor_problem
from ingestor.config.model import Config, split_address
from ingestor.kafka.topics import compaction_text, prepare_topics
from ingestor.model.errors import SinkUnavailable
from ingestor.native import native

_PACKAGES: Final = ("aiokafka", "cramjam", "numpy", "orjson", "picows", "uvloop", "websockets")
_EXTRAS: Final = {
    "cluster": "confluent_kafka",
    "demo": "confluent_kafka",
    "parquet": "pyarrow",
}
_CONNECT_TIMEOUT_S: Final = 3.0
_RMEM_MAX: Final = Path("/proc/sys/net/core/rmem_max")


async def examine(config: Config) -> list[Finding]:
    """Look at everything; takes some seconds when the broker or a venue doesn't answer."""
    brokers = await asyncio.gather(
        *(_broker(part.strip()) for part in config.kafka.bootstrap_servers.split(","))
    )
    has_broker = any(broker.state == "ok" for broker in brokers)
    login, venues = await asyncio.gather(
        examine_login(config) if has_broker else _nothing(), examine_venues(config)
    )
    topics: list[Finding] = []
    if all(finding.state == "ok" for finding in login) and has_broker:
        topics = [*await examine_topics(config), *await examine_cluster(config)]
    return [
        _python(),
        _packages(),
        _extras(),
        _native(),
        _open_files(config),
        _receive_buffer(config),
        _cache(config),
        _http(config),
        *examine_limits(config),
        *examine_disk(config),
        *brokers,
        *login,
        *topics,
        *venues,
    ]


async def _nothing() -> list[Finding]:
    return []


def _python() -> Finding:
    state: State = "ok" if sys.version_info >= (3, 11) else "failed"
    return Finding("python", state, f"{platform.python_version()} on {platform.system()}")


def _packages() -> Finding:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return Finding("packages", "ok", ", ".join(versions))


def _extras() -> Finding:
    present = {
        name: importlib.util.find_spec(module) is not None for name, module in _EXTRAS.items()
    }
    text = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in present.items())
    return Finding("extras", "ok", text)


def _native() -> Finding:
    found = native()
    if found.library is not None:
        return Finding("frames", "ok", "read in C")
    return Finding("frames", "warning", f"read in Python, a third as fast: {found.reason}")


def _open_files(config: Config) -> Finding:
    limit = raise_limit()  # as `run` does
    wanted = config.limits.connections_max + RESERVE
    if limit >= wanted:
        return Finding("open files", "ok", f"{limit:,}")
    text = f"{limit:,} are fewer than {wanted:,} (limits.connections_max): raise ulimit -n"
    return Finding("open files", "warning", f"{text}; connections beyond that wait")


def _receive_buffer(config: Config) -> Finding:
    wanted = config.limits.receive_buffer_bytes
    # The network namespace of a container may not show the bound, which holds there too.
    largest = int(_RMEM_MAX.read_text()) if _RMEM_MAX.exists() else None
    if largest is None or largest >= wanted:
        return Finding("receive buffer", "ok", f"{wanted:,} bytes for each connection")
    text = f"{largest:,} bytes are all that the kernel allows of {wanted:,}"
    remedy = "raise net.core.rmem_max, or lower limits.receive_buffer_bytes"
    return Finding("receive buffer", "warning", f"{text}: {remedy}")


def _cache(config: Config) -> Finding:
    folder = config.catalogue.cache_dir.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as failure:
        text = f"{folder}: {failure.strerror}: instrument lists are fetched at each start"
        return Finding("cache folder", "warning", text)
    return Finding("cache folder", "ok", str(folder))


def _http(config: Config) -> Finding:
    address = (config.http.host, config.http.port)
    if not config.http.enabled or config.http.port == 0:
        return Finding("http port", "ok", "none is fixed")
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
    except OSError as failure:
        reason = os.strerror(failure.errno) if failure.errno else str(failure)
        return Finding("http port", "failed", f"{address[0]}:{address[1]}: {reason}")
    return Finding("http port", "ok", f"{address[0]}:{address[1]} is free")


async def examine_topics(config: Config) -> list[Finding]:
    """Look at the topics that exist; nothing is created, and no broker is no finding here.

    Raises ConfigError when the password or a certificate can't be read.
    """
    settings = replace(kafka_settings(config.kafka), create_topics=False, request_timeout_ms=5_000)
    report = await prepare_topics(settings)
    if not report.is_read:
        return []
    if report.compacted:
        return [Finding("topics", "failed", compaction_text(report.compacted))]
    return [Finding("topics", "ok", "no tick topic compacts")]


async def examine_cluster(config: Config) -> list[Finding]:
    """Look whether the brokers allow the cluster's settings, where any are configured."""
    has_client = importlib.util.find_spec("confluent_kafka") is not None
    if "cluster" not in config.model_fields_set or not has_client:
        return []
    try:
        problem = floor_problem(await broker_settings(config), config.cluster)
    except SinkUnavailable as failure:
        return [Finding("cluster", "warning", f"not looked at: {failure.reason}")]
    if problem:
        return [Finding("cluster", "failed", problem)]
    sessions = Finding("cluster", "ok", f"the brokers allow {config.cluster.name}'s sessions")
    return [sessions, await _lives(config)]


async def _lives(config: Config) -> Finding:
    """Try to take a producer id as a life does; nothing is written."""
    try:
        await try_life(kafka_settings(config.kafka), config.cluster.name)
    except SinkUnavailable as failure:
        text = f"{failure.reason}: Write on the transactional ids {config.cluster.name}.* is needed"
        return Finding("lives", "failed", text)
    return Finding("lives", "ok", f"transactional ids {config.cluster.name}.* may be written")


async def _broker(address: str) -> Finding:
    host, port = split_address(address)
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except TimeoutError:
        return Finding("broker", "failed", f"{address}: no answer in {_CONNECT_TIMEOUT_S:g} s")
    except OSError as failure:
        reason = os.strerror(failure.errno) if failure.errno and failure.errno > 0 else str(failure)
        return Finding("broker", "failed", f"{address}: {reason}")
    return Finding("broker", "ok", f"{address} accepts connections")
