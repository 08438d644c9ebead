"""Proxies that work, refuse, or talk nonsense: one error each, without the password in it."""

from __future__ import annotations

import asyncio
import base64
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from ingestor.config.proxy import check_proxy
from ingestor.model.errors import TransportError
from ingestor.sources.resolver import Resolver
from ingestor.sources.websocket import websockets
from ingestor.sources.websocket.interface import ConnectFailed, ConnectOptions, OpenTimeout
from tests.network.test_transport import PATIENCE_S, Listener, contexts, hold, venue

SECRET = "c@n/ary:1%"
ENCODED = "c%40n%2Fary%3A1%25"
BASIC = base64.b64encode(f"user:{SECRET}".encode())
Proxy = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def greet(connection: ServerConnection) -> None:
    await connection.send("through")
    await hold(connection)


async def tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    upstream_reader, upstream_writer = await asyncio.open_connection(host, port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                target.write(data)
        except ConnectionError:
            pass
        target.close()

    await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))


@asynccontextmanager
async def proxy(serve_one: Proxy, **settings: Any) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve_one(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **settings)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Demand the password, and connect."""
    request = await reader.readuntil(b"\r\n\r\n")
    assert b"Proxy-Authorization: Basic " + BASIC in request
    host, _, port = request.split()[1].decode().partition(":")
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await tunnel(reader, writer, host, int(port))


ASKED: list[tuple[int, bytes]] = []  # what a SOCKS proxy was asked for: type of address, address


async def socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RFC 1928 and 1929."""
    methods = (await reader.readexactly(2))[1]
    await reader.readexactly(methods)
    writer.write(b"\x05\x02")
    size = (await reader.readexactly(2))[1]
    assert await reader.readexactly(size) == b"user"
    size = (await reader.readexactly(1))[0]
    assert await reader.readexactly(size) == SECRET.encode()
    writer.write(b"\x01\x00")
    kind = (await reader.readexactly(4))[3]
    size = 4 if kind == 1 else (await reader.readexactly(1))[0]
    address = await reader.readexactly(size)
    ASKED.append((kind, address))
    port = int.from_bytes(await reader.readexactly(2), "big")
    writer.write(b"\x05\x00\x00\x01" + bytes(6))
    await tunnel(reader, writer, "127.0.0.1", port)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
