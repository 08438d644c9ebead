"""A client that closes its websocket and leaves TCP open holds up neither server for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingestor.testbed.emulator.server import CLOSE_TIMEOUT_S, VenueEmulator
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.testbed.made import write

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def served(kind: str, folder: Path) -> AsyncIterator[str]:
    if kind == "simulator":
        async with Simulator(SimulatorOptions(symbols=1, rate_per_s=10.0)) as simulator:
            yield simulator.addresses[0]
        return
    lines: list[dict[str, Any]] = [
        {"t": "header", "venue": "BYBIT", "channels": {}},
        {"t": "recv", "ts_ns": 1, "conn": "c", "data": '{"topic":"publicTrade.BTCUSDT","data":[]}'},
    ]
    async with VenueEmulator([write(folder / "one.jsonl.zst", lines)]) as emulator:
        yield emulator.ws_url


BUSY_S = 10.0  # what a busy machine may add
LAST_FRAMES = {
    "close": b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    "close without a code": b"\x88\x80\x00\x00\x00\x00",
    "reserved bit": b"\xc1\x81\x00\x00\x00\x00a",
    "reserved opcode": b"\x83\x80\x00\x00\x00\x00",
}
# The simulator's library lets reserved bits pass.
ENDS = [
    (kind, name)
    for kind in ("emulator", "simulator")
    for name in LAST_FRAMES
    if (kind, name) != ("simulator", "reserved bit")
]


@pytest.mark.parametrize(("kind", "name"), ENDS)
async def test_tcp_ends_in_time(kind: str, name: str, tmp_path: Path) -> None:
    last = LAST_FRAMES[name]
    async with served(kind, tmp_path) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(HANDSHAKE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(last)
        begun_s = time.monotonic()
        async with asyncio.timeout(60):
            await reader.read()  # what it sends before it ends its side
            while not writer.transport.is_closing():
                writer.write(b"\x8a\x80\x00\x00\x00\x00")  # a pong: a reset shows by it
                await asyncio.sleep(0.05)
        assert time.monotonic() - begun_s < CLOSE_TIMEOUT_S + BUSY_S
