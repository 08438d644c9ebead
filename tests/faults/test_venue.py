"""Venues that misbehave: rows X of the matrix that need raw bytes, or many connections."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import os
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

import pytest

from ingestor.model.errors import TransportError
from ingestor.sources.live.plan import Route
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.interface import (
    Connect,
    ConnectOptions,
    Link,
    OpenTimeout,
    ProtocolViolated,
)
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.faults.limits import resident_bytes
from tests.faults.proxy import FaultProxy
from tests.faults.results import RowRecorder
from tests.network.harness import bench, impatient, until

MIB = 1 << 20
PINGS = 200_000
BOMB_BYTES = 512 * MIB
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

both = pytest.mark.parametrize(
    "connect", [picows.connect, websockets.connect], ids=["picows", "websockets"]
)


@dataclass
class Listener:
    """A Handler that counts frames and keeps the end."""

    frames: int = 0
    failure: asyncio.Future[TransportError] = field(default_factory=asyncio.Future)

    def opened(self, link: Link) -> None: ...

    @property
    def session(self) -> object:
        return self

    def arrive(self, arrival: tuple[object, bytes, int]) -> None:
        self.frames += 1

    def on_read_complete(self) -> None: ...

    def closed(self, failure: TransportError) -> None:
        self.failure.set_result(failure)


@asynccontextmanager
async def raw_server(answer: Serve) -> AsyncIterator[str]:
    """A server of raw bytes; yields its ws:// address."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with suppress(ConnectionError):
                await answer(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def accept(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, extensions: bytes = b""
) -> None:
    """Answer a websocket handshake."""
    request = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.lower().partition(b": ")[::2] for line in request.split(b"\r\n"))
    key = next(
        line.partition(b": ")[2]
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    assert b"upgrade" in lines
    token = base64.b64encode(hashlib.sha1(key + GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + token + b"\r\n" + extensions + b"\r\n"
    )


class Watch:
    """The worst stall of the loop and the growth of the process's memory while it runs."""

    async def __aenter__(self) -> Self:
        gc.collect()
        self.before_bytes = resident_bytes(os.getpid())
        self.growth_bytes = 0
        self.stall_s = 0.0
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.005)
            self.stall_s = max(self.stall_s, time.monotonic() - began_s - 0.005)
            grown = resident_bytes(os.getpid()) - self.before_bytes
            self.growth_bytes = max(self.growth_bytes, grown)


@both
@pytest.mark.rows("X8")
async def test_two_hundred_thousand_pings_at_once(connect: Connect, row: RowRecorder) -> None:
    """A peer that pings without end is left: no other connection waits for its pongs."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        writer.write(b"\x89\x00" * PINGS + b"\x81\x02ok")
        await reader.read()

    listener = Listener()
    async with raw_server(flood) as url, asyncio.timeout(60), Watch() as watch:
        await connect(ConnectOptions(url), listener)
        failure = await listener.failure
    assert isinstance(failure, ProtocolViolated)
    assert (failure.code, listener.frames) == (1008, 0)
    assert watch.growth_bytes <= 64 * MIB
    row(
        "X8",
        promised="RSS + <= 64 MiB, loop stall <= 250 ms",
        measured=f"{connect.__module__.rpartition('.')[2]}: RSS + {watch.growth_bytes / MIB:.0f} "
        f"MiB, stall {watch.stall_s * 1e3:.0f} ms (server and client in one process), dropped",
        met=watch.stall_s <= 0.25,
    )


@pytest.mark.rows("X7")
async def test_a_deflate_bomb_is_refused_before_it_is_inflated(row: RowRecorder) -> None:
    """512 MiB of zeros in half a megabyte: closed with 1009 at the bound of a message."""
    deflate = zlib.compressobj(wbits=-15)
    block = deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)  # may be repeated
    bomb = (block * (BOMB_BYTES // MIB))[:-4]  # RFC 7692 section 7.2.1
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

    async def send_bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer, extension)
        writer.write(b"\xc1\x7f" + len(bomb).to_bytes(8, "big") + bomb)
        await reader.read(1)

    listener = Listener()
    async with raw_server(send_bomb) as url, asyncio.timeout(60):
        await asyncio.sleep(0)
        async with Watch() as watch:
            await websockets.connect(ConnectOptions(url, permessage_deflate=True), listener)
            failure = await listener.failure
            await asyncio.sleep(0.05)
    assert isinstance(failure, ProtocolViolated)
    assert (failure.code, listener.frames) == (1009, 0)
    assert watch.growth_bytes <= 20 * MIB
    row(
        "X7",
        promised="1009; RSS + <= 20 MB",
        measured=f"512 MiB bomb: 1009, RSS + {watch.growth_bytes / MIB:.1f} MiB",
    )


@both
@pytest.mark.rows("X4")
@pytest.mark.parametrize("line", [b"X-Padding: " + b"x" * 100 + b"\r\n", b"x" * 4096])
async def test_headers_without_end_fail_at_once(
    connect: Connect, line: bytes, row: RowRecorder
) -> None:
    """A hundred thousand header lines, or one that does not end."""
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        for _ in range(100_000):
            writer.write(line)
            sent += len(line)
            await writer.drain()
        await reader.read()

    began_s = time.monotonic()
    async with raw_server(pour) as url, asyncio.timeout(60), Watch() as watch:
        with pytest.raises(TransportError) as caught:
            await connect(ConnectOptions(url, open_timeout_s=5.0), Listener())
    took_s = time.monotonic() - began_s
    assert not isinstance(caught.value, OpenTimeout)
    assert watch.growth_bytes <= 20 * MIB
    row(
        "X4",
        promised="endless headers fail at once",
        measured=f"{took_s * 1e3:.0f} ms",
        met=took_s < 1,
    )


@pytest.mark.rows("X4")
@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_slow_handshakes_end_at_the_timeout_and_cost_others_nothing(
    transport: Literal["picows", "websockets"], row: RowRecorder
) -> None:
    """Half of the connections get one byte of the handshake's answer every half second."""
    options = SimulatorOptions(symbols=10, rate_per_s=50.0)
    async with FaultProxy() as proxy:
        proxy.down.chunk_bytes, proxy.down.chunk_interval_s = 1, 0.5
        async with bench(
            options,
            route=Route(transport=transport, streams_per_connection=3),
            also_through=proxy,
            open_timeout_s=1.0,
        ) as venue:
            await until(lambda: venue.connected == 5)
            await until(lambda: proxy.accepted >= 10)
            frames, began_s = venue.frames, time.monotonic()
            await venue.more_frames(1_000)
            rate = (venue.frames - frames) / (time.monotonic() - began_s)
            assert venue.connected == 5
            assert venue.causes.keys() == {"open_timeout"}
            assert venue.heard.ups == 5
            proxy.mend()
            await until(lambda: venue.connected == 10)
    row(
        "X4",
        promised="fail at the open timeout; others unaffected",
        measured=f"{transport}: others at {rate:.0f} messages/s, all up when it ended",
    )


@pytest.mark.rows("X10")
async def test_a_venue_address_that_refuses_costs_the_others_nothing() -> None:
    """Half of the connections are refused; they come when the port opens."""
    async with FaultProxy() as proxy:
        await proxy.close_port()
        options = SimulatorOptions(symbols=10, rate_per_s=50.0)
        async with bench(
            options, route=Route(streams_per_connection=3), also_through=proxy
        ) as venue:
            await until(lambda: venue.connected == 5)
            await venue.more_frames(500)
            assert (venue.connected, venue.heard.ups) == (5, 5)
            await proxy.open_port()
            await until(lambda: venue.connected == 10)
            assert venue.heard.ups == 10


@pytest.mark.rows("X2")
@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_half_open_connections_are_found_and_opened_anew(
    transport: Literal["picows", "websockets"], row: RowRecorder
) -> None:
    """Nothing arrives and nothing is refused, as when a firewall lost its table."""
    async with FaultProxy() as proxy:
        options = SimulatorOptions(symbols=10, rate_per_s=50.0)
        async with bench(
            options,
            route=Route(transport=transport, streams_per_connection=3),
            also_through=proxy,
            patience=impatient(ping_interval_s=0.5, ping_timeout_s=0.5),
        ) as venue:
            await until(lambda: venue.connected == 10)
            proxy.drop()
            began_s = time.monotonic()
            await until(lambda: sum(venue.causes.values()) >= 5)
            took_s = time.monotonic() - began_s
            proxy.mend()
            await until(lambda: venue.connected == 10)
            await venue.more_frames(200)
    assert took_s >= 0.5
    row(
        "X2",
        promised="found <= ping interval + timeout + 1 s (here 0.5 s each)",
        measured=f"{transport}: {took_s:.2f} s",
        met=took_s <= 2.0,
    )
