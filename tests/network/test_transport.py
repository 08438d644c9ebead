"""Both transports behave alike, against a real websockets server and raw sockets on loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from ingestor.model.errors import HandshakeRejected, PeerClosed, TransportError
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.interface import (
    ClosedByUs,
    Connect,
    ConnectFailed,
    ConnectOptions,
    Link,
    OpenTimeout,
    ProtocolViolated,
    TlsFailed,
)

PATIENCE_S = 60.0
Serve = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(params=[picows.connect, websockets.connect], ids=["picows", "websockets"])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


@dataclass
class Listener:
    """A Handler that keeps what it hears."""

    events: list[str] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    bursts: int = 0
    failures: list[TransportError] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, link: Link) -> None:
        self.events.append("opened")

    @property
    def session(self) -> object:
        return self

    def arrive(self, arrival: tuple[object, bytes, int]) -> None:
        whose, payload, ts_recv = arrival
        assert whose is self
        self.events.append("frame")
        self.frames.append(payload)
        self.times.append(ts_recv)
        self.changed.set()

    def on_read_complete(self) -> None:
        self.bursts += 1

    def closed(self, failure: TransportError) -> None:
        self.events.append("closed")
        self.failures.append(failure)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def failure(self) -> TransportError:
        await self.until(lambda: bool(self.failures))
        await asyncio.sleep(0.05)  # a second call would come now
        assert len(self.failures) == 1
        assert self.events[0] == "opened"
        assert self.events[-1] == "closed"
        return self.failures[0]


@asynccontextmanager
async def venue(handle: Serve, **settings: Any) -> AsyncIterator[str]:
    settings = {"compression": None, "ping_interval": None, "close_timeout": 0.2} | settings
    async with serve(handle, "127.0.0.1", 0, **settings) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/feed"


@asynccontextmanager
async def tcp(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    writers = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await answer(reader, writer)

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def hold(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def test_text_binary_and_empty_messages(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.send('{"price":"1.10"}')
        await connection.send(b"\x00\xff" * 100)
        await connection.send("")
        await connection.send("x" * 70_000)
        await hold(connection)

    listener = Listener()
    async with venue(handle) as url:
        link = await connect(ConnectOptions(url), listener)
        await listener.until(lambda: len(listener.frames) == 4)
        link.close()
        assert isinstance(await listener.failure(), ClosedByUs)
    assert listener.frames == [b'{"price":"1.10"}', b"\x00\xff" * 100, b"", b"x" * 70_000]
    assert listener.times == sorted(listener.times)
    assert 1 <= listener.bursts <= 4 + 1  # the last may be the close frame's


async def test_fragments_are_joined_around_control_frames(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        async def parts() -> AsyncIterator[str]:
            yield "one "
            await connection.ping()
            yield "two "
            yield "é" * 200

        await connection.send(parts())
        await connection.send("after")
        await hold(connection)

    listener = Listener()
    async with venue(handle) as url:
        link = await connect(ConnectOptions(url), listener)
        await listener.until(lambda: len(listener.frames) == 2)
        link.abort()
        await listener.failure()
    assert listener.frames == [("one two " + "é" * 200).encode(), b"after"]


async def test_what_we_send_arrives_in_order(connect: Connect) -> None:
    heard: list[object] = []

    async def handle(connection: ServerConnection) -> None:
        async for message in connection:
            heard.append(message)
            if message == "last":
                await connection.send("done")

    listener = Listener()
    async with venue(handle) as url:
        link = await connect(ConnectOptions(url), listener)
        for payload in (b"first", b"x" * 5_000, "é".encode(), b"last"):
            link.send(payload)
        await listener.until(lambda: bool(listener.frames))
        link.close()
        link.close()
        await listener.failure()
        link.send(b"too late")
        link.ping()
        link.pause_reading()
        link.resume_reading()
        link.abort()
    assert heard == ["first", "x" * 5_000, "é", "last"]


async def test_pings_are_answered_and_ours_show_in_received_ns(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        await (await connection.ping(b"are you there"))
        await connection.send("you are")
        await hold(connection)

    listener = Listener()
    async with venue(handle) as url:
        link = await connect(ConnectOptions(url), listener)
        await listener.until(lambda: bool(listener.frames))
        before = link.received_ns
        link.ping()
        async with asyncio.timeout(PATIENCE_S):
            while link.received_ns == before:
                await asyncio.sleep(0.01)
        link.abort()
        await listener.failure()


@pytest.mark.rows("X5")
@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (1000, "", 1000),
        (1001, "going away", 1001),
        (1008, "", 1008),
        (1011, "internal", 1011),
        (1012, "restart", 1012),
        (1013, "later", 1013),
        (4000, "own code", 4000),
    ],
)
async def test_close_codes(connect: Connect, code: int, reason: str, seen: int) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    listener = Listener()
    async with venue(handle) as url:
        await connect(ConnectOptions(url), listener)
        failure = await listener.failure()
    assert isinstance(failure, PeerClosed)
    assert failure.code == seen
    assert reason in failure.reason


async def test_a_lost_connection_is_code_1006(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        connection.transport.abort()

    listener = Listener()
    async with venue(handle) as url:
        await connect(ConnectOptions(url), listener)
        failure = await listener.failure()
    assert isinstance(failure, PeerClosed)
    assert failure.code == 1006


@pytest.mark.rows("X5")
@pytest.mark.parametrize(
    ("status", "header", "wait_s"),
    [
        (200, None, None),
        (302, None, None),
        (401, None, None),
        (403, None, None),
        (404, None, None),
        (418, "soon", None),
        (429, "7", 7.0),
        (500, None, None),
        (503, "120", 120.0),
        (429, "9" * 400, 3_600.0),
        (418, "Fri, 31 Dec 9999 23:59:59 GMT", 3_600.0),
        (429, "-5", None),
    ],
)
async def test_handshake_rejected(
    connect: Connect, status: int, header: str | None, wait_s: float | None
) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        headers = Headers({"Content-Length": "0", "Location": "/elsewhere"})
        if header is not None:
            headers["Retry-After"] = header
        return Response(status, HTTPStatus(status).phrase, headers, b"")

    listener = Listener()
    async with venue(hold, process_request=refuse) as url:
        with pytest.raises(HandshakeRejected) as caught:
            await connect(ConnectOptions(url), listener)
    assert (caught.value.status, caught.value.retry_after_s) == (status, wait_s)
    assert listener.events == []


@pytest.mark.rows("X7")
async def test_oversize_message_ends_the_connection_with_1009(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.send("x" * 2_000)
        await hold(connection)

    listener = Listener()
    async with venue(handle) as url:
        await connect(ConnectOptions(url, frame_bytes_max=1_000), listener)
        failure = await listener.failure()
    assert isinstance(failure, ProtocolViolated)
    assert failure.code == 1009
    assert listener.frames == []


@pytest.mark.rows("X7")
async def test_fragments_of_an_oversize_message_end_it_too(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        async def parts() -> AsyncIterator[str]:
            for _ in range(10):
                yield "x" * 300

        await connection.send(parts())

    listener = Listener()
    async with venue(handle) as url:
        await connect(ConnectOptions(url, frame_bytes_max=1_000), listener)
        failure = await listener.failure()
    assert isinstance(failure, ProtocolViolated)
    assert failure.code == 1009
    assert listener.frames == []


def raw(*frames: bytes) -> Serve:
    """A server that writes these bytes after the handshake, past its own library."""

    async def handle(connection: ServerConnection) -> None:
        for frame in frames:
            connection.transport.write(frame)
        await hold(connection)

    return handle


@pytest.mark.rows("X9")
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([b"\x82\x7f" + (1 << 40).to_bytes(8)], 1009, id="one tebibyte claimed"),
        pytest.param([b"\x81\x81\x01\x02\x03\x04a"], 1002, id="masked by the server"),
        pytest.param([b"\x83\x01a"], 1002, id="reserved opcode"),
        pytest.param([b"\x80\x01a"], 1002, id="continuation of nothing"),
        pytest.param([b"\x01\x01a\x81\x01b"], 1002, id="message inside a message"),
    ],
)
async def test_violations(connect: Connect, frames: list[bytes], code: int) -> None:
    listener = Listener()
    async with venue(raw(*frames)) as url:
        await connect(ConnectOptions(url), listener)
        failure = await listener.failure()
    assert isinstance(failure, ProtocolViolated)
    assert failure.code == code
    assert listener.frames == []


@pytest.mark.rows("X9")
async def test_invalid_utf8_is_handed_over_for_the_decoder_to_refuse(connect: Connect) -> None:
    listener = Listener()
    async with venue(raw(b"\x81\x02\xff\xfe")) as url:
        link = await connect(ConnectOptions(url), listener)
        await listener.until(lambda: bool(listener.frames))
        link.abort()
        await listener.failure()
    assert listener.frames == [b"\xff\xfe"]


async def test_one_socket_read_is_one_burst_with_one_time() -> None:
    frames = b"".join(b"\x81\x04" + text for text in (b"aaaa", b"bbbb", b"cccc")) + b"\x89\x00"
    listener = Listener()
    async with venue(raw(frames)) as url:
        link = await picows.connect(ConnectOptions(url), listener)
        await listener.until(lambda: len(listener.frames) == 3)
        link.abort()
        await listener.failure()
    assert len(set(listener.times)) == 1
    assert listener.bursts == 1


@pytest.mark.rows("X10")
async def test_connect_refused(connect: Connect) -> None:
    async with venue(hold) as url:
        pass
    with pytest.raises(ConnectFailed):
        await connect(ConnectOptions(url), Listener())


@pytest.mark.rows("X10")
async def test_name_that_does_not_resolve(connect: Connect) -> None:
    with pytest.raises(ConnectFailed):
        await connect(ConnectOptions("ws://nowhere.invalid/"), Listener())


@pytest.mark.rows("X4")
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching"], ids=["silent", "slow"])
async def test_open_timeout_leaves_no_socket(connect: Connect, answer: bytes) -> None:
    ended = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        ended.set()

    async with tcp(serve_one) as url:
        with pytest.raises(OpenTimeout):
            await connect(ConnectOptions(url, open_timeout_s=0.2), Listener())
        await asyncio.wait_for(ended.wait(), PATIENCE_S)


@pytest.mark.rows("X4")
async def test_hang_up_in_the_handshake(connect: Connect) -> None:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with tcp(serve_one) as url:
        with pytest.raises(TransportError):
            await connect(ConnectOptions(url), Listener())


@pytest.mark.rows("X4")
async def test_garbage_in_the_handshake(connect: Connect) -> None:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" + b"x: y\r\n" * 1_000 + b"\r\n")

    listener = Listener()
    async with tcp(serve_one) as url:
        with pytest.raises(TransportError):
            await connect(ConnectOptions(url), listener)
    assert listener.events == []


async def test_pause_stops_the_bytes_and_resume_brings_all(connect: Connect) -> None:
    sent = 0
    size, count = 50_000, 400  # 20 MB: more than all buffers between the two hold

    async def handle(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(count):
            await connection.send("x" * size)
            sent += 1
        await hold(connection)

    class Pausing(Listener):
        def opened(self, link: Link) -> None:
            super().opened(link)
            link.pause_reading()

    listener = Pausing()
    async with venue(handle) as url:
        link = await connect(ConnectOptions(url), listener)
        await asyncio.sleep(0.5)
        stalled = sent
        await asyncio.sleep(0.3)
        assert sent == stalled < count
        assert len(listener.frames) <= 1
        link.resume_reading()
        await listener.until(lambda: len(listener.frames) == count)
        link.abort()
        await listener.failure()


async def test_deflate_is_offered_by_the_websockets_transport_alone() -> None:
    offers: dict[str, str | None] = {}

    def look(connection: ServerConnection, request: Request) -> None:
        offers[request.headers["X-Who"]] = request.headers.get("Sec-WebSocket-Extensions")

    async def handle(connection: ServerConnection) -> None:
        await connection.send("x" * 10_000)
        await hold(connection)

    async with venue(handle, process_request=look, compression="deflate") as url:
        for name, connect in (("picows", picows.connect), ("websockets", websockets.connect)):
            listener = Listener()
            options = ConnectOptions(url, headers={"X-Who": name}, permessage_deflate=True)
            link = await connect(options, listener)
            await listener.until(partial(bool, listener.frames))
            assert listener.frames == [b"x" * 10_000]
            link.abort()
            await listener.failure()
    assert offers["picows"] is None
    assert "permessage-deflate" in (offers["websockets"] or "")


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_calls_on_a_closing_link_do_nothing(connect: Connect, end: str, secure: bool) -> None:
    server, client = contexts("good")
    listener = Listener()
    async with venue(hold, ssl=server if secure else None) as url:
        target = url.replace("ws:", "wss:") if secure else url
        link = await connect(
            ConnectOptions(target, ssl_context=client if secure else None), listener
        )
        getattr(link, end)()
        for _ in range(2):
            link.pause_reading()
            link.resume_reading()
            link.pause_reading()
            link.send(b"too late")
            link.ping()
        assert isinstance(await listener.failure(), ClosedByUs)


async def test_source_address(connect: Connect) -> None:
    peers: list[str] = []

    async def handle(connection: ServerConnection) -> None:
        peers.append(connection.remote_address[0])
        await hold(connection)

    listener = Listener()
    async with venue(handle) as url:
        link = await connect(ConnectOptions(url, source_address="127.0.0.7"), listener)
        link.abort()
        await listener.failure()
    assert peers == ["127.0.0.7"]


# TLS

PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def contexts(kind: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return (server's, client's) contexts; `kind` says what is wrong with the certificate."""
    authority = trustme.CA()
    expiry = PAST if kind == "expired" else None
    host = "other.example" if kind == "wrong host" else "127.0.0.1"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(
        host, not_after=expiry, not_before=PAST if expiry else None
    ).configure_cert(server)
    if kind == "old version":
        server.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        server.maximum_version = ssl.TLSVersion.TLSv1_1
        server.set_ciphers("ALL:@SECLEVEL=0")
    client = ssl.create_default_context()
    if kind != "self-signed":
        authority.configure_trust(client)
    return server, client


