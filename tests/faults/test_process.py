"""Clocks, descriptors, blocked loops and bursts, tried on the whole program."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.config.model import Config
from ingestor.model.row_classes import RowClass
from ingestor.telemetry.status import HEARTBEAT_MAX_S, liveness
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import TOPICS, Published, make_config, published, running
from tests.e2e.processes import Command, Ended, Venue, command, environment, simulated_venue
from tests.faults import limits
from tests.faults.clock import ClockShim
from tests.faults.proxy import FaultProxy
from tests.faults.results import RowRecorder
from tests.kafka.broker import free_ports

PING_INTERVAL_S = 10.0
PING = 0x89  # FIN and opcode 9 (RFC 6455 section 5.5.2)


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker({f"md.{topic}": 4 for topic in TOPICS.values()}) as broker:
        yield broker


@pytest.fixture
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=10, rate_per_s=20.0) as venue:
        yield venue


class Http:
    """What the HTTP server of an ingestor says."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    @property
    def status(self) -> dict[str, Any]:
        """The status page's numbers; nothing while the server is not up."""
        try:
            found: dict[str, Any] = json.loads(self.get("/status.json"))
        except OSError:
            return {"connected": 0, "acked": 0}
        return found


def settings_of(broker: DevBroker, port: int) -> dict[str, str]:
    return {
        "INGESTOR__KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "INGESTOR__HTTP__PORT": str(port),
        "INGESTOR__BATCH__LINGER_MS": "8",
    }


def assert_balanced(result: dict[str, Any]) -> None:
    assert result["unaccounted"] == result["lost"] == result["rows_pending"] == 0
    assert result["rows_shed"] == result["rows_conflated"] == result["rows_dead_lettered"] == 0
    assert result["rows_acked"] >= result["rows_appended"] > 0


@dataclass
class Pings:
    """When websocket pings of a client passed a proxy, in seconds of the monotonic clock."""

    times_s: list[float] = field(default_factory=list)

    def see(self, chunk: bytes) -> None:
        if chunk[0] == PING:
            self.times_s.append(time.monotonic())


@asynccontextmanager
async def quiet_venue(folder: Path, pings: Pings) -> AsyncIterator[tuple[Path, FaultProxy]]:
    """A venue that says nothing once it is subscribed to, and the configuration that reads it."""
    options = SimulatorOptions(symbols=1, rate_per_s=0.0001, heartbeat_s=3600.0)
    async with Simulator(options) as simulator, FaultProxy() as proxy:
        proxy.target = simulator.addresses[0].removeprefix("ws://")
        proxy.up.seen = pings.see
        config = folder / "quiet.toml"
        config.write_text(
            f'[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\nurl = "ws://{proxy.address}"\n'
            f'rest_url = "{simulator.rest}"\n'
        )
        yield config, proxy


