"""Last values in a real Redis: hashes, an outage, and a flood."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.sinks.changes import Changes
from ingestor.sinks.redis.writer import RedisSettings, RedisWriter, fields_of
from tests.kafka.broker import free_ports

QUOTE = {"ts_event": 1, "ts_recv": 2, "sequence": 3, "flags": 1, "bid_price": "10.25"}


class Server:
    """A Redis server of the test's own."""

    def __init__(self, folder: Path) -> None:
        [self.port] = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed (Debian: redis-server)")
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "")
        self.process = subprocess.Popen(
            [program, *options, "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


async def until(is_so: Any) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.02)


async def hashes(server: Server) -> dict[Any, Any]:
    async with Redis.from_url(server.url, decode_responses=True) as redis:
        return {key: await redis.hgetall(key) async for key in redis.scan_iter("md:last:*")}


async def test_hashes_of_last_values_through_an_outage(server: Server) -> None:
    values: dict[str, dict[str, Any]] = {"acme:spot:A": {"trade": None, "quote": QUOTE}}
    changes = Changes(values)
    writer = RedisWriter(RedisSettings(server.url, interval_s=0.05), values.get, changes)
    task = asyncio.create_task(writer.run())
    await until(lambda: writer.counts["written"] == 1)
    assert await hashes(server) == {
        "md:last:acme:spot:A": {f"quote_{name}": str(value) for name, value in QUOTE.items()}
    }
    server.stop()
    for number in range(1_000):  # bounded by the instruments, whatever comes
        values[f"acme:spot:{number % 10}"] = {"trade": {"price": str(number)}, "quote": None}
        changes.add(f"acme:spot:{number % 10}")
        await asyncio.sleep(0)
    values["acme:spot:A"] = {"trade": None, "quote": None}
    changes.add("acme:spot:A")
    await until(lambda: writer.counts["failed"] > 0)
    assert len(changes) <= 11
    assert changes.replaced > 900
    server.start()
    await until(lambda: writer.counts["written"] >= 12 and not changes)
    found = await hashes(server)
    assert found["md:last:acme:spot:9"] == {"trade_price": "999"}
    assert "md:last:acme:spot:A" not in found  # nothing is known of it any more
    task.cancel()
    with suppress(asyncio.CancelledError, RedisError):
        await task


async def test_ten_thousand_instruments_take_a_moment(server: Server) -> None:
    values = {f"acme:spot:{n}": {"trade": None, "quote": QUOTE} for n in range(10_000)}
    writer = RedisWriter(RedisSettings(server.url), values.get, Changes(values))
    task = asyncio.create_task(writer.run())
    await until(lambda: writer.counts["written"] == 10_000)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert len(await hashes(server)) == 10_000


def test_fields_have_names_and_what_is_absent_has_none() -> None:
    funding = {"state": "predicted", "rate": "0.0001", "due_ns": None}
    candle = {"interval_ns": 1000, "origin": "trades", "trades": 3}
    more = {"funding": [funding], "candle": [candle], "book_top": [{"bids": [["1", "2"]]}]}
    assert fields_of({"trade": None, "quote": {"bid_price": "10.25"}, "more": more}) == {
        "quote_bid_price": "10.25",
        "funding_predicted_state": "predicted",
        "funding_predicted_rate": "0.0001",
        "candle_1000_trades_interval_ns": "1000",
        "candle_1000_trades_origin": "trades",
        "candle_1000_trades_trades": "3",
        "book_top_bids": '[["1", "2"]]',
    }
