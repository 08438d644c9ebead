"""Several venues' lists on real servers of loopback, and a configuration that wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from ingestor.adapter import FeedAdapter
from ingestor.config.model import Config
from ingestor.model.backoff import Backoff
from ingestor.sources.rest.catalog import Catalog, CatalogSettings
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.pool import RestPools
from tests.feeds.fixtures import adapters, load

ADAPTERS: dict[str, type[FeedAdapter]] = {one.venue: one for one in adapters()}
REST = RestSettings(2.0, attempts_max=2, backoff=Backoff(0.001, retry_after_cap_s=0.1))


@dataclass
class Venue:
    """A venue's list of one market. hangs: whether it never answers."""

    venue: str
    market: str
    body: bytes
    status: int = 200
    hangs: bool = False
    asked: int = 0
    url: str = ""
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await self.release.wait()
        return web.Response(status=self.status, body=self.body)

    def edit(self) -> Any:
        """Return the answer as JSON; give it back with `serve`."""
        return json.loads(self.body)

    def serve(self, answer: object) -> None:
        self.body = json.dumps(answer).encode()

    def feed(self, *symbols: str, **more: Any) -> dict[str, Any]:
        """Return a section of the configuration."""
        found = {"venue": self.venue, "market": self.market, "symbols": symbols}
        return found | {"rest_url": self.url} | more


@asynccontextmanager
async def serving(*markets: tuple[str, str]) -> AsyncIterator[list[Venue]]:
    """Serve the fixtures' lists of these (venue, market), each on a port of its own."""
    async with AsyncExitStack() as stack:
        venues = []
        for name, market in markets:
            (body, *_) = load(ADAPTERS[name], market).rest
            venue = Venue(name, market, body)
            app = web.Application()
            app.router.add_get("/{path:.*}", venue.answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.callback(venue.release.set)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            venue.url = "http://{}:{}".format(*runner.addresses[0][:2])
            venues.append(venue)
        yield venues


@asynccontextmanager
async def catalogue(folder: Path, **settings: Any) -> AsyncIterator[Catalog]:
    chosen = {"ttl_s": 3_600.0, "deadline_s": 1.0} | settings
    pools = RestPools(REST, weight_per_s=1e6)
    try:
        yield Catalog(CatalogSettings(folder, **chosen), pools)
    finally:
        await pools.aclose()


def config(*feeds: dict[str, Any]) -> Config:
    return Config.model_validate({"feeds": feeds})
