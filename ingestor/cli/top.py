"""The terminal's view of a process that runs elsewhere: its status port, read each second."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Final

import aiohttp
import orjson
from rich.console import Console

from ingestor.admin import terminal
from ingestor.model.errors import TransportError
from ingestor.telemetry.output import text_file
from ingestor.telemetry.status import Status

TIMEOUT_S: Final = 5.0


async def show_status(url: str, *, once: bool = False, as_json: bool = False) -> None:
    """Show what the status port of a process says, each second until cancelled.

    Args:
        url: the address of the port, such as `http://127.0.0.1:9464`.
        once: print one line, or one object, and return.
        as_json: print the object that the port sends, one a line.

    Raises:
        TransportError: when the port cannot be read, or is no ingestor's.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        status = await read_status(session, url)
        if once or as_json:
            await _print(session, url, status, once=once, as_json=as_json)
            return
        console = Console(file=text_file(sys.stdout))
        showing = asyncio.create_task(terminal.show(lambda: status, console))
        try:
            while not showing.done():
                await asyncio.sleep(terminal.INTERVAL_S)
                status = await read_status(session, url)
        finally:
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing


async def _print(
    session: aiohttp.ClientSession, url: str, status: Status, *, once: bool, as_json: bool
) -> None:
    before = status
    while True:
        text = orjson.dumps(status.to_json()).decode() if as_json else terminal.line(status, before)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if once:
            return
        await asyncio.sleep(terminal.INTERVAL_S)
        before, status = status, await read_status(session, url)


async def read_status(session: aiohttp.ClientSession, url: str) -> Status:
    """Return the snapshot of a process. Raises TransportError."""
    address = f"{url.rstrip('/')}/status.json"
    if not url.startswith(("http://", "https://")):
        raise TransportError(url, "is no address: write http://host:port")
    try:
        async with session.get(address) as answer:
            answer.raise_for_status()
            return Status.from_json(orjson.loads(await answer.read()))
    except (aiohttp.ClientError, TimeoutError) as failure:
        raise TransportError(address, str(failure) or type(failure).__name__) from None
    except (KeyError, TypeError, ValueError):
        raise TransportError(address, "is not the status of an ingestor") from None