@pytest.mark.rows("X6")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("kind", ["expired", "self-signed", "wrong host", "old version"])
async def test_tls_refused(connect: Connect, kind: str) -> None:
    server, client = contexts(kind)
    listener = Listener()
    async with venue(hold, ssl=server) as url:
        # An old server may drop the socket instead of sending the alert.
        with pytest.raises((TlsFailed, ConnectFailed) if kind == "old version" else TlsFailed):
            await connect(ConnectOptions(url.replace("ws:", "wss:"), ssl_context=client), listener)
    assert listener.events == []


async def test_tls(connect: Connect) -> None:
    async def handle(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    server, client = contexts("good")
    listener = Listener()
    async with venue(handle, ssl=server) as url:
        link = await connect(
            ConnectOptions(url.replace("ws:", "wss:"), ssl_context=client), listener
        )
        link.send(b"x" * 40_000)
        await listener.until(lambda: bool(listener.frames))
        link.close()
        await listener.failure()
    assert listener.frames == [b"x" * 40_000]


@pytest.mark.rows("X6")
async def test_the_default_context_verifies(connect: Connect) -> None:
    server, _ = contexts("good")
    async with venue(hold, ssl=server) as url:
        with pytest.raises(TlsFailed):
            await connect(ConnectOptions(url.replace("ws:", "wss:")), Listener())
