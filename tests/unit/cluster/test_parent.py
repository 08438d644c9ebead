"""ingestor.cluster.parent: the parent, with small programs for workers. tests/e2e has real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from feeds.simulated import Simulated
from ingestor.admin.exposition import StreamState, counter, metrics_text, streams_text
from ingestor.admin.server import AdminServer
from ingestor.admin.streams import StreamPage, StreamQuery, page_of
from ingestor.cluster import parent as workers_module
from ingestor.cluster.launch import Launch, worker_environment
from ingestor.cluster.parent import Finished, Worker, Workers
from ingestor.cluster.view import families_of_workers, streams_of, worker_families
from ingestor.config.model import Config, HttpConfig
from ingestor.model.backoff import Backoff
from ingestor.model.errors import WorkerFailed
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.sources.live.plan import Plan, Route, Wanted, make_plan
from ingestor.telemetry.status import Health, Phase, Status

PATIENCE_S = 60.0
STREAMS = [
    StreamState("okx", "spot", "book", 'A"\\\n', True, 7, 1_800_000_000_000_000_000, 0.25),
    StreamState("okx", "spot", "book", "B", False, 0, 0, 0.0),
]
# Arguments: folder, port, result, behaviour; then what the parent adds.
STAND_IN = """
import json, os, pathlib, signal, sys, time
folder, port, result, behaviour = sys.argv[1:5]
share = sys.argv[-1]
diary = pathlib.Path(folder) / share.replace("/", "-")
lives = len(diary.read_text().splitlines()) if diary.exists() else 0
with diary.open("a") as file:
    config = pathlib.Path(sys.argv[6]).read_text()
    lists = pathlib.Path(os.environ["INGESTOR__CATALOGUE__CACHE_DIR"], "instruments")
    cached = os.listdir(lists)
    (lists / "newer.json").touch()
    file.write(json.dumps([config, cached, sys.argv[5], sys.argv[7:]]) + "\\n")
if behaviour == "refuses":
    sys.exit(3)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("not JSON", flush=True)
print(json.dumps({"http_port": int(port)}), flush=True)
if behaviour == "crashes once" and share[0] == "0" and not lives:
    time.sleep(1.2)
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "is deaf" and share[0] == "0":
    time.sleep(60)
signal.sigwait({signal.SIGTERM})
print(result, flush=True)
"""


class Source:
    """What the stand-ins' HTTP server shows."""

    def __init__(self) -> None:
        self.snapshot = Status(
            time_ns=1, phase=Phase.RUNNING, connections={"connected": 2}, acked=10, pending=3
        )

    def status(self) -> Status:
        return self.snapshot

    def ready(self) -> Health:
        return Health(True)

    def families(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("ingestor_kafka_up", "Up.")
        up.add_metric((), 1)
        yield up

    def streams(self) -> Iterator[StreamState]:
        yield from STREAMS

    async def worst_streams(self, query: StreamQuery) -> StreamPage:
        return await page_of(STREAMS, query)


def make_plan_of(connections: int) -> Plan:
    table = InstrumentTable(
        instrument("simulated", "spot", f"S{one}", f"S{one}-USD", f"S{one}", "USD", "0.1", "0.1")
        for one in range(connections)
    )
    route = Route(streams_per_connection=1)
    wanted = Wanted(Simulated, "spot", range(connections), ["trades"], route)
    return make_plan([wanted], table)


def make_config(folder: Path, **sections: object) -> Config:
    lists = folder / "cache" / "instruments"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "simulated-spot.json").touch()
    (lists / ".simulated-spot.json.abc").touch()  # being written
    return Config.model_validate(
        {
            "http": {"port": 0},
            "catalogue": {"cache_dir": folder / "cache"},
            "limits": {"drain_s": 0.2},
            **sections,
        }
    )


@asynccontextmanager
async def stand_ins(
    folder: Path, behaviour: str = "", *, count: int = 2, lost: int = 0
) -> AsyncIterator[Workers]:
    source = Source()
    final = Status(phase=Phase.DRAINING, connections={"stopped": 2}, acked=20)
    result = orjson.dumps({"status": final.to_json(), "lost": lost}).decode()
    file = folder / "c.toml"
    file.write_text("# the first text\n")
    async with AdminServer(HttpConfig(port=0), source) as http:
        arguments = (str(folder), str(http.port), result, behaviour)
        yield Workers(
            make_config(folder),
            file,
            make_plan_of(4),
            count,
            command=(sys.executable, "-S", "-c", STAND_IN, *arguments),
            backoff=Backoff(base_s=0.01, cap_s=0.01),
        )


def diary(folder: Path, share: str) -> list[list[object]]:
    return [json.loads(line) for line in (folder / share).read_text().splitlines()]


