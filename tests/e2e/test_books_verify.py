"""`ingestor books verify`, as a process beside an emulated venue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from ingestor.testbed.emulator.server import MAX_SPEED, VenueEmulator
from tests.e2e.processes import PATIENCE_S, ROOT, environment
from tests.testbed.made import BINANCE

Change = Callable[[dict[str, Any]], None]
CHECKED, SEEDING = "20", "1000"  # levels that are asked for


@asynccontextmanager
async def between(origin: str, change: Change | None) -> AsyncIterator[str]:
    """Pass REST requests on to an origin, and have the images of comparisons changed.

    Without `change` no book is seeded: its snapshot is refused.
    """

    async def answer(request: web.Request) -> web.Response:
        if change is None and request.query.get("limit") == SEEDING:
            raise web.HTTPForbidden
        async with session.get(origin + request.path_qs) as found:
            body = await found.read()
        if change is not None and request.query.get("limit") == CHECKED:
            image = orjson.loads(body)
            change(image)
            body = orjson.dumps(image)
        return web.Response(status=found.status, body=body)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        try:
            yield "http://{}:{}".format(*runner.addresses[0][:2])
        finally:
            await runner.cleanup()


async def verify(folder: Path, change: Change | None, *arguments: str) -> tuple[int, str, str]:
    """Run the command against an emulated Binance; return its status and what it printed."""
    async with (
        VenueEmulator([BINANCE.write(folder)], speed=MAX_SPEED) as emulator,
        between(emulator.rest_url, change) as rest_url,
    ):
        config = folder / "venue.toml"
        config.write_text(
            f'[[feeds]]\nvenue = "binance"\nmarket = "spot"\nsymbols = ["BNBBTC"]\n'
            f'url = "{emulator.ws_url}"\nrest_url = "{rest_url}"\n'
        )
        command = [sys.executable, "-m", "ingestor", "books", "verify", str(config), *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(folder), cwd=ROOT, stdout=-1, stderr=-1
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


async def test_a_right_book_is_verified(tmp_path: Path) -> None:
    status, out, err = await verify(tmp_path, lambda _image: None)
    assert (status, out.split()) == (0, ["verified", "binance:spot:BNBBTC", "update", "165"]), err


async def test_a_wrong_book_is_contradicted_with_status_1(tmp_path: Path) -> None:
    def change(image: dict[str, Any]) -> None:
        image["asks"][1][1] = "77"

    status, out, err = await verify(tmp_path, change, "--json")
    [verdict] = orjson.loads(out)
    assert (status, verdict["outcome"], verdict["number"]) == (1, "contradicted", 165), err
    assert verdict["detail"] == "ask 2: the book has 100 at 0.0026, the image 77 at 0.0026"


async def test_an_image_of_another_moment_proves_nothing(tmp_path: Path) -> None:
    def change(image: dict[str, Any]) -> None:
        image["lastUpdateId"] = 164  # between two updates
        image["asks"][0][1] = "77"

    status, out, err = await verify(tmp_path, change)
    assert (status, out.split()[0]) == (0, "unverifiable"), err


async def test_a_book_that_does_not_come_is_said(tmp_path: Path) -> None:
    status, out, err = await verify(tmp_path, None, "--timeout", "2")
    assert (status, out.split()) == (0, ["no", "book", "binance:spot:BNBBTC"]), err
