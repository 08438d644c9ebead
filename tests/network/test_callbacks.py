"""Whatever a callback raises costs its own connection: siblings, the poller and the loop go on."""

from __future__ import annotations

import asyncio
import gc
import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection

from ingestor.model.errors import TransportError
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.interface import (
    CallbackFailed,
    ClosedByUs,
    Connect,
    ConnectOptions,
    Link,
)
from ingestor.sources.websocket.poller import Reader, Readiness
from tests.network.test_protocol_violations import serve
from tests.network.test_streams import framed
from tests.network.test_transport import Listener, contexts, hold, venue

FAILURES: list[Exception] = [
    RuntimeError("injected"),
    OSError("injected"),
    StopIteration("injected"),
    struct.error("injected"),
    ArithmeticError("injected"),
    MemoryError("injected"),
]
PLACES = ["opened", "arrive", "arrive_fragmented", "on_read_complete", "closed"]


def has_last(listener: Listener) -> bool:
    return b"last" in listener.frames


def has_two(listener: Listener) -> bool:
    return len(listener.frames) == 2


@pytest.fixture(params=[picows.connect, websockets.connect], ids=["picows", "websockets"])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep tracebacks out of the log: rendering one takes seconds here."""
    with capture_logs():
        yield


class Failing(Listener):
    """Raises at one place, after it was heard there."""

    def __init__(self, place: str, failure: Exception) -> None:
        super().__init__()
        self.place, self.failure_to_raise = place, failure

    def _heard(self, place: str) -> None:
        if place == self.place:
            raise self.failure_to_raise

    def opened(self, link: Link) -> None:
        super().opened(link)
        self._heard("opened")

    def arrive(self, arrival: tuple[object, bytes, int]) -> None:
        super().arrive(arrival)
        self._heard("arrive" if arrival[1] == b"bad" else "arrive_fragmented")

    def on_read_complete(self) -> None:
        super().on_read_complete()
        if self.frames:
            self._heard("on_read_complete")

    def closed(self, failure: TransportError) -> None:
        super().closed(failure)
        self._heard("closed")


CASES = [(place, failure, False) for place in PLACES for failure in FAILURES]
CASES += [(place, FAILURES[0], True) for place in PLACES]


@pytest.mark.rows("I1")
@pytest.mark.parametrize(
    ("place", "failure", "secure"),
    CASES,
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_siblings_go_on(
    connect: Connect, place: str, failure: Exception, secure: bool, expected_bugs: Counter[str]
) -> None:
    """Five connections of one loop, of which one fails, hear everything that is sent to them."""
    go = asyncio.Event()
    frames = framed(b"a", 0x01) + framed(b"b", 0x80) if "fragmented" in place else framed(b"bad")

    async def handle(connection: ServerConnection) -> None:
        await go.wait()
        connection.transport.write(frames * 3)
        await asyncio.sleep(0.05)
        connection.transport.write(framed(b"last"))
        await hold(connection)

    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: unhandled.append(about))
    server, client = contexts("good") if secure else (None, None)
    async with venue(handle, ssl=server) as url:
        target = url.replace("ws:", "wss:") if secure else url
        options = ConnectOptions(target, ssl_context=client)
        failing = Failing(place, failure)
        siblings = [Listener() for _ in range(4)]
        links = [await connect(options, one) for one in (*siblings[:2], failing, *siblings[2:])]
        go.set()
        for sibling in siblings:
            await sibling.until(partial(has_last, sibling))
            assert len(sibling.frames) == 4
        if place == "closed":
            links[2].abort()
        verdict = await failing.failure()
        assert isinstance(verdict, ClosedByUs if place == "closed" else CallbackFailed)
        assert len(failing.frames) <= 4
        for link in links:
            link.abort()
        for sibling in siblings:
            assert isinstance(await sibling.failure(), ClosedByUs)
    expected_bugs["connection"] = 1
    assert unhandled == []


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_the_end_of_a_burst_that_many_share(
    failure: Exception, expected_bugs: Counter[str]
) -> None:
    """It belongs to the owner of all these sockets: none of them is closed for it."""
    ends = 0
    go = asyncio.Event()

    def end() -> None:
        nonlocal ends
        ends += go.is_set()
        if ends == 1:
            raise failure

    async def handle(connection: ServerConnection) -> None:
        await go.wait()
        for payload in (b"one", b"two"):
            connection.transport.write(framed(payload))
            await asyncio.sleep(0.05)
        await hold(connection)

    async with venue(handle) as url:
        listeners = [Listener() for _ in range(3)]
        for listener in listeners:
            listener.on_read_complete = end  # type: ignore[method-assign]
        links = [await picows.connect(ConnectOptions(url), one) for one in listeners]
        go.set()
        for listener in listeners:
            await listener.until(partial(has_two, listener))
            assert listener.failures == []
        for link in links:
            link.abort()
    assert ends >= 2
    expected_bugs["connection"] = 1


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("where", ["lookup", "socket", "library"])
async def test_whatever_opening_raises_is_a_transport_error(
    connect: Connect,
    where: str,
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
    expected_bugs: Counter[str],
) -> None:
    """OSErrors are foreseen; the others are bugs, and cost an attempt."""

    def fail(*_: object, **__: object) -> None:
        raise failure

    if where == "lookup":
        monkeypatch.setattr("ingestor.sources.resolver.Resolver.resolve", fail)
    elif where == "socket":
        monkeypatch.setattr("ingestor.sources.websocket.sockets.start_connection", fail)
    else:
        monkeypatch.setattr("ingestor.sources.websocket.picows.WSProtocol", fail)
        monkeypatch.setattr("ingestor.sources.websocket.websockets._Connection.__init__", fail)
    listener = Listener()
    async with venue(hold) as url:
        with pytest.raises(TransportError) as caught:
            await connect(ConnectOptions(url), listener)
    assert isinstance(caught.value, CallbackFailed) == (not isinstance(failure, OSError))
    assert listener.events == []
    expected_bugs["connection"] = int(not isinstance(failure, OSError))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("call", ["pause_reading", "resume_reading"])
async def test_whoever_pauses_and_resumes_all_stops_at_none(
    call: str,
    failure: Exception,
    monkeypatch: pytest.MonkeyPatch,
    expected_bugs: Counter[str],
) -> None:
    """The kernel refuses one socket's watch; the next ones are paused and resumed all the same."""
    watched: list[int] = []
    refused: list[int] = []
    add, remove = Readiness.add, Readiness.remove

    def watch(self: Readiness, descriptor: int, reader: Reader) -> None:
        add(self, descriptor, reader)
        watched.append(descriptor)
        if descriptor in refused and call == "resume_reading":
            raise failure

    def unwatch(self: Readiness, descriptor: int) -> None:
        remove(self, descriptor)
        if descriptor in watched:
            watched.remove(descriptor)
        if descriptor in refused and call == "pause_reading":
            raise failure

    monkeypatch.setattr(Readiness, "add", watch)
    monkeypatch.setattr(Readiness, "remove", unwatch)
    async with venue(hold) as url:
        listeners = [Listener() for _ in range(3)]
        links = [await picows.connect(ConnectOptions(url), one) for one in listeners]
        middle = watched[1]
        if call == "resume_reading":
            for link in links:
                link.pause_reading()
        refused.append(middle)
        for link in links:
            getattr(link, call)()
        assert isinstance(await listeners[1].failure(), CallbackFailed)
        assert len(watched) == (2 if call == "resume_reading" else 0)
        refused.clear()
        for link in links:
            link.abort()
        for listener in (listeners[0], listeners[2]):
            assert isinstance(await listener.failure(), ClosedByUs)
    expected_bugs["connection"] = 1


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.rows("X4")
@pytest.mark.parametrize("kind", ["refused", "garbage", "hung up"])
async def test_failed_handshakes_leave_nothing(connect: Connect, kind: str) -> None:
    """1,000 attempts: no objects, descriptors or sockets of the poller, and no growing memory.

    Memory of a process grows now and then; what a leak takes is taken in each round.
    """
    answers = {
        "refused": b"HTTP/1.1 520 x\r\nRetry-After: 1\r\n\r\n" + b"x" * 20_000,
        "garbage": b"\x00" * 40_000,
        "hung up": b"HTTP/1.1 101 Sw",
    }
    process = psutil.Process()

    async def attempts(count: int, url: str) -> None:
        for _ in range(count):
            with pytest.raises(TransportError):
                await connect(ConnectOptions(url), Listener())
        await asyncio.sleep(0.05)

    async with serve(answer=answers[kind], then_close=kind == "hung up") as heard:
        await attempts(200, heard.url)
        objects, open_files = count_objects(), descriptors()
        resident = [process.memory_info().rss]
        for _ in range(4):
            await attempts(250, heard.url)
            resident.append(process.memory_info().rss)
        assert descriptors() <= open_files + 4
        assert min(np.diff(resident)) < 2 << 20, resident  # the server of the test is in it
        assert count_objects() - objects < 500


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