@pytest.mark.rows("I8", "D3")
async def test_steps_of_the_wall_clock_change_no_timer(
    tmp_path: Path, broker: DevBroker, venue: Venue, clock: ClockShim, row: RowRecorder
) -> None:
    """-600 s, then +1 h: nothing reconnects or is shed, pings of a quiet venue are on time."""
    port, pings = free_ports(1)[0], Pings()
    config = tmp_path / "c.toml"
    config.write_text(venue.toml())
    env = environment(tmp_path, **settings_of(broker, port)) | clock.environment
    quiet_env = env | {"INGESTOR__HTTP__PORT": "0", "INGESTOR__KAFKA__TOPIC_PREFIX": "quiet."}
    async with quiet_venue(tmp_path, pings) as (quiet, proxy):
        with (
            command("run", str(config), "--json", env=env) as busy,
            command("run", str(quiet), "--json", env=quiet_env) as watched,
        ):
            run = Http(port)
            await asyncio.to_thread(busy.until, lambda: run.status["connected"] > 0)
            await asyncio.to_thread(watched.until, lambda: bool(proxy.accepted))
            opened_s = time.monotonic()
            for offset_s in (-600, 3_600, 0):
                clock.set(offset_s)
                acked = run.status["acked"]
                await asyncio.sleep(3)
                await asyncio.to_thread(busy.until, lambda: run.status["acked"] > acked + 1_000)  # noqa: B023
            await asyncio.to_thread(watched.until, lambda: bool(pings.times_s))
            ended = [await asyncio.to_thread(stop, process) for process in (busy, watched)]
    intervals_s = np.diff([opened_s, *pings.times_s])
    assert (intervals_s > PING_INTERVAL_S - 2).all(), intervals_s
    assert (intervals_s < PING_INTERVAL_S + 10).all(), intervals_s  # a step would be 600 s and more
    assert_clock_cost_nothing(*ended)
    servers = {"kafka": {"bootstrap_servers": broker.bootstrap_servers}}
    found = await published(Config.model_validate(servers))
    assert (found.total, found.holes) == (ended[0].result["rows_acked"], 0)
    waits = ", ".join(f"{interval_s:.1f}" for interval_s in intervals_s)
    row(
        "I8",
        promised="nothing shed or lost; pings on time",
        measured=f"-600 s, +1 h, 0: 0 reconnects, {found.total:,} rows, pings after {waits} s",
    )
    most = steps_back(found)
    said = f"goes back with the wall clock: {most} times an instrument in 2 steps back"
    row("D3", promised="ts_recv monotone", measured=said, met=most == 0)


def stop(process: Command) -> Ended:
    process.terminate()
    return process.end()


def assert_clock_cost_nothing(busy: Ended, watched: Ended) -> None:
    for ended in (busy, watched):
        assert ended.status == 0, ended.err
        assert (ended.result["reconnects"], ended.result["gaps"]) == (0, 0)
        assert "Traceback" not in ended.err
    assert_balanced(busy.result)


def steps_back(found: Published) -> int:
    """Return how often the receive times of an instrument's trades go back, at most."""
    every = [found.rows(RowClass.TRADE, key)["ts_recv"] for key in found.keys(RowClass.TRADE)]
    return max(int((np.diff(times) < 0).sum()) for times in every)


@pytest.mark.rows("P4")
async def test_a_blocked_loop_shows_in_a_metric_and_is_no_death(
    tmp_path: Path, broker: DevBroker, venue: Venue, row: RowRecorder
) -> None:
    """Blocked for 0.5 s: counted, alive, nothing lost; only 30 s are a reason to restart."""
    config = make_config(broker.bootstrap_servers, [venue.feed], tmp_path)
    async with running(config) as run:
        await run.subscribed()
        assert run.ingestor.http is not None
        http = Http(run.ingestor.http.port)
        await asyncio.sleep(0.2)
        time.sleep(0.5)
        assert json.loads(await asyncio.to_thread(http.get, "/livez"))["ok"]
        await run.until(lambda: run.ingestor.loop_lag.worst_ns >= 400_000_000)
        worst_ms = run.ingestor.loop_lag.worst_ns / 1e6
        text = await asyncio.to_thread(http.get, "/metrics")
        drained = await run.stop()
    late = [line for line in text.splitlines() if line.startswith("ingestor_event_loop_lag")]
    assert late, "no metric of the loop"
    assert liveness(HEARTBEAT_MAX_S - 0.1).ok
    assert not liveness(HEARTBEAT_MAX_S).ok
    assert (drained.lost, drained.status.unaccounted, drained.status.reconnects) == (0, 0, 0)
    row("P4", promised="stall metric", measured=f"blocked 500 ms: stall of {worst_ms:.0f} ms shown")