async def run(workers: Workers, condition: Callable[[], bool] = lambda: True) -> Finished:
    """Run until all have run and the condition holds; then stop."""
    ready = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        task = asyncio.create_task(workers.run(ready.set))
        try:
            while not (task.done() or (ready.is_set() and condition())):
                await asyncio.sleep(0.02)
            workers.stop()
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_sum_is_shown_and_all_end_in_order(tmp_path: Path) -> None:
    async with stand_ins(tmp_path) as workers:
        seen: list[Status] = []

        def all_up() -> bool:
            if not workers.ready().ok:
                return False
            seen.append(workers.status())
            return True

        assert workers.status().connections == {"down": 4}
        finished = await run(workers, all_up)
    assert (seen[0].phase, seen[0].connected, seen[0].acked) == (Phase.RUNNING, 4, 20)
    assert (finished.status.phase, finished.status.acked, finished.lost) == (Phase.STOPPED, 40, 0)
    assert workers.details() == {"workers": 2, "workers_failed": 0, "restarts": 0}
    assert not workers.ready().ok
    (life,) = diary(tmp_path, "1-2")
    assert life == [
        "# the first text\n",
        ["simulated-spot.json"],
        "run",
        ["--json", "--worker", "1/2"],
    ]


async def test_what_a_worker_lost_is_lost(tmp_path: Path) -> None:
    async with stand_ins(tmp_path, lost=4) as workers:
        assert (await run(workers)).lost == 8


async def test_a_crashed_worker_is_started_from_what_was_there_at_the_start(tmp_path: Path) -> None:
    async with stand_ins(tmp_path, "crashes once") as workers:
        was_down: list[Status] = []

        def back() -> bool:
            (tmp_path / "c.toml").write_text("# another text\n")
            for cached in (tmp_path / "cache" / "instruments").iterdir():
                cached.unlink()
            first = workers.workers[0]
            if not first.is_up and first.has_run:
                was_down.append(first.status())
            return first.restarts == 1 and workers.ready().ok

        finished = await run(workers, back)
    assert was_down[0].connections == {"down": 2}
    assert workers.details() == {"workers": 2, "workers_failed": 0, "restarts": 1}
    assert finished.status.acked == 40
    first, second = diary(tmp_path, "0-2")
    assert first == second
    assert len(diary(tmp_path, "1-2")) == 1


async def test_a_worker_that_does_not_end_is_killed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "MARGIN_S", 0.1)
    async with stand_ins(tmp_path, "is deaf") as workers:
        pids: list[int] = []

        def all_up() -> bool:
            pids[:] = [worker.pid for worker in workers.workers]
            return workers.ready().ok

        finished = await run(workers, all_up)
    assert workers.failed == 1
    assert finished.lost == 3  # what it last said to be pending
    assert finished.status.acked == 10 + 20
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_can_not_start_ends_all(tmp_path: Path) -> None:
    async with stand_ins(tmp_path, "refuses") as workers:
        with pytest.raises(WorkerFailed, match="it ended with status 3"):
            await run(workers)
    lives = [len(diary(tmp_path, one.name)) for one in tmp_path.glob("*-2")]
    assert max(lives) == 1  # none is tried again; the other may have been ended before it wrote


