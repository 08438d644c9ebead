"""`ingestor run --shard`: processes that never talk share one plan between them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from ingestor.config.load import load
from ingestor.sources.live.plan import shard_of
from ingestor.sources.registry import markets
from tests.e2e.harness import published
from tests.e2e.test_workers import (
    CHANNELS,
    CONNECTIONS,
    SYMBOLS,
    Running,
    Setup,
    get,
    process,
    setup,  # noqa: F401 -- a fixture
    until,
)

pytestmark = pytest.mark.slow

SHARDS = 3


async def _streams(run: Running) -> list[tuple[str, str]]:
    _, text = await get(f"{await run.url()}/metrics/feeds")
    up = r'^ingestor_feed_up{.*channel="(\w+)",symbol="(.+)"} 1$'
    return re.findall(up, text, re.MULTILINE)


async def test_three_shards_run_each_stream_once(setup: Setup) -> None:  # noqa: F811
    async with AsyncExitStack() as stack:
        shards: list[Running] = []
        for index in range(SHARDS):
            more = ("--workers", "2") if index == 0 else ()
            arguments = ("run", str(setup.file), "--json", "--shard", f"{index}/{SHARDS}", *more)
            one = await stack.enter_async_context(process("ingestor", *arguments, env=setup.env))
            shards.append(Running(one))

        async def whole() -> bool:
            return sum([len(await _streams(run)) for run in shards]) == SYMBOLS * CHANNELS

        await until(whole)
        streams = [stream for run in shards for stream in await _streams(run)]
        assert len(set(streams)) == SYMBOLS * CHANNELS
        venue = await setup.venue()
        # A shard's streams are on connections of its own, of which the last may be half full.
        assert CONNECTIONS <= venue["connections"] == venue["accepted"] < CONNECTIONS + SHARDS
        await asyncio.sleep(1.0)

        for run in shards:
            run.parent.send_signal(signal.SIGTERM)
        ended = [await run.ended() for run in shards]
    assert [status for status, _ in ended] == [0] * SHARDS, "".join(shards[0].log)
    acked = [result["rows_acked"] for _, result in ended]
    assert all(acked)
    assert {result["unaccounted"] for _, result in ended} == {0}
    topics = await published(load(setup.file, markets()))
    assert (topics.total, topics.holes, topics.duplicates) == (sum(acked), 0, 0)
    found = [re.findall(r"shard\.planned.* plan=(\w+)", "".join(one.log)) for one in shards]
    assert len({digest for digests in found for digest in digests}) == 1
    assert all(found)
    sessions = setup.file.parent / "cache" / "sessions"
    kept = sorted(str(path.parent.relative_to(sessions)) for path in sessions.rglob("*.json"))
    workers = [f"shard-0-of-3/worker-{worker}-of-2" for worker in range(2)]
    assert kept == [*workers, "shard-1-of-3", "shard-2-of-3"]


async def test_a_shard_without_connections_waits_and_ends_in_order(setup: Setup) -> None:  # noqa: F811
    keys = [f"simulated:spot:S{number:05}-USD" for number in range(SYMBOLS)]
    shards = 10 * SYMBOLS
    empty = next(iter({*range(shards)} - {shard_of(key, shards) for key in keys}))
    shard = f"{empty}/{shards}"
    arguments = ("run", str(setup.file), "--json", "--shard", shard)
    async with process("ingestor", *arguments, env=setup.env) as one:
        run = Running(one)
        await run.logged(rf"shard\.empty +connections={CONNECTIONS}")
        url = await run.url()
        assert (await get(f"{url}/livez"))[0] == 200
        one.send_signal(signal.SIGTERM)
        status, result = await run.ended()
    assert (status, result["rows_appended"]) == (0, 0), json.dumps(result)


async def test_the_process_tells_its_service_manager(
    setup: Setup,  # noqa: F811
    tmp_path: Path,
) -> None:
    """READY once Kafka has accepted it, signs of life while its loop turns, STOPPING at the end."""
    loop, address = asyncio.get_running_loop(), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(address)
        received.setblocking(False)

        async def told(wanted: bytes) -> None:
            async with asyncio.timeout(60):
                while await loop.sock_recv(received, 100) != wanted:
                    pass

        env = setup.env | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        arguments = ("run", str(setup.file), "--json", "--workers", "2")
        async with process("ingestor", *arguments, env=env) as one:
            run = Running(one)
            await told(b"READY=1")
            await told(b"WATCHDOG=1")
            one.send_signal(signal.SIGSTOP)  # as a loop that hangs
            await asyncio.sleep(0.5)
            with suppress(BlockingIOError):
                while received.recv(100):
                    pass
            await asyncio.sleep(0.5)
            with pytest.raises(BlockingIOError):
                received.recv(100)
            one.send_signal(signal.SIGCONT)
            await told(b"WATCHDOG=1")
            one.send_signal(signal.SIGTERM)
            await told(b"STOPPING=1")
            status, _ = await run.ended()
    assert status == 0, "".join(run.log)
