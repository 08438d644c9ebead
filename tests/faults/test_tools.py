"""The faults do what their names say."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults import limits
from tests.faults.clock import ClockShim
from tests.faults.disk import small_disk
from tests.faults.proxy import FaultProxy

PATIENCE_S = 60.0
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[FaultProxy, Pair]]:
    """A proxy before a server that sends back what it gets, and one connection to it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with asyncio.timeout(PATIENCE_S), FaultProxy(target) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            yield proxy, (reader, writer)
            writer.close()
    finally:
        server.close()


async def returns_after_s(pair: Pair, payload: bytes = b"x") -> float:
    reader, writer = pair
    began_s = time.monotonic()
    writer.write(payload)
    assert await reader.readexactly(len(payload)) == payload
    return time.monotonic() - began_s


async def test_latency_bandwidth_and_slow_bytes() -> None:
    async with echo() as (proxy, pair):
        await returns_after_s(pair)
        proxy.up.latency_s = proxy.down.latency_s = 0.15
        assert await returns_after_s(pair) >= 0.3
        proxy.mend()
        proxy.up.bytes_per_s = 200_000
        assert await returns_after_s(pair, bytes(60_000)) >= 0.2
        proxy.mend()
        proxy.down.chunk_bytes, proxy.down.chunk_interval_s = 1, 0.02
        await returns_after_s(pair)  # the chunk that was being read still has the old size
        assert await returns_after_s(pair, b"0123456789") >= 0.15


async def test_what_is_frozen_arrives_later_and_what_is_dropped_never() -> None:
    async with echo() as (proxy, pair):
        reader, writer = pair
        proxy.freeze(up=False)
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        proxy.thaw()
        assert await reader.readexactly(4) == b"held"
        proxy.drop()
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert proxy.up.dropped_bytes == 4
        proxy.mend()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        fresh = await asyncio.open_connection("127.0.0.1", proxy.port)
        await returns_after_s(fresh)
        fresh[1].close()


async def test_reset_and_a_closed_port() -> None:
    async with echo() as (proxy, pair):
        await returns_after_s(pair)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await pair[0].readexactly(1)
        await proxy.close_port()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.open_port()
        fresh = await asyncio.open_connection("127.0.0.1", proxy.port)
        await returns_after_s(fresh)
        fresh[1].close()
        assert proxy.accepted == 2


def test_the_wall_clock_moves_and_the_monotonic_one_does_not(clock: ClockShim) -> None:
    code = (
        "import sys, time, datetime\n"
        "for _ in sys.stdin:\n"
        "    print(time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(),\n"
        "          time.monotonic(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for offset_s in (0, -600, 3600, 0):
            clock.set(offset_s)
            process.stdin.write("\n")
            process.stdin.flush()
            *walls, steady = map(float, process.stdout.readline().split())
            for wall in walls:
                assert abs(wall - time.time() - offset_s) < 2.0
            assert abs(steady - time.monotonic()) < 2.0


def test_limits_of_a_process() -> None:
    with limits.descriptors(64), subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert limit_of(process.pid) == 64
            limits.limit_descriptors(process.pid, 32)
            assert limit_of(process.pid) == 32
            assert limits.open_descriptors(process.pid) >= 3
            assert limits.resident_bytes(process.pid) > 0
            with limits.stopped(process.pid):
                assert limits.state_of(process.pid) == "T"
            assert limits.state_of(process.pid) != "T"
        finally:
            process.kill()


def limit_of(pid: int) -> int:
    text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    return int(text.split("Max open files")[1].split()[0])


def test_a_small_disk_is_full_after_its_size(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mib=1) as folder, pytest.raises(OSError, match="No space"):
        (folder / "file").write_bytes(bytes(2 << 20))
