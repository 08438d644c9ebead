"""A cluster of real worker processes, and what it claimed and published."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from ingestor.app.settings import kafka_settings
from ingestor.cluster.records import read_claim
from ingestor.cluster.store import Cluster, read_cluster
from ingestor.config.load import load
from ingestor.kafka.settings import CLAIMS
from ingestor.sources.registry import markets
from tests.e2e.processes import Command, Venue, ingestor

SESSION_S = 3.0  # as `write_config` has it
PATIENCE_S = 45.0
PROGRAM = ("-m", "ingestor")


def feed_of(venue: Venue, channels: str = '"trades", "book"', streams: int = 4) -> str:
    """Return a feed of all symbols of a venue, on connections of few streams."""
    return f"""
[[feeds]]
venue = "simulated"
url = "{venue.url}"
rest_url = "{venue.rest_url}"
symbols = ["*"]
channels = [{channels}]
streams_per_connection = {streams}
"""


class Fleet:
    """Workers by name, of one configuration."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.workers: dict[str, Command] = {}
        self.watching = threading.Event()  # `kill_at` misses no claim from here on
        self._settings = kafka_settings(load(config, markets()).kafka)

    def prepare(self, shards: int) -> None:
        """Create the cluster and apply its plan."""
        env = dict(os.environ)
        for arguments in (
            ("init", str(self.config), "--shards", str(shards)),
            ("apply", str(self.config)),
        ):
            done = ingestor("cluster", *arguments, env=env)
            assert done.returncode == 0, done.stderr

    def start(self, *names: str, program: Sequence[str] = PROGRAM, servers: str = "") -> None:
        """Start workers.

        Args:
            names: Of the workers.
            program: What Python runs.
            servers: Where they reach Kafka, if not where the configuration says.
        """
        for name in names:
            env = {**os.environ, "INGESTOR__CLUSTER__MEMBER": name}
            if servers:
                env["INGESTOR__KAFKA__BOOTSTRAP_SERVERS"] = servers
            arguments = ("run", str(self.config), "--cluster", "--json")
            if name in self.workers:
                self.workers[name].close()
            self.workers[name] = Command(arguments, env, program=program)

    def signal(self, name: str, number: signal.Signals) -> None:
        self.workers[name].process.send_signal(number)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    def page(self, name: str) -> dict[str, Any]:
        """Return what the cluster's page of a worker is told."""
        port = self.cluster().claims.where[name].rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cluster.json", timeout=10) as answer:
            told: dict[str, Any] = orjson.loads(answer.read())
        return told

    # ------------------------------------------------------------------ claims

    def cluster(self) -> Cluster:
        return asyncio.run(read_cluster(self._settings, "prod"))

    def owners(self) -> dict[int, str]:
        """Return who publishes each live shard."""
        return {
            shard: claim.owner.member
            for shard, claim in self.cluster().claims.items()
            if claim.owner is not None and claim.state == "live"
        }

    def until(
        self, condition: Callable[[dict[int, str]], bool], timeout_s: float = PATIENCE_S
    ) -> float:
        """Wait until the owners are as wanted; return how long that took."""
        started_s = time.monotonic()
        while not condition(owners := self.owners()):
            took_s = time.monotonic() - started_s
            assert took_s < timeout_s, (
                owners,
                {n: w.err[-3_000:] for n, w in self.workers.items()},
            )
            time.sleep(0.1)
        return time.monotonic() - started_s

    def settle(self, shards: int, *names: str) -> None:
        """Wait until every shard is live, with these workers alone, each with its share."""
        least = shards // len(names)

        def is_dealt(owners: dict[int, str]) -> bool:
            counts = [list(owners.values()).count(name) for name in names]
            return sum(counts) == shards and min(counts) >= least

        self.until(is_dealt)

    def kill_at(self, member: str, state: str) -> None:
        """Kill a worker (SIGKILL) as soon as its next claim that says so is there."""
        asyncio.run(self._kill_at(member, state))

    async def _kill_at(self, member: str, state: str) -> None:
        settings = self._settings
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers, fetch_max_wait_ms=5
        )
        await consumer.start()
        try:
            place = TopicPartition(settings.topic(CLAIMS), 0)
            consumer.assign([place])
            await consumer.seek_to_end(place)
            await consumer.position(place)
            self.watching.set()
            async with asyncio.timeout(PATIENCE_S):
                async for record in consumer:
                    claim = read_claim(record.key, record.value)
                    if claim and (claim.life.member, claim.state.value) == (member, state):
                        self.signal(member, signal.SIGKILL)
                        return
        finally:
            await consumer.stop()

    # ------------------------------------------------------------------ rows

    def rows(self, topic: str = "trades.v1") -> list[Row]:
        """Return all rows of a topic that there are now, each partition in order."""
        return asyncio.run(self._rows(self._settings.topic(topic)))

    async def _rows(self, topic: str) -> list[Row]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.bootstrap_servers)
        await consumer.start()
        try:
            places = [TopicPartition(topic, number) for number in range(self._settings.partitions)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            found: list[Row] = []
            for place in places:
                while await consumer.position(place) < ends[place]:
                    batches = await consumer.getmany(place, timeout_ms=500)
                    for record in batches.get(place, ()):
                        found.append(_row(place.partition, orjson.loads(record.value)))
            return found
        finally:
            await consumer.stop()


@dataclass(frozen=True)
class Row:
    """One record of a topic of rows."""

    partition: int
    session: str
    key: str
    kind: str
    sequence: int
    cause: str
    ts_recv: int


def _row(partition: int, record: dict[str, Any]) -> Row:
    return Row(
        partition,
        record["session"],
        record["symbol"],
        record["kind"],
        int(record.get("sequence", 0)),
        str(record.get("cause", "")),
        record["ts_recv"],
    )


def by_key(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return found


def late_rows(rows: list[Row]) -> list[Row]:
    """Return rows of a session that come after another session's GAP of a takeover."""
    late = []
    for own in by_key(rows).values():
        taken: set[str] = set()
        seen: set[str] = set()
        for row in own:
            if row.session in taken:
                late.append(row)
            if row.cause == "takeover":
                taken |= seen - {row.session}
            seen.add(row.session)
    return late


def missing(rows: list[Row]) -> dict[str, list[int]]:
    """Return the trade numbers that are missing between the first and the last, by instrument."""
    found = {}
    for key, own in by_key(rows).items():
        numbers = {row.sequence for row in own if row.kind == "trade"}
        absent = sorted(set(range(min(numbers), max(numbers))) - numbers)
        if absent:
            found[key] = absent
    return found


@contextmanager
def fleet(config: Path) -> Iterator[Fleet]:
    running = Fleet(config)
    try:
        yield running
    finally:
        running.close()