@pytest.mark.rows("P5", "I10")
def test_descriptors_are_few_and_the_rest_is_served(
    tmp_path: Path, broker: DevBroker, row: RowRecorder
) -> None:
    """100 connections with 160 descriptors: some wait; Kafka, restarted, and HTTP are served."""
    port = free_ports(1)[0]
    with simulated_venue(symbols=100, rate_per_s=2.0) as venue:
        config = tmp_path / "c.toml"
        config.write_text(venue.toml() + "streams_per_connection = 3\n")
        env = environment(tmp_path, **settings_of(broker, port))
        with command("run", str(config), "--json", env=env, descriptors=160) as process:
            run = Http(port)
            process.until(lambda: run.status["connected"] >= 30)
            broker.set_down()
            time.sleep(1)
            broker.set_up()
            acked = run.status["acked"]
            process.until(lambda: run.status["acked"] > acked + 500)
            connected = run.status["connected"]
            assert "ingestor_build_info" in run.get("/metrics")
            ended = stop(process)
    assert ended.status == 0, ended.err
    assert "descriptors.short" in ended.err
    assert "Too many open files" not in ended.err
    assert "Traceback" not in ended.err
    assert_balanced(ended.result)
    row(
        "P5",
        promised="clear error, the rest is served",
        measured=f"100 connections, 160 descriptors: {connected} served, others wait",
    )


@pytest.mark.rows("L5")
async def test_a_burst_is_worked_off(tmp_path: Path, broker: DevBroker, row: RowRecorder) -> None:
    """Five times the rate for two seconds; the lag of before is back soon after."""
    base_per_s, seconds = 1_000.0, 2.0
    with simulated_venue(symbols=20, rate_per_s=base_per_s / 60) as venue:
        config = make_config(broker.bootstrap_servers, [venue.feed], tmp_path)
        async with running(config) as run:
            await run.subscribed()
            await asyncio.sleep(1)
            frames = run.status.frames
            venue.control("burst", "factor=5")
            await asyncio.sleep(seconds)
            venue.control("burst", "factor=1")
            ended_s, burst = time.monotonic(), run.status.frames - frames

            def is_calm() -> bool:
                lag_ms = run.status.lag_p99_ms
                return lag_ms is not None and lag_ms < 100

            await run.until(is_calm)
            took_s = time.monotonic() - ended_s
            drained = await run.stop()
    found = drained.status
    assert burst > 2 * base_per_s * seconds
    assert (drained.lost, found.unaccounted, found.shed, found.gaps) == (0, 0, 0, 0)
    assert (await published(config)).total == found.acked
    row(
        "L5",
        promised="p99 < 100 ms again in <= 10 s; conflation counted",
        measured=f"{base_per_s:,.0f} to {burst / seconds:,.0f} messages/s for {seconds:.0f} s: "
        f"after {took_s:.1f} s, {found.conflated:,} conflated",
        met=took_s <= 10,
    )


@pytest.mark.rows("L7")
async def test_reconnects_leave_no_descriptor_and_no_task(
    tmp_path: Path, broker: DevBroker, row: RowRecorder
) -> None:
    """Every connection is cut ten times, half a second apart."""
    with simulated_venue(symbols=20, rate_per_s=10.0) as venue:
        feed = venue.feed | {"streams_per_connection": 6}
        config = make_config(
            broker.bootstrap_servers,
            [feed],
            tmp_path,
            limits={"backoff_base_s": 0.05, "backoff_cap_s": 0.2, "connects_per_s": 1000.0},
        )
        async with running(config) as run:
            await run.subscribed()
            await asyncio.sleep(1)
            files, tasks = open_files(), len(asyncio.all_tasks())

            def is_flat() -> bool:
                """Some of both live for a moment beside a connection that is being opened."""
                return open_files() <= files + 2 and len(asyncio.all_tasks()) <= tasks + 2

            for _ in range(10):
                venue.control("cut", "within_s=0.1")
                await asyncio.sleep(0.4)
                await run.subscribed()
                await run.until(is_flat)
            files, tasks = open_files() - files, len(asyncio.all_tasks()) - tasks
            drained = await run.stop()
    assert (drained.lost, drained.status.unaccounted) == (0, 0)
    assert drained.status.reconnects >= 90
    row(
        "L7",
        promised="descriptors and tasks flat",
        measured=f"{drained.status.reconnects} reconnects: {files:+} descriptors, {tasks:+} tasks",
    )


def open_files() -> int:
    return limits.open_descriptors(os.getpid())
