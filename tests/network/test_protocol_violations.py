"""Byte sequences of servers that break RFC 6455: both transports give the same rows and errors."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha1

import pytest

from ingestor.model.errors import HandshakeRejected, PeerClosed
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.handshake import HEAD_BYTES_MAX
from ingestor.sources.websocket.interface import (
    CLOSE_TIMEOUT_S,
    FRAGMENTS_MAX,
    Connect,
    ConnectFailed,
    ConnectOptions,
    PingLimit,
    ProtocolViolated,
)
from tests.network.test_streams import framed
from tests.network.test_transport import PATIENCE_S, Listener

BUSY_S = 10.0  # what a busy machine may add

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GOOD = framed(b"good")


@pytest.fixture(params=[picows.connect, websockets.connect], ids=["picows", "websockets"])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


@dataclass
class Heard:
    """What the server saw of the client."""

    url: str = ""
    frames: bytearray = field(default_factory=bytearray)  # after the handshake, masked
    ended_s: float = 0.0  # when the client ended the connection
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def close_code(self) -> int:
        """Return the code of the close frame that the client sent, 0 for none."""
        at = 0
        while at + 6 <= len(self.frames):
            size = self.frames[at + 1] & 0x7F
            assert size < 126
            mask, payload = self.frames[at + 2 : at + 6], self.frames[at + 6 : at + 6 + size]
            if self.frames[at] == 0x88:
                plain = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
                return int.from_bytes(plain[:2], "big")
            at += 6 + size
        return 0


@asynccontextmanager
async def serve(
    after: bytes = b"",
    *,
    answer: bytes | None = None,
    fields: bytes = b"Connection: Upgrade\r\n",
    then_close: bool = False,
    stays_open: bool = False,
) -> AsyncIterator[Heard]:
    """Serve one handshake and these bytes; end TCP when the client says something, unless it
    `stays_open` until the client ends it.

    after: frames. answer: in place of the handshake's; fields: of the handshake's; `ACCEPT` in both
    is the key that is right.
    """
    heard = Heard()
    writers: set[asyncio.StreamWriter] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1]
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = b64encode(sha1(key + GUID).digest())
        head = answer or (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: ACCEPT\r\n" + fields + b"\r\n"
        )
        writer.write(head.replace(b"ACCEPT", accept) + after)
        if then_close:
            writer.close()
        try:
            while data := await reader.read(65_536):
                heard.frames += data
                if not stays_open:
                    writer.close()
        except ConnectionError:
            pass
        writer.close()
        writers.discard(writer)
        heard.ended_s = time.monotonic()
        heard.ended.set()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, limit=1 << 20)
    heard.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield heard
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return framed(code.to_bytes(2, "big") + reason, 0x88)


VIOLATIONS = {
    "RSV1": (b"\xc1\x01a", 1002),
    "RSV2": (b"\xa1\x01a", 1002),
    "RSV3": (b"\x91\x01a", 1002),
    "RSV1 of a ping": (b"\xc9\x00", 1002),
    "RSV1 of a close frame": (b"\xc8\x02\x03\xe8", 1002),
    "RSV1 of a long frame": (b"\xc2\x7e\xff\xff" + bytes(65_535), 1002),
    "RSV1 of a continuation": (b"\x01\x01a\xc0\x01b", 1002),
    "masked": (b"\x81\x81\x01\x02\x03\x04a", 1002),
    "opcode 3": (b"\x83\x01a", 1002),
    "opcode 7": (b"\x87\x00", 1002),
    "opcode 11": (b"\x8b\x00", 1002),
    "opcode 15": (b"\x8f\x00", 1002),
    "continuation of nothing": (b"\x80\x01a", 1002),
    "text inside a message": (b"\x01\x01a\x81\x01b", 1002),
    "binary inside a message": (b"\x02\x01a\x82\x01b", 1002),
    "ping of 126 bytes": (b"\x89\x7e\x00\x7e" + bytes(126), 1002),
    "pong of 64 KiB": (framed(bytes(65_536), 0x8A), 1002),
    "close of 126 bytes": (b"\x88\x7e\x00\x7e\x03\xe8" + bytes(124), 1002),
    "fragmented ping": (b"\x09\x01a", 1002),
    "fragmented close": (b"\x08\x02\x03\xe8", 1002),
    "close of one byte": (b"\x88\x01\x03", 1002),
    "close reason that is no UTF-8": (close_frame(1000, b"\xff"), 1007),
    "one tebibyte claimed": (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009),
    "two mebibytes": (framed(bytes(2 << 20)), 1009),
    "fragments beyond the size": (
        (framed(bytes(600_000), 0x02) + framed(bytes(600_000), 0x80)),
        1009,
    ),
    "5,000 fragments": (framed(b"a", 0x01) + framed(b"a", 0x00) * 4_998 + framed(b"a", 0x80), 1009),
    "5,000 empty fragments": (
        framed(b"", 0x01) + framed(b"", 0x00) * 4_998 + framed(b"", 0x80),
        1009,
    ),
    **{
        f"close code {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.rows("X9")
@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_ends_the_connection_and_costs_no_row_before_it(
    connect: Connect, name: str
) -> None:
    frames, code = VIOLATIONS[name]
    listener = Listener()
    async with serve(GOOD + frames + GOOD) as heard:
        await connect(ConnectOptions(heard.url), listener)
        failure = await listener.failure()
        await asyncio.wait_for(heard.ended.wait(), PATIENCE_S)
    assert isinstance(failure, ProtocolViolated), failure
    assert (failure.code, heard.close_code()) == (code, code)
    assert listener.frames == [b"good"]


@pytest.mark.rows("X9")
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4000, 4999])
async def test_a_frame_after_close_is_no_row(connect: Connect, code: int) -> None:
    listener = Listener()
    async with serve(GOOD + close_frame(code, b"bye") + GOOD * 3) as heard:
        await connect(ConnectOptions(heard.url), listener)
        failure = await listener.failure()
        await asyncio.wait_for(heard.ended.wait(), PATIENCE_S)
    assert isinstance(failure, PeerClosed)
    assert failure.code == heard.close_code() == code
    assert "bye" in failure.reason
    assert listener.frames == [b"good"]


@pytest.mark.parametrize(
    "after", [close_frame(1000), framed(b"", 0x88), b"\xc1\x01a"], ids=["close", "empty", "RSV"]
)
async def test_a_peer_that_leaves_tcp_open_is_closed_in_time(
    connect: Connect, after: bytes
) -> None:
    listener = Listener()
    async with serve(after, stays_open=True) as heard:
        begun_s = time.monotonic()
        await connect(ConnectOptions(heard.url), listener)
        await listener.failure()
        assert time.monotonic() - begun_s < CLOSE_TIMEOUT_S + BUSY_S
        await asyncio.wait_for(heard.ended.wait(), PATIENCE_S)
    assert heard.ended_s - begun_s < CLOSE_TIMEOUT_S + BUSY_S


async def test_a_peer_that_answers_no_close_frame_of_ours_is_closed_in_time(
    connect: Connect,
) -> None:
    listener = Listener()
    async with serve(stays_open=True) as heard:
        link = await connect(ConnectOptions(heard.url), listener)
        begun_s = time.monotonic()
        link.close()
        await listener.failure()
        assert time.monotonic() - begun_s < CLOSE_TIMEOUT_S + BUSY_S


@pytest.mark.rows("X7", "X9")
async def test_text_and_binary_are_alike_and_5000_frames_arrive(connect: Connect) -> None:
    messages = [b"%d" % number for number in range(5_000)]
    frames = b"".join(framed(message, 0x81 + number % 2) for number, message in enumerate(messages))
    fragments = framed(b"a", 0x01) + framed(b"a", 0x00) * (FRAGMENTS_MAX - 2) + framed(b"a", 0x80)
    listener = Listener()
    async with serve(frames + fragments) as heard:
        link = await connect(ConnectOptions(heard.url), listener)
        await listener.until(lambda: len(listener.frames) == len(messages) + 1)
        link.abort()
        await listener.failure()
    assert listener.frames == [*messages, b"a" * FRAGMENTS_MAX]


@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: keep-alive, Upgrade\r\n",
        b"Connection: keep-alive\r\nConnection: upgrade\r\n",
        b"connection:UPGRADE\r\nServer: caf\xe9\r\nX-Empty:\r\n",
        b"Connection: Upgrade\r\nContent-Length: 0\r\n",
        b"Connection: Upgrade\r\nSec-WebSocket-Protocol: \r\n",
        b"Connection: Upgrade\r\n" + b"X-Filler: " + b"x" * 8_000 + b"\r\n",
        b"Connection: Upgrade\r\n" + b"Set-Cookie: a=b\r\n" * 100,
    ],
)
async def test_handshakes_that_are_in_order(connect: Connect, fields: bytes) -> None:
    listener = Listener()
    async with serve(GOOD, fields=fields) as heard:
        link = await connect(ConnectOptions(heard.url), listener)
        await listener.until(lambda: bool(listener.frames))
        link.abort()
        await listener.failure()
    assert listener.frames == [b"good"]


UP = b"Connection: Upgrade\r\n"
REFUSED_HEADERS = {
    "extension": UP + b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
    "unknown extension": UP + b"Sec-WebSocket-Extensions: x-made-up; a=1\r\n",
    "subprotocol": UP + b"Sec-WebSocket-Protocol: chat\r\n",
    "accept twice": UP + b"Sec-WebSocket-Accept: ACCEPT\r\n",
    "accept twice, one wrong": UP + b"Sec-WebSocket-Accept: x\r\n",
    "upgrade twice": UP + b"Upgrade: h2c\r\n",
    "no upgrade option": b"Connection: keep-alive\r\n",
    "no connection header": b"X: y\r\n",
    "body of 5 bytes": UP + b"Content-Length: 5\r\n",
    "chunked body": UP + b"Transfer-Encoding: chunked\r\n",
    "folded header": UP + b"X: y\r\n z\r\n",
    "header without a colon": UP + b"nonsense\r\n",
    "space before the colon": UP + b"X : y\r\n",
    "NUL in a header": UP + b"X: y\x00z\r\n",
    "129 headers": UP + b"X: y\r\n" * 129,
    "huge header": UP + b"X: " + b"y" * HEAD_BYTES_MAX + b"\r\n",
}


@pytest.mark.rows("X9")
@pytest.mark.parametrize("name", REFUSED_HEADERS)
async def test_handshakes_that_break_the_rfc(connect: Connect, name: str) -> None:
    listener = Listener()
    async with serve(GOOD, fields=REFUSED_HEADERS[name]) as heard:
        with pytest.raises(ProtocolViolated) as caught:
            await connect(ConnectOptions(heard.url), listener)
        await asyncio.wait_for(heard.ended.wait(), PATIENCE_S)
    assert caught.value.code == 1002
    assert "\n" not in str(caught.value)
    assert listener.events == []


WRONG_ANSWERS = {
    "wrong accept": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    + UP
    + b"Sec-WebSocket-Accept: bm9wZQ==\r\n\r\n",
    "no accept": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" + UP + b"\r\n",
    "HTTP/1.0": b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    + UP
    + b"Sec-WebSocket-Accept: ACCEPT\r\n\r\n",
    "HTTP/2": b"HTTP/2 101\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "garbage": bytes(range(256)) + b"\r\n\r\n",
    "status of four digits": b"HTTP/1.1 1010 x\r\n\r\n",
    "status that is none": b"HTTP/1.1 OK x\r\n\r\n",
    "garbage without an end": b"\xff" * (HEAD_BYTES_MAX + 1),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_answers_that_are_none(connect: Connect, name: str) -> None:
    listener = Listener()
    async with serve(answer=WRONG_ANSWERS[name]) as heard:
        with pytest.raises(ProtocolViolated) as caught:
            await connect(ConnectOptions(heard.url), listener)
    assert caught.value.code == 1002
    assert str(caught.value).isprintable()
    assert listener.events == []


@pytest.mark.rows("X5")
@pytest.mark.parametrize("body", [b"", b'{"code":-1003,\n"msg":"banned"}', b"\xff\x1b[31m" * 9_000])
@pytest.mark.parametrize("status", [101 + 99, 403, 418, 429, 451, 503, *range(520, 531), 599, 999])
async def test_refusals_are_one_line_with_their_cause(
    connect: Connect, status: int, body: bytes
) -> None:
    """The body may never be whole: nobody waits for it."""
    answer = (
        b"HTTP/1.1 %d Web Server Says No\r\nRetry-After: 17\r\nContent-Type: text/html\r\n"
        b"Content-Length: 1000000\r\n\r\n" % status
    )
    listener = Listener()
    async with serve(answer=answer + body) as heard:
        with pytest.raises(HandshakeRejected) as caught:
            await connect(ConnectOptions(heard.url), listener)
        await asyncio.wait_for(heard.ended.wait(), PATIENCE_S)
    failure = caught.value
    assert (failure.status, failure.retry_after_s) == (status, 17.0)
    assert f"HTTP {status} Web Server Says No" in str(failure)
    assert ("banned" in str(failure)) == (b"banned" in body)
    assert str(failure).isprintable()
    assert len(str(failure)) < 250
    assert listener.events == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 520\r\nRetry-After: 3\r\n\r\n",
        b"HTTP/1.1 521 \r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.0 503 x\r\nnonsense\r\nRetry-After:3\r\n\r\n",
        b"HTTP/1.1 429 caf\xe9\r\nRetry-After: 3\r\nRetry-After: 4\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 530 x\r\nRetry-After: 3\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("then_close", [False, True], ids=["open", "closed"])
async def test_refusals_of_odd_forms(connect: Connect, answer: bytes, then_close: bool) -> None:
    listener = Listener()
    async with serve(answer=answer, then_close=then_close) as heard:
        with pytest.raises(HandshakeRejected) as caught:
            await connect(ConnectOptions(heard.url), listener)
    assert caught.value.retry_after_s == 3.0


async def test_an_end_within_the_answer(connect: Connect) -> None:
    async with serve(answer=b"HTTP/1.1 101 Swit", then_close=True) as heard:
        with pytest.raises(ConnectFailed, match="closed during the handshake"):
            await connect(ConnectOptions(heard.url), Listener())


@pytest.mark.rows("X8")
async def test_pings_of_a_peer_that_reads_no_pong_take_bounded_memory(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up once its pongs fill the buffers; nothing of what it sends is lost before."""
    monkeypatch.setattr(PingLimit, "PER_SECOND", 1 << 30)  # they come slowly, in a real life
    server = socket.create_server(("127.0.0.1", 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    ended = threading.Event()

    def serve_one() -> None:
        peer, _ = server.accept()
        key = peer.recv(4_096).split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = b64encode(sha1(key + GUID).digest())
        peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + GOOD
        )
        try:
            while True:
                peer.sendall(framed(bytes(125), 0x89) * 1_000)
        except OSError:
            ended.set()
        peer.close()

    thread = threading.Thread(target=serve_one)
    thread.start()
    listener = Listener()
    await connect(ConnectOptions(f"ws://127.0.0.1:{server.getsockname()[1]}/"), listener)
    failure = await listener.failure()
    await asyncio.to_thread(thread.join, PATIENCE_S)
    server.close()
    assert ended.is_set()
    assert isinstance(failure, PeerClosed)
    assert failure.code == 1006
    assert listener.frames == [b"good"]
