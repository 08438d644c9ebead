"""Load: rows L of the matrix, with the venue, the broker and the ingestor as processes."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import TOPICS
from tests.e2e.processes import Command, Ended, Venue, command, environment, simulated_venue
from tests.faults.limits import open_descriptors, resident_bytes
from tests.faults.results import RowRecorder
from tests.kafka.broker import free_ports

KIB = 1024
PATIENCE_S = 240.0


@dataclass
class Load:
    """An ingestor under load."""

    process: Command
    venue: Venue
    port: int

    @property
    def pid(self) -> int:
        return self.process.process.pid

    @property
    def status(self) -> dict[str, Any]:
        """The status page's numbers; `connected` alone while there are none."""
        url = f"http://127.0.0.1:{self.port}/status.json"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                found: dict[str, Any] = json.load(answer)
        except OSError:
            return {"connected": 0}
        return found

    def until_connected(self, connections: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self.status["connected"] < connections:
            assert self.process.process.poll() is None, self.process.err
            assert time.monotonic() < deadline_s, self.status
            time.sleep(0.2)

    def end(self) -> Ended:
        """Stop in order, and prove that the ledger balances."""
        self.process.terminate()
        ended = self.process.end(60.0)
        assert ended.status == 0, ended.err
        assert "Traceback" not in ended.err
        result = ended.result
        assert result["unaccounted"] == result["lost"] == result["rows_pending"] == 0
        return ended


@contextmanager
def load(
    folder: Path, connections: int, messages_per_s: float, *, tls: bool = False, **settings: str
) -> Iterator[Load]:
    """Run the program over so many connections of one trade stream each.

    Args:
        folder: For configuration, caches and certificates.
        connections: Of one stream each.
        messages_per_s: On all of them together; 0 = as many as are read.
        tls: Whether the venue serves TLS; its certificate is verified.
        settings: Variables of the environment for the ingestor.
    """
    port, certificate = free_ports(1)[0], None
    env = environment(folder) | {"INGESTOR__HTTP__PORT": str(port)} | settings
    env["INGESTOR__LIMITS__CONNECTS_PER_S"] = "500"
    if tls:
        authority, certificate = trustme.CA(), folder / "venue.pem"
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        env["SSL_CERT_FILE"] = str(folder / "ca.pem")
    rate_per_s = messages_per_s / connections
    with (
        DevBroker({f"md.{topic}": 4 for topic in TOPICS.values()}) as broker,
        simulated_venue(
            symbols=connections, rate_per_s=rate_per_s, certificate=certificate
        ) as venue,
    ):
        config = folder / f"{connections}.toml"
        config.write_text(venue.toml() + 'channels = ["trades"]\nstreams_per_connection = 1\n')
        env["INGESTOR__KAFKA__BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
        with command("run", str(config), "--json", env=env) as process:
            yield Load(process, venue, port)


def run_load(
    folder: Path, connections: int, messages_per_s: float, seconds: float, *, tls: bool = False
) -> tuple[dict[str, Any], int]:
    """Run a load for a time; return the result of the run and its memory (RSS) in bytes."""
    with load(folder, connections, messages_per_s, tls=tls) as running:
        running.until_connected(connections)
        time.sleep(seconds)
        memory_bytes = resident_bytes(running.pid)
        result = running.end().result
    assert result["rows_shed"] == result["gaps"] == result["reconnects"] == 0
    return result, memory_bytes


def told(result: dict[str, Any], connections: int, messages_per_s: float, seconds: float) -> str:
    return (
        f"{connections:,} connections, {messages_per_s:,.0f} messages/s, {seconds:.0f} s: p99 "
        f"{result['lag_p99_ms']:.1f} ms, loop p99 {result['loop_delay_p99_ms']:.1f} ms, "
        f"{result['frames_received']:,} frames balanced"
    )


@pytest.mark.rows("L1")
def test_a_hundred_connections(tmp_path: Path, row: RowRecorder) -> None:
    """The row at a tenth of its size; latencies are recorded, not asserted."""
    result, _ = run_load(tmp_path, 100, 1_000, 3)
    met = result["lag_p99_ms"] <= 50
    row("L1", promised="p99 <= 50 ms", measured=told(result, 100, 1_000, 3), met=met)


@pytest.mark.long(minutes=3)
@pytest.mark.rows("L1")
def test_a_thousand_connections(tmp_path: Path, row: RowRecorder) -> None:
    result, _ = run_load(tmp_path, 1_000, 10_000, 60)
    met = result["lag_p99_ms"] <= 50
    row("L1", promised="p99 <= 50 ms", measured=told(result, 1_000, 10_000, 60), met=met)


@pytest.mark.long(minutes=13)
@pytest.mark.rows("L2")
def test_five_thousand_connections(tmp_path: Path, row: RowRecorder) -> None:
    result, _ = run_load(tmp_path, 5_000, 20_000, 600)
    said, met = told(result, 5_000, 20_000, 600), result["lag_p99_ms"] <= 100
    row("L2", promised="p99 <= 100 ms, balanced", measured=said, met=met)


def memory_a_connection(folder: Path, connections: int, rate: float, *, tls: bool) -> float:
    """Return KiB of memory that each connection more takes, at a rate of so many messages/s."""
    few = connections // 10
    _, small_bytes = run_load(folder, few, rate, 20, tls=tls)
    _, large_bytes = run_load(folder, connections, rate, 60, tls=tls)
    return (large_bytes - small_bytes) / (connections - few) / KIB


@pytest.mark.long(minutes=6)
@pytest.mark.rows("L3")
def test_memory_of_nine_thousand_connections(tmp_path: Path, row: RowRecorder) -> None:
    kib = memory_a_connection(tmp_path, 9_000, 5_000, tls=False)
    assert kib <= 25
    row("L3", promised="<= 25 KB a connection", measured=f"{kib:.1f} KiB")


@pytest.mark.long(minutes=6)
@pytest.mark.rows("L4")
def test_memory_of_two_thousand_tls_connections(tmp_path: Path, row: RowRecorder) -> None:
    kib = memory_a_connection(tmp_path, 2_000, 10_000, tls=True)
    assert kib <= 75
    row("L4", promised="<= 75 KB a connection", measured=f"{kib:.1f} KiB, certificate verified")


@pytest.mark.long(minutes=3)
@pytest.mark.rows("L6")
def test_more_than_can_be_read(tmp_path: Path, row: RowRecorder) -> None:
    """The venue sends whatever is read, for 60 s: the budget holds, no ping is missed."""
    budget_bytes = 64 << 20
    with load(tmp_path, 200, 0, INGESTOR__BUDGET__BYTES=str(budget_bytes)) as running:
        running.until_connected(200)
        time.sleep(3)
        base_bytes = peak_bytes = resident_bytes(running.pid)
        for _ in range(120):
            time.sleep(0.5)
            peak_bytes = max(peak_bytes, resident_bytes(running.pid))
        result = running.end().result
    grown_bytes = peak_bytes - base_bytes
    assert grown_bytes <= 1.1 * budget_bytes
    assert result["reconnects"] == 0
    row(
        "L6",
        promised="RSS within the budget; no self-inflicted ping timeouts",
        measured=f"{result['frames_received'] / 60:,.0f} messages/s: RSS + {grown_bytes >> 20} MiB "
        f"of {budget_bytes >> 20}, {result['rows_shed']:,} rows shed, 0 reconnects",
    )


@pytest.mark.long(minutes=17)
@pytest.mark.rows("L7")
def test_fifteen_minutes_with_a_reconnect_each_second(tmp_path: Path, row: RowRecorder) -> None:
    """2,000 connections; one of them is cut each second (all within 2,000 s)."""
    connections, seconds = 2_000, 900
    samples: list[tuple[int, int]] = []
    with load(tmp_path, connections, 5_000) as running:
        running.until_connected(connections)
        running.venue.control("cut", f"within_s={connections}")
        for _ in range(seconds // 10):
            time.sleep(10)
            samples.append((resident_bytes(running.pid), open_descriptors(running.pid)))
        result = running.end().result
    warm = len(samples) // 3  # ten minutes are left
    grown = samples[-1][0] - samples[warm][0]
    descriptors = [count for _, count in samples[warm:]]
    assert result["reconnects"] >= seconds // 2
    assert max(descriptors) - min(descriptors) <= connections // 100
    assert grown <= 1 << 20
    row(
        "L7",
        promised="RSS slope <= 1 MB in 10 minutes; descriptors flat",
        measured=f"{result['reconnects']:,} reconnects in 15 minutes: RSS {grown / KIB:+,.0f} KiB "
        f"in the last 10, descriptors within {max(descriptors) - min(descriptors)}",
    )
