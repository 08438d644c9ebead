"""The streams under the picows transport: frames in any pieces, fairness, and their end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from ingestor.model.errors import PeerClosed
from ingestor.sources.resolver import Resolver
from ingestor.sources.websocket import picows
from ingestor.sources.websocket.interface import ClosedByUs, ConnectOptions
from ingestor.sources.websocket.poller import PORTION, Readiness
from ingestor.sources.websocket.sockets import (
    READ_BYTES,
    WRITE_BYTES_MAX,
    SocketTransport,
    open_stream,
)
from tests.network.test_transport import PATIENCE_S, Listener, contexts, hold, raw, venue


def framed(payload: bytes, opcode: int = 0x81) -> bytes:
    """Return one unmasked frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2) + payload
    return bytes((opcode, 127)) + size.to_bytes(8) + payload


def a_stream_of_frames(seed: int) -> tuple[list[bytes], bytes]:
    """Return messages, and their frames with fragments, pings and pongs among them."""
    random = Random(seed)
    messages, frames = [], []
    for size in (0, 1, 125, 126, 200, 1_000, 65_535, 65_536, 200_000, 3, 40_000, 125) * 2:
        payload = random.randbytes(size)
        messages.append(payload)
        if size > 2 and random.random() < 0.3:
            at = random.randrange(1, size)
            frames += [framed(payload[:at], 0x02), framed(b"hm", 0x89), framed(payload[at:], 0x80)]
        else:
            frames.append(framed(payload, random.choice((0x81, 0x82))))
        if random.random() < 0.3:
            frames.append(framed(b"", random.choice((0x89, 0x8A))))
    return messages, b"".join(frames)


