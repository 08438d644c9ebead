"""ingestor.admin.live over real requests: who is told what, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from prometheus_client.core import Metric

from ingestor.admin import live
from ingestor.admin.exposition import StreamState
from ingestor.admin.server import AdminServer
from ingestor.admin.streams import StreamPage, StreamQuery, page_of
from ingestor.config.model import HttpConfig
from ingestor.telemetry.status import Health, Phase, Status

PATIENCE_S = 20.0


class Source:
    """Count how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def status(self) -> Status:
        self.asked += 1
        return Status(time_ns=self.asked, phase=Phase.RUNNING, kafka_up=False, shed=1)

    def ready(self) -> Health:
        return Health(True)

    def families(self) -> Iterable[Metric]:
        return ()

    def streams(self) -> Iterable[StreamState]:
        return ()

    async def worst_streams(self, query: StreamQuery) -> StreamPage:
        return await page_of((), query)


@asynccontextmanager
async def events(server: AdminServer) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """Open `/events` and give name and content of each."""

    async def read(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
        name = ""
        async for line in answer.content:
            kind, _, value = line.decode().rstrip("\n").partition(": ")
            if kind == "event":
                name = value
            elif kind == "data":
                yield name, json.loads(value)

    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}/events") as answer,
    ):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        yield read(answer)


async def test_a_viewer_gets_the_history_and_then_a_snapshot_a_second() -> None:
    source = Source()
    async with (
        asyncio.timeout(PATIENCE_S),
        AdminServer(HttpConfig(port=0), source) as server,
        events(server) as told,
    ):
        received = [await anext(told) for _ in range(4)]
    assert [name for name, _ in received] == ["history", "status", "status", "status"]
    assert len(received[0][1]["points"]) >= 1
    times = [content["time_ns"] for _, content in received[1:]]
    assert times == sorted(set(times))
    assert received[1][1]["wrong"] == ["Kafka acknowledges nothing"]
    assert received[1][1]["losses"] == ["1 shed"]


async def test_nobody_looks_and_only_the_history_asks() -> None:
    source = Source()
    view = live.LiveView(source.status, {})
    for second in range(100):
        view.sample(float(second))
    assert source.asked == 100 / live.HISTORY_STEP_S


async def test_the_history_is_bounded() -> None:
    source = Source()
    view = live.LiveView(source.status, {})
    for step in range(1000):
        view.sample(step * live.HISTORY_STEP_S)
    assert len(view._history) == live.HISTORY_S / live.HISTORY_STEP_S


async def test_a_place_is_free_again_when_a_viewer_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS_MAX", 1)
    async with asyncio.timeout(PATIENCE_S), AdminServer(HttpConfig(port=0), Source()) as server:
        url = f"http://127.0.0.1:{server.port}/events"
        async with events(server) as told, aiohttp.ClientSession() as session:
            await anext(told)
            async with session.get(url) as refused:
                assert refused.status == 503
        while True:  # it is noticed with the next snapshot
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.1)


async def test_viewers_do_not_hold_up_the_end() -> None:
    async with asyncio.timeout(PATIENCE_S):
        server = AdminServer(HttpConfig(port=0), Source())
        await server.start()
        async with events(server) as told:
            await anext(told)
            await server.stop()
            rest = [name async for name, _ in told]
    assert "history" not in rest
