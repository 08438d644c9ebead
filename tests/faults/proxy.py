"""A TCP proxy on loopback that spoils what passes through it.

It stands between the ingestor and a venue, or between the ingestor and a broker that advertises the
proxy's address (`KafkaBroker(advertised=...)`). Each direction has faults of its own, which may
change while connections are open. Bytes that are dropped are gone for ever, as those of a peer that
lost power; bytes that are held arrive when `thaw` is called, as TCP would repeat them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

from tests.kafka.broker import HOST, free_ports

CHUNK_BYTES: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@dataclass(slots=True)
class Direction:
    """The faults of one direction.

    latency_s: how much later each byte arrives. bytes_per_s: the link's bandwidth; 0 = unlimited.
    chunk_bytes, chunk_interval_s: at most so many bytes at a time, and the time between them.
    drops: bytes vanish. passing: cleared while bytes are held. seen: called with what passes.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    chunk_bytes: int = CHUNK_BYTES
    chunk_interval_s: float = 0.0
    drops: bool = False
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Callable[[bytes], None] = lambda _chunk: None
    passed_bytes: int = 0
    dropped_bytes: int = 0

    def __post_init__(self) -> None:
        self.passing.set()

    @property
    def read_bytes(self) -> int:
        """How much is taken at a time: at most what the link carries in 50 ms."""
        if not self.bytes_per_s:
            return self.chunk_bytes
        return max(1, min(self.chunk_bytes, int(self.bytes_per_s / 20)))


class FaultProxy:
    """Listens on a loopback port and connects each client to `target`; an async context manager.

    up: from the client to the target. down: from the target to the client.
    """

    def __init__(self, target: str = "") -> None:
        """target: `host:port`; may be set later, before the first client comes."""
        self.target = target
        self.up = Direction()
        self.down = Direction()
        self.accepted = 0
        self.port = free_ports(1)[0]
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        """`host:port` of the proxy."""
        return f"{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.open_port()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close_port()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open_port(self) -> None:
        """Accept clients, again after `close_port`."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port, backlog=1024)

    async def close_port(self) -> None:
        """Refuse new clients; those that are connected stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def freeze(self, *, up: bool = True, down: bool = True) -> None:
        """Hold what comes, in these directions, until `thaw`."""
        for direction, wanted in ((self.up, up), (self.down, down)):
            if wanted:
                direction.passing.clear()

    def thaw(self) -> None:
        """Deliver what was held, and go on."""
        self.up.passing.set()
        self.down.passing.set()

    def drop(self, *, up: bool = True, down: bool = True) -> None:
        """Let all bytes vanish and tell nobody: connections are half-open from now on."""
        self.up.drops |= up
        self.down.drops |= down

    def mend(self) -> None:
        """End every fault. Connections that lost bytes are reset: nothing can repair them."""
        if self.up.dropped_bytes or self.down.dropped_bytes:
            self.reset()
        for direction in (self.up, self.down):
            direction.latency_s = direction.bytes_per_s = direction.chunk_interval_s = 0.0
            direction.chunk_bytes = CHUNK_BYTES
            direction.drops = False
            direction.dropped_bytes = 0
        self.thaw()

    def reset(self) -> None:
        """End all connections by RST, as a peer that crashed does."""
        for writer in list(self._writers):
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        host, _, port = self.target.rpartition(":")
        try:
            target, ask = await asyncio.open_connection(host, int(port))
        except OSError:
            answer.transport.abort()
            return
        pumps = [
            asyncio.create_task(self._pump(client, ask, self.up)),
            asyncio.create_task(self._pump(target, answer, self.down)),
        ]
        self._tasks.update(pumps)
        self._writers.update((ask, answer))
        try:
            await asyncio.wait(pumps)
        finally:
            for task in pumps:
                task.cancel()
            self._tasks.difference_update(pumps)
            self._writers.difference_update((ask, answer))
            ask.close()
            answer.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Pass on one direction of one connection, to its end."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        delivering = asyncio.create_task(self._deliver(late, sink, direction))
        now = asyncio.get_running_loop().time
        try:
            while chunk := await source.read(direction.read_bytes):
                if direction.drops:
                    direction.dropped_bytes += len(chunk)
                    continue
                # Paced here, so that the sender meets full buffers, as on a slow link.
                if direction.bytes_per_s:
                    await asyncio.sleep(len(chunk) / direction.bytes_per_s)
                await direction.passing.wait()
                await late.put((now() + direction.latency_s, chunk))
                if direction.chunk_interval_s:
                    await asyncio.sleep(direction.chunk_interval_s)
            await late.put((now() + direction.latency_s, b""))
            await delivering
        except ConnectionError:
            sink.transport.abort()
        finally:
            delivering.cancel()

    async def _deliver(
        self,
        late: asyncio.Queue[tuple[float, bytes]],
        sink: asyncio.StreamWriter,
        direction: Direction,
    ) -> None:
        """Write each chunk when it is due."""
        now = asyncio.get_running_loop().time
        with suppress(ConnectionError):
            while True:
                due_s, chunk = await late.get()
                await asyncio.sleep(max(due_s - now(), 0.0))
                await direction.passing.wait()
                if not chunk:
                    sink.write_eof()
                    return
                if direction.drops:
                    direction.dropped_bytes += len(chunk)
                    continue
                direction.seen(chunk)
                direction.passed_bytes += len(chunk)
                sink.write(chunk)
                await sink.drain()
