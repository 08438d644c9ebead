"""Several processes on one machine: each runs its share of the plan, one parent looks after them.

A worker is `ingestor run CONFIG --worker I/N`: a process of its own with its own loop. It says two
JSON lines on standard output: `{"http_port": ...}` once it runs, and how it ended
(`{"status": ..., "lost": ...}`); between them it answers what it is asked (`control`). It ends in
order at SIGTERM, or when its standard input closes, so that no worker outlives the parent. It leads
a session of its own: Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import orjson
import structlog
from prometheus_client.core import Metric

from ingestor.admin.exposition import StreamState
from ingestor.admin.server import AdminServer
from ingestor.admin.streams import StreamPage, StreamQuery, joined
from ingestor.app.planning import Planned
from ingestor.app.reload import Configuration, Reloads
from ingestor.cluster import control
from ingestor.cluster.control import Streams
from ingestor.cluster.launch import COMMAND, Launch
from ingestor.cluster.reload import WorkersFollower
from ingestor.cluster.view import families_of_workers, merged_last, streams_of, worker_families
from ingestor.config.model import Config
from ingestor.model.backoff import Backoff
from ingestor.model.errors import ReloadRefused, WorkerFailed
from ingestor.model.instruments import InstrumentTable
from ingestor.sources.live.plan import Plan
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.status import Health, Phase, Status, merged

POLL_S: Final = 1.0
ANSWER_S: Final = 3.0  # how long a worker may take to answer
STEADY_S: Final = 60.0  # a life of this length forgets the failures before it
MARGIN_S: Final = 5.0  # beyond drain_s: closing handshakes, the recorder's last segment
EXIT_NOT_MADE: Final = 127  # as shells have it
LINE_MAX: Final = 64 << 20
RESTART: Final = Backoff(base_s=1.0, cap_s=30.0, floor_s=0.1)

log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """Say how all workers ended. lost: rows that were read and could not be delivered in time."""

    status: Status
    lost: int


class Worker:
    """One share of the plan, and the process that carries it at present.

    connections: how many the share has. restarts: since the start. has_run: in any of its lives.
    """

    def __init__(self, index: int, connections: int) -> None:
        self.index = index
        self.connections = connections
        self.restarts = 0
        self.has_run = False
        self.answers = False
        self.ready = False
        self.page = ""  # of metrics, as it was last asked for
        self.port = 0  # 0 = not running (yet)
        self.streams: Streams = []  # as far as the parent knows
        self._calls = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.lost: int | None = None  # None = this life didn't end by itself (yet)
        self.exit_status: int | None = None
        self._status: Status | None = None
        self._process: Process | None = None
        self._runs = False  # in this life
        self._ending = False

    @property
    def is_up(self) -> bool:
        return self.port != 0 and self.answers

    @property
    def state(self) -> str:
        """Return a word for the status page, with the times it was started again."""
        word = "up" if self.is_up else "down" if self.has_run else "starting"
        return f"{word}, restarted {self.restarts}" if self.restarts else word

    @property
    def ended_well(self) -> bool:
        """Also where this life was stopped before it ran: it has read nothing."""
        return self.exit_status == 0 or (self.exit_status is not None and not self._runs)

    def status(self) -> Status:
        """Return what it last said; where it is down, its connections are."""
        if self._status is not None and (self.port or self.lost is not None):
            return self._status
        last = self._status or Status()
        return replace(last, phase=Phase.STARTING, connections={"down": self.connections})

    async def live(self, prepare: Callable[[], tuple[Sequence[str], dict[str, Any]]]) -> None:
        """Run one process until it ends. prepare: gives its command and further options."""
        self.exit_status = self.lost = self._status = None
        self._runs = False
        try:
            command, options = prepare()
            self._process = process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, start_new_session=True, limit=LINE_MAX, **options
            )
        except OSError as failure:  # the machine has no room for one more at present
            log.warning("worker.not_made", worker=self.index, reason=str(failure))
            self.exit_status = EXIT_NOT_MADE
            return
        assert process.stdout is not None
        try:
            if self._ending:  # while it was being started
                self.terminate()
            async for line in process.stdout:
                self._heard(line)
            self.exit_status = await process.wait()
        finally:
            self.port, self.answers, self.ready, self.page = 0, False, False, ""
            for waiting in self._answers.values():
                if not waiting.done():
                    waiting.set_exception(ReloadRefused("it ended"))

    def _heard(self, line: bytes) -> None:
        try:
            content = orjson.loads(line)
            if "answer" in content:
                waiting = self._answers.get(int(content.pop("answer")))
                if waiting is not None and not waiting.done():
                    waiting.set_result(content)
            elif "http_port" in content:
                self.port = int(content["http_port"])
                self._runs = self.has_run = self.answers = True
                log.info("worker.running", worker=self.index, pid=self.pid)
            else:
                self._status = Status.from_json(content["status"])
                self.lost = int(content["lost"])
        except (KeyError, TypeError, ValueError):
            log.warning("worker.unknown_line", worker=self.index, line=line[:200])

    async def call(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask a worker over its standard input; return its answer.

        Args:
            request: what `ingestor.cluster.control` takes, without a number.
            timeout_s: how long the answer may take.

        Raises:
            ReloadRefused: when none comes.
        """
        process = self._process
        if not self.is_up or process is None or process.stdin is None:
            raise ReloadRefused("it does not run")
        self._calls += 1
        number = self._calls
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(msgspec.json.encode({"call": number, **request}) + b"\n")
            async with asyncio.timeout(timeout_s):
                answer: dict[str, Any] = await waiting
                return answer
        except (OSError, RuntimeError, TimeoutError) as failure:
            reason = str(failure) or "it does not answer"
            raise ReloadRefused(reason) from None
        finally:
            del self._answers[number]

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def terminate(self) -> None:
        """Ask it to end in order, also where it is only about to start."""
        self._ending = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._ending = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Not by Process.send_signal: on asyncio's own loop it may reap a process that just ended,
        # and the exit status is lost.
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def ask(self, client: aiohttp.ClientSession) -> None:
        """Get its status and whether it is ready; a worker that doesn't answer is not up."""
        port = self.port
        if not port:
            return
        try:
            status = Status.from_json(orjson.loads((await _get(client, port, "/status.json"))[1]))
            code, _ = await _get(client, port, "/readyz")
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as failure:
            if self.port == port:
                self.answers = self.ready = False
                if not self._ending:
                    log.warning("worker.silent", worker=self.index, reason=repr(failure))
            return
        if self.port == port and self.lost is None:  # else it has ended meanwhile
            self._status, self.answers, self.ready = status, True, code == 200

    async def fetch(self, client: aiohttp.ClientSession, path: str) -> None:
        """Get a page of metrics, empty where there is none."""
        self.page = ""
        if self.port:
            with suppress(aiohttp.ClientError, TimeoutError):
                self.page = (await _get(client, self.port, path))[1].decode()

    async def find(self, client: aiohttp.ClientSession, query: StreamQuery) -> StreamPage | None:
        """Return the streams that a query asks for, None where it gives no answer."""
        if not self.port:
            return None
        path = f"/streams.json?{urlencode(query.to_parameters())}"
        try:
            return StreamPage.from_json(orjson.loads((await _get(client, self.port, path))[1]))
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError):
            return None

    async def last(self, client: aiohttp.ClientSession, key: str) -> dict[str, Any] | None:
        """Return the last rows that it has of an instrument, None where it has none."""
        if not self.port:
            return None
        try:
            status, body = await _get(client, self.port, f"/last/{quote(key, safe='')}")
            found: dict[str, Any] | None = orjson.loads(body) if status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return found


