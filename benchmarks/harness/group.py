"""A real group of light members on the tests' Kafka: how long shards are without an owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.harness.results import progress
from ingestor.cluster.setup import prepare
from ingestor.config.model import Config
from tests.kafka.broker import KafkaBroker

PREFIX: Final = "light."
PROCESSES: Final = 4
PATIENCE_S: Final = 60.0
SETTLED_S: Final = 2.0  # without an event
FLOORS: Final = {
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
}


class Members:
    """Processes of several members each, and what the group gave to whom."""

    def __init__(self, servers: str) -> None:
        self.owners: dict[int, str] = {}
        self.revoked = 0
        self._servers = servers
        self._changed_s = time.monotonic()
        self._processes: list[tuple[subprocess.Popen[bytes], Sequence[str]]] = []

    def start(self, names: Sequence[str]) -> None:
        """Start one process with these members."""
        command = [sys.executable, "-m", "benchmarks.peers.group_members", self._servers, PREFIX]
        process = subprocess.Popen([*command, *names], stdout=subprocess.PIPE, env=dict(os.environ))
        self._processes.append((process, names))
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def end(self, number: signal.Signals) -> Sequence[str]:
        """End the oldest process; return its members."""
        process, names = self._processes.pop(0)
        process.send_signal(number)
        return names

    def close(self) -> None:
        for process, _ in self._processes:
            process.kill()
            process.wait()

    def until_dealt(self, shards: int, members: set[str]) -> float:
        """Wait until these members have all shards; return when the last one was given."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            owners = list(self.owners.values())
            is_whole = len(owners) == shards and set(owners) == members
            if is_whole and time.monotonic() - self._changed_s > SETTLED_S:
                return self._changed_s
            time.sleep(0.05)
        raise RuntimeError(f"{len(self.owners)} of {shards} shards after {PATIENCE_S:g} s")

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            for shard in event["shards"]:
                if event["event"] == "assigned":
                    self.owners[shard] = event["member"]
                elif self.owners.get(shard) == event["member"]:
                    del self.owners[shard]
                    self.revoked += 1
            if event["shards"]:
                self._changed_s = event["t"]


async def prepare_group(servers: str, shards: int) -> None:
    """Create the topics and set the group's session."""
    kafka = {"bootstrap_servers": servers, "topic_prefix": PREFIX}
    await prepare(Config.model_validate({"kafka": kafka, "cluster": {"name": "light"}}), shards)


def measure(servers: str, members: int, shards: int) -> list[dict[str, Any]]:
    """Start a group, kill a process of it, start one, stop one in order.

    Args:
        servers: of a Kafka with low floors, where the topics are.
        members: how many there are.
        shards: partitions of the topic.
    """
    names = [f"m{number}" for number in range(members)]
    each = members // PROCESSES
    group = Members(servers)
    rows: list[dict[str, Any]] = []

    def note(event: str, began_s: float, now: set[str], before: dict[int, str]) -> None:
        took_s = group.until_dealt(shards, now) - began_s
        moved = sum(before.get(shard) != owner for shard, owner in group.owners.items())
        stayed = set(before.values()) & now
        needless = sum(
            before[shard] != owner and before[shard] in stayed and owner in stayed
            for shard, owner in group.owners.items()
            if shard in before
        )
        rows.append(
            {
                "event": f"real group: {event}",
                "workers": len(now),
                "shards": shards,
                "seconds": round(took_s, 1),
                "moved": moved if before else 0,
                "moved_by_others": needless,
            }
        )
        progress(f"{event}: {took_s:.1f} s")

    try:
        began_s = time.monotonic()
        for first in range(0, members, each):
            group.start(names[first : first + each])
        note("cold start", began_s, set(names), {})
        before, began_s = dict(group.owners), time.monotonic()
        gone = set(group.end(signal.SIGKILL))
        for shard in [shard for shard, owner in before.items() if owner in gone]:
            group.owners.pop(shard, None)
        note(f"{len(gone)} killed", began_s, set(names) - gone, before)
        before, began_s = dict(group.owners), time.monotonic()
        new = [f"n{number}" for number in range(len(gone))]
        group.start(new)
        note(f"{len(new)} joined", began_s, {*names, *new} - gone, before)
        before, began_s = dict(group.owners), time.monotonic()
        left = gone | set(group.end(signal.SIGTERM))
        note(f"{len(gone)} left in order", began_s, {*names, *new} - left, before)
    finally:
        group.close()
    return rows


def broker() -> KafkaBroker:
    """Return a Kafka, not started, that allows short sessions."""
    return KafkaBroker(FLOORS)