async def test_a_proxy_that_works(
    scheme: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are ours to resolve, but the venue's for HTTP and socks5h."""
    resolver = Resolver.of(asyncio.get_running_loop())
    ask, resolved = resolver.resolve, []

    async def resolve(host: str, port: int) -> Any:
        resolved.append(host)
        return await ask("127.0.0.1", port)

    monkeypatch.setattr(resolver, "resolve", resolve)
    server, client = contexts("good")
    settings = {}
    if scheme == "https":
        settings["ssl"] = server
        monkeypatch.setattr(websockets, "default_ssl_context", lambda: client)
    ASKED.clear()
    listener = Listener()
    async with (
        venue(greet, ssl=server if secure else None) as url,
        proxy(socks if "socks" in scheme else http, **settings) as port,
    ):
        host = "127.0.0.1" if scheme == "https" else "proxy.test"  # the certificate's
        through = check_proxy(f"{scheme}://user:{ENCODED}@{host}:{port}")
        target = url.replace("ws:", "wss:") if secure else url
        if "socks" in scheme and not secure:
            target = target.replace("127.0.0.1", "venue.test")
        link = await websockets.connect(
            ConnectOptions(target, ssl_context=client, proxy=through), listener
        )
        await listener.until(lambda: bool(listener.frames))
        link.close()
        await listener.failure()
    assert listener.frames == [b"through"]
    assert resolved[0] == host
    if scheme == "socks5":
        assert [(1, socket.inet_aton("127.0.0.1"))] == ASKED
        assert len(resolved) == 2
    elif scheme == "socks5h" and not secure:
        assert ASKED == [(3, b"venue.test")]
        assert len(resolved) == 1


def answers(*parts: bytes, echo: bool = False, then_close: bool = True) -> Proxy:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(4_096)
        for part in parts:
            writer.write(part)
        if echo:
            plain = SECRET.encode() + b" " + ENCODED.encode() + b" " + BASIC
            writer.write(b"X-Echo: " + plain + b" " + request.replace(b"\r\n", b" ") + b"\r\n\r\n")
        if then_close:
            writer.close()

    return serve


BAD = {
    "407 that echoes": answers(b"HTTP/1.1 407 Proxy Authentication Required\r\n", echo=True),
    "status line that echoes": answers(f"HTTP/1.1 403 {SECRET} {ENCODED}\r\n\r\n".encode()),
    "garbage": answers(b"\x00\x01garbage", echo=True),
    "nothing": answers(),
    "half of an answer": answers(b"HTTP/1.1 20"),
    "silence": answers(then_close=False),
    "SOCKS refusal": answers(b"\x05\xff"),
    "SOCKS of another version": answers(b"\x04\x02"),
    "SOCKS truncated": answers(b"\x05"),
    "SOCKS without a user": answers(b"\x05\x02", b"\x01\x01"),
    "SOCKS that fails": answers(b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)),
    "SOCKS with an odd address": answers(b"\x05\x00", b"\x05\x00\x00\x09" + bytes(6)),
    "tunnel to nowhere": answers(b"HTTP/1.1 200 OK\r\n\r\n"),
    "tunnel to garbage": answers(b"HTTP/1.1 200 OK\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("name", BAD)
async def test_a_proxy_that_does_not(name: str, scheme: str, secure: bool) -> None:
    _, client = contexts("good") if secure else (None, None)
    listener = Listener()
    async with proxy(BAD[name]) as port:
        options = ConnectOptions(
            f"{'wss' if secure else 'ws'}://127.0.0.1:9/",
            ssl_context=client,
            proxy=check_proxy(f"{scheme}://user:{ENCODED}@127.0.0.1:{port}"),
            open_timeout_s=0.3,
        )
        with pytest.raises(TransportError) as caught:
            await websockets.connect(options, listener)
    shown = str(caught.value) + "".join(traceback.format_exception(caught.value))
    for secret in (SECRET, ENCODED, BASIC.decode()):
        assert secret not in shown
    assert "\n" not in str(caught.value)
    assert listener.events == []


UNUSABLE = [
    "gopher://user:canary@127.0.0.1:1",
    "canary",
    "http://user:canary@127.0.0.1:99999",
    "http://user:canary@[::1",
    "http://user:canary/y@127.0.0.1:1",
    "socks4://user:canary@127.0.0.1:1",
    "http://canary@127.0.0.1:1",
    "http://user:canary%ff@127.0.0.1:1",
]


@pytest.mark.parametrize("url", UNUSABLE)
async def test_an_unusable_one_is_an_error_of_this_connection(url: str) -> None:
    """The configuration refuses it; whoever comes by one all the same is told so."""
    with pytest.raises(TransportError) as caught:
        await websockets.connect(ConnectOptions("ws://127.0.0.1:9/", proxy=url), Listener())
    assert "proxy must" in str(caught.value)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_a_proxy_that_is_not_there() -> None:
    for scheme in ("http", "https", "socks5", "socks5h"):
        options = ConnectOptions("ws://127.0.0.1:9/", proxy=f"{scheme}://127.0.0.1:1")
        with pytest.raises(ConnectFailed):
            await websockets.connect(options, Listener())
        options = ConnectOptions("ws://127.0.0.1:9/", proxy=f"{scheme}://nowhere.invalid:1")
        with pytest.raises((ConnectFailed, OpenTimeout)):
            await asyncio.wait_for(websockets.connect(options, Listener()), PATIENCE_S)