async def _get(client: aiohttp.ClientSession, port: int, path: str) -> tuple[int, bytes]:
    async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.read()


class Workers:
    """The parent: starts the workers, starts them again, shows and ends them as one."""

    def __init__(
        self,
        config: Config,
        file: Path,
        plan: Plan,
        count: int,
        *,
        command: Sequence[str] = COMMAND,
        arguments: Sequence[str] = (),
        backoff: Backoff = RESTART,
        reload: tuple[Configuration, Planned] | None = None,
    ) -> None:
        """Create the workers.

        Args:
            config: of all workers together.
            file: the configuration's.
            plan: the whole.
            count: at least 1; a plan with fewer connections has as many workers.
            command: how the program is called.
            arguments: what every worker is given besides.
            backoff: between the lives of a worker.
            reload: what a reload reads, and the plan with its lists; None where there is none.
        """
        count = max(1, min(count, len(plan)))
        self.config = config
        self.workers = [Worker(index, len(plan.share(index, count))) for index in range(count)]
        self._launch = Launch(config, file, count, command, arguments)
        for worker in self.workers:
            worker.streams = control.streams_of(plan.share(worker.index, count))
        configuration, planned = reload or (None, Planned(InstrumentTable(), plan))
        follower = WorkersFollower(
            *(config, planned, file, self.workers, self._launch.renew),
            lambda: not self._stopping.is_set() and self._is_ready,
        )
        self.reloads = Reloads(follower, configuration)
        self._is_ready = False
        self.http = (
            AdminServer(
                config.http,
                self,
                self._refresh,
                self.reloads.reload,
                self._last if config.last.enabled else None,
            )
            if config.http.enabled
            else None
        )
        self._backoff = backoff
        self._stopping = asyncio.Event()
        self._failure: WorkerFailed | None = None
        self._client: aiohttp.ClientSession | None = None
        self._done = False

    # ------------------------------------------------------------------ life

    def stop(self) -> None:
        """End `run` in order: every worker drains."""
        self._stopping.set()
        self.reloads.stop()

    def request_reload(self) -> None:
        """Let all workers follow the configuration; the log says what came of it."""
        self.reloads.request()

    def abandon(self) -> None:
        """End every worker at once, with whatever it holds; leave nothing behind."""
        for worker in self.workers:
            worker.kill()
        self._launch.discard()

    @property
    def failed(self) -> int:
        """Workers that did not end cleanly."""
        return sum(not worker.ended_well for worker in self.workers)

    def details(self) -> Mapping[str, int]:
        """Return what a run of one process doesn't have."""
        return {
            "workers": len(self.workers),
            "workers_failed": self.failed,
            "restarts": sum(worker.restarts for worker in self.workers),
        }

    async def run(self, on_ready: Callable[[], None] | None = None) -> Finished:
        """Run until `stop`. on_ready: called once every worker runs.

        Raises WorkerFailed when one could not start at all, ListenFailed when the HTTP port is
        taken.
        """
        async with AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(ANSWER_S)
            self._client = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            if self.http is not None:
                await stack.enter_async_context(self.http)
            stack.enter_context(self._launch)
            stack.callback(self.abandon)
            async with asyncio.TaskGroup() as group:
                polling = group.create_task(self._poll(on_ready), name="workers' status")
                reloading = group.create_task(bulkheads.keep("reload", self.reloads.run))
                keepers = [
                    group.create_task(self._keep(worker), name=f"worker {worker.index}")
                    for worker in self.workers
                ]
                await self._stopping.wait()
                await self._end(keepers)
                polling.cancel()
                reloading.cancel()
        self._done = True
        if self._failure is not None:
            raise self._failure
        lost = [
            worker.lost if worker.lost is not None else worker.status().pending
            for worker in self.workers
        ]
        return Finished(self.status(), sum(lost))

    async def _end(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        for worker in self.workers:
            worker.terminate()
        _, late = await asyncio.wait(keepers, timeout=self.config.limits.drain_s + MARGIN_S)
        if late:
            log.error("workers.killed", workers=len(late), reason="they did not drain in time")
            for worker in self.workers:
                worker.kill()
            await asyncio.wait(late)

    async def _keep(self, worker: Worker) -> None:
        """Run a worker, and again whenever it ends, until all are stopped."""
        failures = 0
        while not self._stopping.is_set():
            started_s = time.monotonic()
            await worker.live(partial(self._launch.of, worker.index))
            exit_status = worker.exit_status or 0
            if self._stopping.is_set():
                return
            if exit_status > 0 and not worker.has_run:
                self._failure = WorkerFailed(worker.index, exit_status)
                self.stop()
                return
            failures = 0 if time.monotonic() - started_s >= STEADY_S else failures + 1
            delay_s = self._backoff.delay_s(max(0, failures - 1), random.random)
            log.error(
                "worker.ended",
                worker=worker.index,
                exit_status=exit_status,
                rows_pending=worker.status().pending,
                restart_in_s=round(delay_s, 3),
            )
            worker.restarts += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _poll(self, on_ready: Callable[[], None] | None) -> None:
        assert self._client is not None
        while True:
            await asyncio.gather(*(worker.ask(self._client) for worker in self.workers))
            if not self._is_ready and all(worker.port for worker in self.workers):
                self._is_ready = True
                if on_ready is not None:
                    on_ready()
            await asyncio.sleep(POLL_S)

    # ------------------------------------------------------------------ what is shown

    def status(self) -> Status:
        """Return the sum of what the workers last said."""
        whole = merged(worker.status() for worker in self.workers)
        if self._stopping.is_set():
            whole.phase = Phase.STOPPED if self._done else Phase.DRAINING
        else:
            down = [
                str(worker.index) for worker in self.workers if worker.has_run and not worker.is_up
            ]
            whole.notes += [f"worker {', '.join(down)} down"] if down else []
        whole.workers = {str(worker.index): worker.state for worker in self.workers}
        return whole

    def ready(self) -> Health:
        ready = sum(worker.ready for worker in self.workers)
        return Health(
            ready == len(self.workers) and not self._stopping.is_set(),
            {"workers": len(self.workers), "workers_ready": ready},
        )

    def families(self) -> Iterator[Metric]:
        ups = {str(worker.index): (worker.is_up, worker.restarts) for worker in self.workers}
        yield from worker_families(ups)
        yield from families_of_workers({str(worker.index): worker.page for worker in self.workers})

    def streams(self) -> Iterator[StreamState]:
        for worker in self.workers:
            yield from streams_of(worker.page)

    async def worst_streams(self, query: StreamQuery) -> StreamPage:
        """Ask every worker for its worst streams and return the worst of all."""
        client = self._client
        if client is None:
            return StreamPage(0, 0, [])
        pages = await asyncio.gather(*(worker.find(client, query) for worker in self.workers))
        return joined((page for page in pages if page is not None), query)

    async def _last(self, key: str) -> dict[str, Any] | None:
        """Return an instrument's last rows: its streams may be with several workers."""
        client = self._client
        if client is None:
            return None
        asked = (worker.last(client, key) for worker in self.workers)
        return merged_last(await asyncio.gather(*asked))

    async def _refresh(self, path: str) -> None:
        """A page is fetched when it is asked for: to write it costs a worker's loop time."""
        if self._client is not None:
            client = self._client
            await asyncio.gather(*(worker.fetch(client, path) for worker in self.workers))