def in_pieces(data: bytes, sizes: Callable[[], int]) -> list[bytes]:
    pieces, at = [], 0
    while at < len(data):
        size = sizes()
        pieces.append(data[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("seed", range(3))
async def test_frames_are_the_same_whatever_pieces_they_come_in(seed: int, secure: bool) -> None:
    messages, data = a_stream_of_frames(seed)
    random = Random(seed)
    pieces = in_pieces(data, lambda: random.choice((1, 2, 3, 5, 130, 1_400, 70_000)))

    async def handle(connection: ServerConnection) -> None:
        for piece in pieces:
            connection.transport.write(piece)
            await asyncio.sleep(0)
        await hold(connection)

    server, client = contexts("good")
    listener = Listener()
    async with venue(handle, ssl=server if secure else None) as url:
        target = url.replace("ws:", "wss:") if secure else url
        link = await picows.connect(ConnectOptions(target, ssl_context=client), listener)
        await listener.until(lambda: len(listener.frames) >= len(messages))
        link.abort()
        assert isinstance(await listener.failure(), ClosedByUs)
    assert listener.frames == messages


async def test_what_comes_with_the_handshake_is_not_lost() -> None:
    """The answer, two frames and a half of the third in one segment, and then the end."""
    listener = Listener()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from websockets.http11 import Request
        from websockets.server import ServerProtocol

        protocol = ServerProtocol()
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        frames = framed(b"one") + framed(b"two") + framed(b"x" * 300)
        writer.write(b"".join(protocol.data_to_send()) + frames[:-100])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(frames[-100:])
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await picows.connect(ConnectOptions(f"ws://127.0.0.1:{port}/"), listener)
        failure = await listener.failure()
    assert isinstance(failure, PeerClosed)
    assert listener.frames == [b"one", b"two", b"x" * 300]


class Pairs:
    """Connected pairs of sockets on loopback."""

    def __init__(self, count: int) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=count) as listening:
            self.ours, self.peers = [], []
            for _ in range(count):
                self.ours.append(socket.create_connection(listening.getsockname()))
                self.ours[-1].setblocking(False)
                self.peers.append(listening.accept()[0])

    def close(self) -> None:
        for one in (*self.ours, *self.peers):
            one.close()


class Calls:
    """A reader that is a function; what it returns is the end of the burst."""

    def __init__(self, read: Callable[[], Callable[[], None] | None]) -> None:
        self._read = read
        self.failures: list[Exception] = []

    def readable(self, _descriptor: int) -> Callable[[], None] | None:
        return self._read()

    def failed(self, failure: Exception) -> None:
        self.failures.append(failure)


async def all_are_read(pairs: Pairs, happened: Sequence[object], count: int) -> None:
    """Send to every socket at once, wait until so much happened, and close them."""
    for peer in pairs.peers:
        peer.send(b"x")
    async with asyncio.timeout(PATIENCE_S):
        while len(happened) < count:
            await asyncio.sleep(0.001)
    for ours in pairs.ours:
        Readiness.of(asyncio.get_running_loop()).remove(ours.fileno())
    pairs.close()


async def test_other_callbacks_have_their_turn_between_portions() -> None:
    """Of twice as many ready sockets as a portion has, none is read twice before a timer ran."""
    loop = asyncio.get_running_loop()
    pairs = Pairs(2 * PORTION)
    read: list[int] = []
    turns: list[int] = []
    readiness = Readiness.of(loop)
    for number, (ours, peer) in enumerate(zip(pairs.ours, pairs.peers, strict=True)):
        peer.send(b"x")

        def read_one(number: int = number, ours: socket.socket = ours) -> None:
            ours.recv(1)
            read.append(number)
            loop.call_soon(lambda: turns.append(len(read)))

        readiness.add(ours.fileno(), Calls(read_one))
    async with asyncio.timeout(PATIENCE_S):
        while len(turns) < len(pairs.ours):
            await asyncio.sleep(0.001)
    assert sorted(read) == list(range(len(pairs.ours)))
    assert PORTION in turns
    for ours in pairs.ours:
        Readiness.of(loop).remove(ours.fileno())
    assert Readiness.of(loop) is not readiness  # gone with its last socket
    pairs.close()


@pytest.mark.rows("I1")
async def test_a_reader_that_fails_takes_nothing_from_the_others() -> None:
    loop = asyncio.get_running_loop()
    pairs, heard, readers = Pairs(3), [], []
    for number, ours in enumerate(pairs.ours):

        def read(number: int = number, ours: socket.socket = ours) -> None:
            ours.recv(10)
            heard.append(number)
            if number != 2:
                raise ValueError(f"{number}")

        readers.append(Calls(read))
        Readiness.of(loop).add(ours.fileno(), readers[-1])
    await all_are_read(pairs, heard, 3)
    assert [str(*reader.failures) for reader in readers] == ["0", "1", ""]


async def test_a_burst_ends_once_for_all_sockets_of_one_owner() -> None:
    """They are ready together; two owners, of whom the next one's first read comes before the end
    of the last one's burst, and a socket with nothing to end."""
    loop = asyncio.get_running_loop()
    pairs = Pairs(7)
    happened: list[str] = []

    def ends(owner: str) -> Callable[[], None]:
        return lambda: happened.append(f"end of {owner}")

    ends_of = {"a": ends("a"), "b": ends("b")}
    for owner, ours in zip("aaabba-", pairs.ours, strict=True):

        def read(owner: str = owner, ours: socket.socket = ours) -> Callable[[], None] | None:
            ours.recv(10)
            happened.append(owner)
            return ends_of.get(owner)

        Readiness.of(loop).add(ours.fileno(), Calls(read))
    await all_are_read(pairs, happened, 10)
    assert happened == [*"aaab", "end of a", *"ba", "end of b", "-", "end of a"]


class Protocol(asyncio.Protocol):
    """Keeps how its connection ended."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def a_stream(pairs: Pairs) -> tuple[SocketTransport, Protocol]:
    stream, protocol = SocketTransport(pairs.ours[0]), Protocol()
    stream.start(protocol, Calls(lambda: None))
    return stream, protocol


async def test_what_a_slow_peer_has_not_read_is_written_before_the_end() -> None:
    pairs = Pairs(1)
    pairs.ours[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    stream, protocol = a_stream(pairs)
    sent = b"".join(b"%07d," % number for number in range(100_000))
    for piece in in_pieces(sent, lambda: 10_000):
        stream.write(piece)
    assert 0 < stream.get_write_buffer_size() <= WRITE_BYTES_MAX
    stream.close()
    stream.write(b"too late")
    loop, received = asyncio.get_running_loop(), b""
    pairs.peers[0].setblocking(False)
    async with asyncio.timeout(PATIENCE_S):
        while data := await loop.sock_recv(pairs.peers[0], 1 << 20):
            received += data
        assert await protocol.lost is None
    assert received == sent
    pairs.close()


async def test_a_peer_that_reads_nothing_is_given_up() -> None:
    pairs = Pairs(1)
    stream, protocol = a_stream(pairs)
    for _ in range(200):
        stream.write(bytes(100_000))
    assert isinstance(await asyncio.wait_for(protocol.lost, PATIENCE_S), ConnectionAbortedError)
    assert stream.get_write_buffer_size() == 0
    pairs.close()


@pytest.mark.rows("X10")
async def test_an_address_that_says_nothing_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        for _ in range(3):  # from now on its SYNs go unanswered
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with venue(hold) as url:
            there = ("127.0.0.1", urlsplit(url).port)
            addresses = [
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)
                for address in (full.getsockname(), there)
            ]

            resolver = Resolver.of(asyncio.get_running_loop())

            async def resolve(host: str, port: int) -> Any:
                assert (host, port) == ("two.test", 80)
                return addresses

            monkeypatch.setattr(resolver, "resolve", resolve)
            listener = Listener()
            options = ConnectOptions("ws://two.test/feed", open_timeout_s=5.0)
            link = await picows.connect(options, listener)
            link.abort()
            await listener.failure()


async def test_tls_that_takes_no_more_ends_the_connection() -> None:
    server, client = contexts("good")
    listener = Listener()
    async with venue(hold, ssl=server) as url:
        options = ConnectOptions(url.replace("ws:", "wss:"), ssl_context=client)
        link = await picows.connect(options, listener)
        inside = link._stream.get_extra_info("ssl_object")
        assert isinstance(inside, ssl.SSLObject)
        with suppress(ssl.SSLError):
            inside.unwrap()  # from now on a write is refused
        link.send(b"x")
        await listener.failure()
    assert listener.events == ["opened", "closed"]


async def test_what_we_send_waits_for_nobody() -> None:
    async with venue(hold) as url:
        parts = urlsplit(url)
        stream = await open_stream(ConnectOptions(url), str(parts.hostname), parts.port or 0)
        connected = stream.get_extra_info("socket")
        assert isinstance(connected, socket.socket)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connected.close()


async def test_a_read_that_fills_the_buffer_is_followed_by_another() -> None:
    """The set tells of what arrived once, however much it was."""
    messages = [bytes([65 + number % 26]) * 30_000 for number in range(40)]
    listener = Listener()
    async with venue(raw(b"".join(map(framed, messages)))) as url:
        link = await picows.connect(ConnectOptions(url), listener)
        await listener.until(lambda: len(listener.frames) == len(messages))
        link.abort()
        await listener.failure()
    assert listener.frames == messages
    assert sum(map(len, messages)) > 10 * READ_BYTES
