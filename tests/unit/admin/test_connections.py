"""ingestor.admin.connections: clients that idle, dawdle or come in numbers cost little."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ingestor.admin import connections, server
from ingestor.admin.connections import CONNECTIONS_MAX
from ingestor.admin.server import AdminServer
from ingestor.config.model import HttpConfig
from tests.unit.admin.test_server import App

PATIENCE_S = 60.0
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def go() -> asyncio.Event:
    """Pages of metrics wait for this."""
    return asyncio.Event()


@pytest.fixture
async def admin(
    monkeypatch: pytest.MonkeyPatch, app: App, go: asyncio.Event
) -> AsyncIterator[AdminServer]:
    monkeypatch.setattr(server, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.4)
    monkeypatch.setattr(connections, "KEEPALIVE_S", 0.6)
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 0.8)

    async def refresh(_path: str) -> None:
        await go.wait()

    async with AdminServer(HttpConfig(port=0), app, refresh) as one:
        yield one


async def connect(admin: AdminServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", admin.port)


async def seconds_until_the_end(reader: asyncio.StreamReader) -> float:
    begun_s = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()
    except ConnectionError:
        pass
    return time.monotonic() - begun_s


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1_000,
        b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n",
    ],
)
async def test_a_connection_without_a_whole_request_is_closed(
    admin: AdminServer, sent: bytes
) -> None:
    reader, writer = await connect(admin)
    writer.write(sent)
    assert await seconds_until_the_end(reader) < 10.0
    writer.close()


async def test_dribbling_does_not_prolong_it(admin: AdminServer) -> None:
    reader, writer = await connect(admin)
    ended = asyncio.create_task(seconds_until_the_end(reader))
    for byte in b"GET /livez HTTP/1.1\r\nX: " + b"y" * 200:
        if ended.done():
            break
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.02)
    assert await ended < 3.0  # all of it takes 4 s and more
    writer.close()


@pytest.mark.parametrize("more", [b"", b"GET /livez HT"], ids=["idle", "half a request"])
async def test_after_an_answer_it_is_kept_for_a_while(admin: AdminServer, more: bytes) -> None:
    reader, writer = await connect(admin)
    for _ in range(3):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.3)
        await reader.read(1_000)
    writer.write(more)
    assert await seconds_until_the_end(reader) < 10.0
    writer.close()


async def test_an_answer_that_takes_too_long_is_given_up(admin: AdminServer) -> None:
    reader, writer = await connect(admin)
    writer.write(REQUEST.replace(b"livez", b"metrics"))
    assert 0.5 < await seconds_until_the_end(reader) < 10.0
    writer.close()


async def test_many_idle_connections_make_room_for_a_request(admin: AdminServer) -> None:
    """Five times as many as there may be; probes are answered all the time."""
    opened = [await connect(admin) for _ in range(5 * CONNECTIONS_MAX)]
    async with aiohttp.ClientSession() as session:
        for _ in range(5):
            async with session.get(f"http://127.0.0.1:{admin.port}/livez") as answer:
                assert answer.status == 200
            alive = [one for one, _ in opened if not one.at_eof() and one.exception() is None]
            assert len(alive) <= CONNECTIONS_MAX
    for _, writer in opened:
        writer.close()


async def test_too_many_requests_at_once_are_told_so(
    admin: AdminServer, monkeypatch: pytest.MonkeyPatch, go: asyncio.Event
) -> None:
    for name in ("HEAD_TIMEOUT_S", "ANSWER_TIMEOUT_S"):
        monkeypatch.setattr(connections, name, PATIENCE_S)
    busy = [await connect(admin) for _ in range(CONNECTIONS_MAX)]
    for _, writer in busy:
        writer.write(REQUEST.replace(b"livez", b"metrics"))
    for _ in range(100):  # turns of the loop, which is the server's too: all of them are read
        await asyncio.sleep(0.002)
    reader, writer = await connect(admin)
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert answer.startswith(b"HTTP/1.1 503 ")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    go.set()
    for their_reader, their_writer in busy:
        assert (await their_reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        their_writer.close()
    writer.close()


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("x"), OSError("x"), StopIteration("x"), struct.error("x"), MemoryError()],
)
async def test_a_page_that_raises_is_a_500_and_a_bug(
    admin: AdminServer,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    expected_bugs: Counter[str],
    failure: Exception,
) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr(app, "ready", fail)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as session:
        async with session.get("/readyz") as answer:
            assert answer.status == 500
            assert "X-Frame-Options" in answer.headers
        async with session.get("/livez") as answer:
            assert answer.status == 200
    expected_bugs["HTTP client"] = 1


async def test_stopping_waits_for_no_idle_connection(admin: AdminServer) -> None:
    opened = [await connect(admin) for _ in range(10)]
    async with asyncio.timeout(PATIENCE_S):
        await admin.stop()
    for reader, writer in opened:
        await seconds_until_the_end(reader)
        writer.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await connect(admin)