async def test_a_program_that_is_not_there_ends_all(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.touch()
    command = (str(tmp_path / "absent"),)
    workers = Workers(make_config(tmp_path), file, make_plan_of(4), 2, command=command)
    with pytest.raises(WorkerFailed, match="it ended with status 127"):
        await run(workers)


async def test_abandoned_workers_are_gone(tmp_path: Path) -> None:
    async with stand_ins(tmp_path, "is deaf") as workers:

        def all_up() -> bool:
            if workers.ready().ok:
                workers.stop()
                workers.abandon()
                return True
            return False

        await run(workers, all_up)
    assert {worker.exit_status for worker in workers.workers} == {-signal.SIGKILL}
    assert workers.failed == 2


async def test_one_port_shows_the_metrics_of_all(tmp_path: Path) -> None:
    async with stand_ins(tmp_path) as workers:
        pages: list[bytes] = []

        async def scrape() -> None:
            while not workers.ready().ok:
                await asyncio.sleep(0.02)
            assert workers.http is not None
            for path in ("/metrics", "/metrics/feeds"):
                reader, writer = await asyncio.open_connection("127.0.0.1", workers.http.port)
                writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                pages.append(await reader.read())
                writer.close()

        scraping = asyncio.create_task(scrape())
        await run(workers, scraping.done)
        await scraping
    metrics, streams = (page.decode().partition("\r\n\r\n")[2] for page in pages)
    for worker in ("0", "1"):
        assert f'ingestor_kafka_up{{worker="{worker}"}} 1.0\n' in metrics
        assert f'ingestor_worker_up{{worker="{worker}"}} 1.0\n' in metrics
        assert f'ingestor_worker_restarts_total{{worker="{worker}"}} 0.0\n' in metrics
    assert metrics.count("# TYPE ingestor_kafka_up gauge") == 1
    assert streams.count('symbol="B"} 0\n') == 4  # of both: up and messages


@pytest.mark.parametrize(("wanted", "made"), [(1, 1), (3, 3), (9, 4)])
def test_no_worker_is_without_a_connection(tmp_path: Path, wanted: int, made: int) -> None:
    workers = Workers(make_config(tmp_path), tmp_path / "c.toml", make_plan_of(4), wanted)
    assert len(workers.workers) == made
    assert sum(worker.connections for worker in workers.workers) == 4
    assert all(worker.connections for worker in workers.workers)


def test_the_copies_are_gone_with_their_context(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("secret")
    with Launch(make_config(tmp_path), file, 2, ["ingestor"]) as launch:
        command, options = launch.of(1)
        cache_dir = Path(options["env"]["INGESTOR__CATALOGUE__CACHE_DIR"])
        assert command[-2:] == ["--worker", "1/2"]
        assert Path(command[2]).read_text() == "secret"
        assert not [one for one in cache_dir.parent.rglob("*") if one.name == "c.toml"]
        launch.discard()
        assert not cache_dir.parent.exists()
    file.unlink()
    with pytest.raises(FileNotFoundError):
        Launch(make_config(tmp_path), file, 2, ["ingestor"]).__enter__()


def test_without_instrument_lists_workers_ask_for_their_own(tmp_path: Path) -> None:
    config = Config.model_validate({"catalogue": {"cache_dir": tmp_path / "absent"}})
    file = tmp_path / "c.toml"
    file.touch()
    with Launch(config, file, 1, ["ingestor"]) as launch:
        _, options = launch.of(0)
        assert not list(Path(options["env"]["INGESTOR__CATALOGUE__CACHE_DIR"]).iterdir())


def test_a_worker_that_never_was_has_nothing_to_end() -> None:
    worker = Worker(0, 1)
    worker.terminate()
    worker.kill()
    assert (worker.pid, worker.is_up, worker.ended_well) == (0, False, False)


def test_what_a_machine_and_venues_allow_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ingestor__http__port", "9464")  # names have no case
    monkeypatch.setenv("INGESTOR__KAFKA__ENCODING", "binary")
    config = make_config(
        tmp_path,
        budget={"bytes": 8_000_000, "rows": 800},
        books={"repairs_per_s": 2.0},
        http={"enabled": False},
    )
    found = worker_environment(config, 4, tmp_path)
    ours = {name: value for name, value in found.items() if name.upper().startswith("INGESTOR__")}
    assert ours == {
        "INGESTOR__KAFKA__ENCODING": "binary",
        "INGESTOR__HTTP__ENABLED": "true",
        "INGESTOR__HTTP__HOST": "127.0.0.1",
        "INGESTOR__HTTP__PORT": "0",
        "INGESTOR__BUDGET__BYTES": "2000000",
        "INGESTOR__BUDGET__ROWS": "200",
        "INGESTOR__BOOKS__REPAIRS_PER_S": "0.5",
        "INGESTOR__CATALOGUE__CACHE_DIR": str(tmp_path),
        "INGESTOR__CATALOGUE__TTL_S": "1000000000.0",
    }
    recording = make_config(tmp_path, recorder={"path": "r", "buffer_bytes": 4096})
    found = worker_environment(recording, 4, tmp_path)
    assert found["INGESTOR__RECORDER__BUFFER_BYTES"] == "1024"


def test_a_family_is_once_on_the_page_with_the_samples_of_all() -> None:
    page = (
        "# HELP ingestor_a_total A.\n# TYPE ingestor_a_total counter\n"
        'ingestor_a_total{venue="okx"} 3.0\n'
    )
    families = list(families_of_workers({"0": page, "1": page, "2": ""}))
    (family,) = families
    assert (family.name, family.type) == ("ingestor_a", "counter")
    assert [(one.labels, one.value) for one in family.samples] == [
        ({"worker": "0", "venue": "okx"}, 3.0),
        ({"worker": "1", "venue": "okx"}, 3.0),
    ]


async def test_families_survive_the_way_through_text() -> None:
    class Page:
        def families(self) -> Iterator[Metric]:
            buckets = [("0.1", 1), ("+Inf", 3)]
            yield HistogramMetricFamily("ingestor_h", "H.", buckets=buckets, sum_value=0.5)
            one = counter("c", "C.", ("cause",))
            one.add_metric(('a"b\\c\nd',), 2)
            yield one
            yield from worker_families({"0": (True, 4)})

    class Merged:
        def families(self) -> Iterator[Metric]:
            return families_of_workers({"7": page.decode()})

    page = await metrics_text(Page())
    merged_page = await metrics_text(Merged())
    kept = [
        (family.name, family.type, [(one.name, one.value) for one in family.samples])
        for family in text_string_to_metric_families(page.decode())
    ]
    again = list(text_string_to_metric_families(merged_page.decode()))
    assert kept == [
        (family.name, family.type, [(one.name, one.value) for one in family.samples])
        for family in again
    ]
    labels = [one.labels for family in again for one in family.samples]
    assert {"worker": "7", "cause": 'a"b\\c\nd'} in labels


async def test_streams_survive_the_way_through_text() -> None:
    assert list(streams_of((await streams_text(STREAMS)).decode())) == STREAMS
