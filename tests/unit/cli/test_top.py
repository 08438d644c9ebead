"""ingestor.cli.top: what a status port says, and ports that say something else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web

from ingestor.cli.top import show_status
from ingestor.model.errors import TransportError
from ingestor.telemetry.status import Phase, Status


@asynccontextmanager
async def port_that_says(body: bytes, status: int = 200) -> AsyncIterator[str]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status)

    application = web.Application()
    application.router.add_get("/status.json", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


RUNNING = Status(phase=Phase.RUNNING, connections={"connected": 3}, frames=7)


async def test_one_line_is_what_the_process_itself_would_print(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with port_that_says(orjson.dumps(RUNNING.to_json())) as url:
        await show_status(url, once=True)
    assert capsys.readouterr().out.startswith("running 0 s: 3/3 connections")


async def test_the_json_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    async with port_that_says(orjson.dumps(RUNNING.to_json())) as url:
        await show_status(url, once=True, as_json=True)
    assert Status.from_json(orjson.loads(capsys.readouterr().out)) == RUNNING


@pytest.mark.parametrize(
    ("body", "status"), [(b"{}", 200), (b"not json", 200), (b"[1]", 200), (b"", 500)]
)
async def test_another_program_s_port_is_one_error(body: bytes, status: int) -> None:
    async with port_that_says(body, status) as url:
        with pytest.raises(TransportError, match=r"status\.json"):
            await show_status(url, once=True)


@pytest.mark.parametrize("url", ["localhost:9464", "", "ftp://localhost/"])
async def test_what_is_no_address_says_what_to_write(url: str) -> None:
    with pytest.raises(TransportError, match="write http://host:port"):
        await show_status(url, once=True)


async def test_a_port_that_nobody_serves_is_one_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TransportError, match=r"status\.json"):
        await show_status(url)
