"""`ingestor run --workers`: real processes, a simulated venue, the embedded broker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingestor.config.load import load
from ingestor.sources.registry import markets
from ingestor.testbed.broker import DevBroker
from tests.e2e.harness import published

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
SYMBOLS, CHANNELS, CONNECTIONS = 12, 3, 6
WORKERS = 2


@asynccontextmanager
async def process(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[Process]:
    one = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        env=env,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        assert one.stdin is not None
        one.stdin.close()
        await one.wait()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return answer.status, await answer.text()


async def until(condition: Callable[[], Awaitable[Any]], timeout_s: float = PATIENCE_S) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (found := await condition()):
            await asyncio.sleep(0.1)
        return found


class Setup:
    """A venue, a broker, and a configuration for them."""

    def __init__(self, file: Path, env: dict[str, str], rest: str) -> None:
        self.file = file
        self.env = env
        self.rest = rest

    def left_behind(self) -> list[Path]:
        return list(self.file.parent.glob("ingestor-workers-*"))

    async def venue(self) -> dict[str, Any]:
        _, text = await get(f"{self.rest}/control/statistics")
        found: dict[str, Any] = json.loads(text)
        return found

    @asynccontextmanager
    async def running(self, *more: str) -> AsyncIterator[Running]:
        arguments = ("run", str(self.file), "--workers", str(WORKERS), "--json", *more)
        async with process("ingestor", *arguments, env=self.env) as parent:
            run = Running(parent)
            try:
                yield run
            finally:
                if parent.returncode is None:
                    parent.kill()
                await run.reading  # until the last of its children has ended


class Running:
    """The parent process, its standard error read as it comes."""

    def __init__(self, parent: Process) -> None:
        self.parent = parent
        self.log: list[str] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.parent.stderr is not None
        async for line in self.parent.stderr:
            self.log.append(line.decode())

    async def logged(self, pattern: str) -> re.Match[str]:
        async def found() -> re.Match[str] | None:
            assert self.parent.returncode is None, "".join(self.log)
            return re.search(pattern, "".join(self.log))

        match: re.Match[str] = await until(found)
        return match

    async def url(self) -> str:
        return (await self.logged(r"http\.listening.*url=(http://\S+)/"))[1]

    async def pid(self, worker: int) -> int:
        return int((await self.logged(rf"worker\.running +pid=(\d+) +worker={worker}"))[1])

    async def ended(self) -> tuple[int, dict[str, Any]]:
        """Return the exit status and the last line."""
        assert self.parent.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            out = (await self.parent.stdout.read()).decode()
            status = await self.parent.wait()
            await self.reading
        return status, json.loads(out.splitlines()[-1]) if out else {}


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    options = ("--json", "--symbols", str(SYMBOLS), "--rate", "20")
    with DevBroker() as broker:
        async with process("ingestor.testbed.simulated.simulator", *options) as simulator:
            assert simulator.stdout is not None
            about = json.loads(await simulator.stdout.readline())
            file = tmp_path / "c.toml"
            file.write_text(
                f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\n'
                f'topic_prefix = "w{uuid.uuid4().hex[:12]}."\npartitions = 4\n'
                f'[catalogue]\ncache_dir = "{tmp_path / "cache"}"\n'
                "[http]\nport = 0\n[last]\nenabled = true\n"
                '[[feeds]]\nvenue = "simulated"\nsymbols = ["*"]\n'
                f'url = "{about["addresses"][0]}"\nrest_url = "{about["rest"]}"\n'
                f"streams_per_connection = {SYMBOLS * CHANNELS // CONNECTIONS}\n"
            )
            env = {name: value for name, value in os.environ.items() if "INGESTOR_" not in name}
            yield Setup(file, env | {"TMPDIR": str(tmp_path)}, about["rest"])


async def connected(url: str) -> bool:
    code, _ = await get(f"{url}/readyz")
    _, text = await get(f"{url}/status.json")
    return code == 200 and json.loads(text)["connected"] == CONNECTIONS


async def samples(url: str) -> dict[tuple[str, str], float]:
    """Return (name, worker) -> value, samples of other labels summed."""
    found: dict[tuple[str, str], float] = {}
    _, text = await get(f"{url}/metrics")
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            key = one.name, one.labels["worker"]
            found[key] = found.get(key, 0.0) + one.value
    return found


async def test_two_workers_share_everything_and_show_as_one(setup: Setup) -> None:
    async with setup.running() as run:
        url = await run.url()
        await until(lambda: connected(url))
        venue = await setup.venue()
        assert (venue["connections"], venue["accepted"]) == (CONNECTIONS, CONNECTIONS)

        _, streams = await get(f"{url}/metrics/feeds")
        up = re.findall(
            r'^ingestor_feed_up{.*channel="(\w+)",symbol="(.+)"} 1$', streams, re.MULTILINE
        )
        assert len(up) == len(set(up)) == SYMBOLS * CHANNELS

        await asyncio.sleep(1.0)
        metrics = await samples(url)
        for worker in ("0", "1"):
            assert metrics["ingestor_worker_up", worker] == 1
            assert metrics["ingestor_worker_restarts_total", worker] == 0
            assert metrics["ingestor_connections", worker] == CONNECTIONS / WORKERS
            assert metrics["ingestor_rows_acked_total", worker] > 0
            assert metrics["ingestor_buffer_limit_bytes", worker] == (256 << 20) / WORKERS
            assert metrics["ingestor_delivery_latency_seconds_count", worker] > 0

        for symbol in {symbol for _, symbol in up}:  # whichever workers have its streams
            code, text = await get(f"{url}/last/simulated:spot:{symbol}")
            found = json.loads(text)
            assert code == 200
            assert found["trade"]["price"]
            assert found["quote"]["bid_price"]
        assert (await get(f"{url}/last/simulated:spot:NONE"))[0] == 404

        run.parent.send_signal(signal.SIGTERM)
        status, result = await run.ended()
    assert status == 0, "".join(run.log)
    assert (result["workers"], result["workers_failed"], result["restarts"]) == (WORKERS, 0, 0)
    assert result["unaccounted"] == result["lost"] == result["rows_pending"] == 0
    assert result["rows_acked"] == result["rows_appended"] > 0
    assert result["lag_p99_ms"] > 0
    topics = await published(load(setup.file, markets()))
    assert (topics.total, topics.holes, topics.duplicates) == (result["rows_acked"], 0, 0)
    assert "balanced" in "".join(run.log)
    assert "Traceback" not in "".join(run.log)
    assert not setup.left_behind()


@pytest.mark.rows("P1")
async def test_a_killed_worker_comes_back_and_the_other_stays(setup: Setup) -> None:
    async with setup.running() as run:
        url = await run.url()
        await until(lambda: connected(url))
        os.kill(await run.pid(0), signal.SIGKILL)

        async def down() -> bool:
            metrics = await samples(url)
            up = metrics["ingestor_worker_up", "0"], metrics["ingestor_worker_up", "1"]
            return up == (0, 1)

        await until(down)
        assert (await get(f"{url}/readyz"))[0] == 503
        _, text = await get(f"{url}/status.json")
        assert json.loads(text)["connections"].get("down") == CONNECTIONS / WORKERS

        await until(lambda: connected(url))
        venue = await setup.venue()
        assert venue["connections"] == CONNECTIONS
        assert venue["accepted"] == CONNECTIONS + CONNECTIONS / WORKERS  # the other's went on
        assert (await samples(url))["ingestor_worker_restarts_total", "0"] == 1

        run.parent.send_signal(signal.SIGINT)
        status, result = await run.ended()
    assert status == 0, "".join(run.log)
    assert (result["workers_failed"], result["restarts"], result["unaccounted"]) == (0, 1, 0)


async def reload(*arguments: str, env: dict[str, str]) -> tuple[int, str, str]:
    """Run `ingestor reload`; return exit status, standard output and standard error."""
    async with process("ingestor", "reload", *arguments, env=env) as one:
        out, err = await one.communicate()
        assert one.returncode is not None
        return one.returncode, out.decode(), err.decode()


async def up_streams(url: str) -> set[tuple[str, str]]:
    """Return (symbol, channel) of each stream that is up; none is carried twice."""
    _, text = await get(f"{url}/metrics/feeds")
    found = re.findall(r'^ingestor_feed_up{.*channel="(\w+)",symbol="(.+)"} 1$', text, re.MULTILINE)
    assert len(found) == len({*found})
    return {(symbol, channel) for channel, symbol in found}


@pytest.mark.rows("P7")
async def test_workers_follow_a_configuration_and_other_streams_stay(setup: Setup) -> None:
    text = setup.file.read_text()
    setup.file.write_text(text.replace('"*"', '"S0000[0-7]-USD"'))
    async with setup.running() as run:
        url = await run.url()

        async def carried(first: int, last: int) -> bool:
            wanted = {
                (f"S{number:05}-USD", channel)
                for number in range(first, last + 1)
                for channel in ("trades", "quotes", "book")
            }
            return await up_streams(url) == wanted

        await until(lambda: carried(0, 7))
        before = await setup.venue()

        setup.file.write_text(text.replace('"*"', '"S0000[2-9]-USD"'))
        status, out, err = await reload(url, "--dry-run", env=setup.env)
        assert (status, err) == (0, "")
        assert out.splitlines()[-1].endswith("18 untouched: dry run, nothing was changed")
        assert await carried(0, 7)

        status, out, err = await reload(str(run.parent.pid), "--json", env=setup.env)
        done = json.loads(out)
        assert (status, err, done["applied"]) == (0, "", True)
        assert (done["subscribe"], done["unsubscribe"], done["keep"]) == (6, 6, 18)
        assert {step["worker"] for step in done["steps"]} <= {0, 1}
        await until(lambda: carried(2, 9))
        opened = sum(step["action"] == "open" for step in done["steps"])
        assert (await setup.venue())["accepted"] == before["accepted"] + opened

        for bad, status in (('"NONE"', 2), ('"*"]\ndepth = [3', 2)):
            setup.file.write_text(text.replace('"*"', bad))
            assert (await reload(url, env=setup.env))[0] == status
        assert await carried(2, 9)

        # A worker that is killed comes back with what it carries now.
        setup.file.write_text(text.replace('"*"', '"S0000[2-9]-USD"'))
        os.kill(await run.pid(0), signal.SIGKILL)
        await run.logged(r"worker\.ended")
        await until(lambda: carried(2, 9))

        setup.file.write_text(text.replace('"*"', '"S0000[2-8]-USD"'))
        run.parent.send_signal(signal.SIGHUP)
        await until(lambda: carried(2, 8))
        run.parent.send_signal(signal.SIGTERM)
        status, result = await run.ended()
    assert (status, result["unaccounted"]) == (0, 0), "".join(run.log)
    assert "Traceback" not in "".join(run.log)


async def test_workers_end_when_their_parent_is_killed(setup: Setup) -> None:
    async with setup.running() as run:
        children = [psutil.Process(await run.pid(worker)) for worker in range(WORKERS)]
        run.parent.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
    assert not alive


async def test_a_second_signal_leaves_at_once_and_nobody_stays(setup: Setup) -> None:
    async with setup.running() as run:
        children = [psutil.Process(await run.pid(worker)) for worker in range(WORKERS)]
        for child in children:
            child.suspend()  # it can't drain
        run.parent.send_signal(signal.SIGTERM)
        await run.logged(r"ingestor\.stopping")
        run.parent.send_signal(signal.SIGTERM)
        status, _ = await run.ended()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
    assert (status, alive, setup.left_behind()) == (1, [], [])
    assert re.search(r"^ingestor: left at once, [\d,]+ rows were not ack", run.log[-1]), run.log


async def test_a_wrong_configuration_ends_before_any_worker(setup: Setup) -> None:
    setup.file.write_text(setup.file.read_text().replace('"*"', '"NONE-SUCH"'))
    async with setup.running() as run:
        status, _ = await run.ended()
    assert status == 2
    assert len(run.log) == 1
    assert run.log[0].startswith(f"ingestor: {setup.file}: feeds[0].symbols")
