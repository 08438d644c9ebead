"""Clocks, descriptors, blocked loops and bursts, tried on the whole program."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.config.model import Config
from ingestor.model.rows import RowClass
from ingestor.telemetry import status
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import TOPICS, make_config, published, running
from tests.e2e.processes import Command, Venue, closed_port, command, environment, simulated_venue
from tests.faults import limits
from tests.faults.clock import ClockShim
from tests.faults.proxy import FaultProxy
from tests.faults.results import RowRecorder

PING_INTERVAL_S, PONG_S = 10.0, 1.0
PING = 0x89  # FIN and opcode 9 (RFC 6455 section 5.5.2)


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker({f"md.{topic}": 4 for topic in TOPICS.values()}) as broker:
        yield broker


@pytest.fixture
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=10, rate_per_s=20.0) as venue:
        yield venue


class Running:
    """`ingestor run` as a process, and what its HTTP server says."""

    def __init__(self, process: Command, port: int) -> None:
        self.process = process
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


@pytest.mark.rows("I8", "D3")
async def test_steps_of_the_wall_clock_change_no_timer(
    tmp_path: Path, broker: DevBroker, venue: Venue, clock: ClockShim, row: RowRecorder
) -> None:
    """-600 s, then +1 h: nothing reconnects or is shed, pings of a quiet venue are on time."""
    port = closed_port()
    pings: list[float] = []
    quiet = SimulatorOptions(symbols=1, rate_per_s=0.0001, heartbeat_s=3600.0)
    config = tmp_path / "c.toml"
    async with Simulator(quiet) as silent, FaultProxy() as proxy:
        proxy.target = silent.addresses[0].removeprefix("ws://")
        proxy.up.seen = lambda chunk: pings.append(time.monotonic()) if chunk[0] == PING else None
        config.write_text(venue.toml())
        second = tmp_path / "second.toml"
        second.write_text(
            f'[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\nurl = "ws://{proxy.address}"\n'
            f'rest_url = "{silent.rest}"\n'
        )
        env = environment(tmp_path, **settings_of(broker, port)) | clock.environment
        other = env | {"INGESTOR__HTTP__PORT": "0", "INGESTOR__KAFKA__TOPIC_PREFIX": "quiet."}
        with (
            command("run", str(config), "--json", env=env) as busy,
            command("run", str(second), "--json", env=other) as watched,
        ):
            run = Running(busy, port)
            await asyncio.to_thread(busy.until, lambda: run.status["connected"] > 0)
            await asyncio.to_thread(watched.until, lambda: bool(proxy.accepted))
            opened_s = time.monotonic()
            for offset_s in (-600, 3_600, 0):
                clock.set(offset_s)
                acked = run.status["acked"]
                await asyncio.sleep(8)
                assert run.status["acked"] > acked + 1_000
            assert len(clients := silent.clients) == 1, clients
            await asyncio.to_thread(watched.until, lambda: len(pings) >= 2)
            for process in (busy, watched):
                process.terminate()
            ended = [await asyncio.to_thread(process.end) for process in (busy, watched)]
    intervals_s = np.diff([opened_s, *pings])
    assert (intervals_s > PING_INTERVAL_S - 2).all(), intervals_s
    assert (intervals_s < PING_INTERVAL_S + PONG_S + 1).all(), intervals_s
    for process in ended:
        assert process.status == 0, process.err
        assert (process.result["reconnects"], process.result["gaps"]) == (0, 0)
        assert "Traceback" not in process.err
    assert_balanced(ended[0].result)
    servers = {"kafka": {"bootstrap_servers": broker.bootstrap_servers}}
    found = await published(Config.model_validate(servers))
    assert (found.total, found.holes) == (ended[0].result["rows_acked"], 0)
    back = [
        int((np.diff(found.rows(RowClass.TRADE, key)["ts_recv"]) < 0).sum())
        for key in found.keys(RowClass.TRADE)
    ]
    row(
        "I8",
        promised="nothing shed or lost; pings on time",
        measured=f"-600 s, +1 h, 0: 0 reconnects, {found.total:,} rows, pings after "
        f"{', '.join(f'{each:.1f}' for each in intervals_s)} s",
    )
    row(
        "D3",
        promised="ts_recv monotone",
        measured=f"goes back with the wall clock: {max(back)} times an instrument in 2 steps",
    )


@pytest.mark.rows("P4")
async def test_a_blocked_loop_shows_in_a_metric_and_liveness_waits_for_its_limit(
    tmp_path: Path,
    broker: DevBroker,
    venue: Venue,
    monkeypatch: pytest.MonkeyPatch,
    row: RowRecorder,
) -> None:
    """Blocked for 0.5 s twice: alive at a limit of 30 s, to be restarted at one of 0.2 s."""
    config = make_config(broker.bootstrap_servers, [venue.feed], tmp_path)
    async with running(config) as run:
        await run.subscribed()
        assert run.ingestor.http is not None
        port = run.ingestor.http.port
        health = Running(None, port)  # type: ignore[arg-type]  # this process is the one

        async def alive() -> bool:
            try:
                return bool(json.loads(await asyncio.to_thread(health.get, "/livez"))["ok"])
            except urllib.error.HTTPError as refusal:
                refusal.close()
                return False

        verdicts = []
        for limit_s in (status.HEARTBEAT_MAX_S, 0.2):
            monkeypatch.setattr(status, "HEARTBEAT_MAX_S", limit_s)
            assert await alive() or limit_s < 30
            asking = asyncio.create_task(alive())
            await asyncio.sleep(0.05)
            run.ingestor.http._heart.cancel()  # type: ignore[union-attr]  # as if it stood still
            time.sleep(0.5)
            verdicts.append(await alive())
            await asking
        families = {family.name: family for family in run.ingestor.families()}
        text = await asyncio.to_thread(health.get, "/metrics")
        worst_ms = run.ingestor._watch.worst_ns / 1e6
        drained = await run.stop()
    assert verdicts == [True, False]
    assert worst_ms >= 400
    assert "ingestor_loop" in text, sorted(families)
    assert (drained.lost, drained.status.unaccounted, drained.status.reconnects) == (0, 0, 0)
    row("P4", promised="stall metric", measured=f"blocked 500 ms: stall of {worst_ms:.0f} ms shown")


@pytest.mark.rows("P5")
def test_descriptors_run_out_and_the_rest_is_served(
    tmp_path: Path, broker: DevBroker, row: RowRecorder
) -> None:
    """100 connections with 96 descriptors: those that fit work, and Kafka and HTTP are served."""
    port = closed_port()
    with simulated_venue(symbols=100, rate_per_s=2.0) as venue:
        config = tmp_path / "c.toml"
        config.write_text(venue.toml() + "streams_per_connection = 3\n")
        env = environment(tmp_path, **settings_of(broker, port))
        with command("run", str(config), "--json", env=env) as process:
            limits.limit_descriptors(process.process.pid, 96)
            run = Running(process, port)
            process.until(lambda: run.status["connected"] >= 30)
            acked = run.status["acked"]
            process.until(lambda: run.status["acked"] > acked + 500)
            connected = run.status["connected"]
            assert "ingestor_build_info" in run.get("/metrics")
            said = process.err
            process.terminate()
            ended = process.end()
    assert ended.status == 0, ended.err
    assert "Too many open files" in said or "descriptor" in said
    assert "Traceback" not in ended.err
    assert_balanced(ended.result)
    row(
        "P5",
        promised="clear error, the rest is served",
        measured=f"100 connections, 96 descriptors: {connected} served",
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
            counts = []
            for _ in range(10):
                counts.append((open_files(), len(asyncio.all_tasks())))
                venue.control("cut", "within_s=0.1")
                await asyncio.sleep(0.4)
                await run.subscribed()
            counts.append((open_files(), len(asyncio.all_tasks())))
            drained = await run.stop()
    assert (drained.lost, drained.status.unaccounted) == (0, 0)
    assert drained.status.reconnects >= 90
    files, tasks = (max(each) - min(each) for each in zip(*counts, strict=True))
    assert files <= 4, counts
    assert tasks <= 4, counts
    row(
        "L7",
        promised="descriptors and tasks flat",
        measured=f"{drained.status.reconnects} reconnects: descriptors within {files}, "
        f"tasks within {tasks}",
    )


def open_files() -> int:
    return limits.open_descriptors(os.getpid())
