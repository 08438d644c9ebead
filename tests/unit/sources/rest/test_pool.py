"""ingestor.sources.rest.pool: one client and one budget for what a venue counts together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from aiohttp import web

from feeds.binance import Binance
from feeds.bybit import Bybit
from feeds.okx import Okx
from ingestor.adapter import RestRequest
from ingestor.model.backoff import Backoff
from ingestor.model.errors import RequestRefused, TransportError
from ingestor.sources.rate_limiter import Holds
from ingestor.sources.rest.client import RestSettings
from ingestor.sources.rest.pool import RestPools

ONCE = RestSettings(timeout_s=5.0, attempts_max=1)
IMPATIENT = Backoff(retry_after_cap_s=0.0)
REQUEST = RestRequest("/x")


@asynccontextmanager
async def answering(status: int, headers: dict[str, str]) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve one answer to everything; yields the address and the paths that were asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers=headers, body=b"{}")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2]), asked
    finally:
        await runner.cleanup()


async def test_pools_are_what_the_venues_count_together() -> None:
    async with aclosing(RestPools()) as pools:
        usdm = await pools.client(Binance, "usdm", "https://fapi.binance.com")
        assert await pools.client(Binance, "coinm", "https://dapi.binance.com") is usdm
        spot = await pools.client(Binance, "spot", "https://api.binance.com")
        assert spot is not usdm
        linear = await pools.client(Bybit, "linear", "https://api.bybit.com")
        assert await pools.client(Bybit, "spot", "https://api.bybit.com") is linear
        okx = await pools.client(Okx, "spot", "https://www.okx.com")
        assert await pools.client(Okx, "swap", "https://www.okx.com") is okx
        assert await pools.client(Okx, "swap", "https://eea.okx.com") is not okx


@pytest.mark.parametrize("status", [418, 429])
async def test_a_ban_stops_every_origin_of_the_pool(status: int) -> None:
    """USD-M is refused: COIN-M, whose origin is another one, is not asked either."""
    async with (
        answering(status, {"Retry-After": "3000"}) as (refusing, refused),
        answering(200, {}) as (serving, served),
        aclosing(RestPools(ONCE, kept=Holds())) as pools,
    ):
        usdm = await pools.client(Binance, "usdm", refusing)
        with pytest.raises(RequestRefused):
            await usdm.get(refusing, REQUEST)
        coinm = await pools.client(Binance, "coinm", serving)
        with pytest.raises(TransportError, match="wants no request for"):
            await coinm.get(serving, REQUEST)
        spot = await pools.client(Binance, "spot", serving)
        assert await spot.get(serving, REQUEST) == b"{}"
        assert (refused, served) == (["/x"], ["/x"])


async def test_the_weight_that_others_use_is_seen() -> None:
    """Another program on the address used the minute: the venue's own count says so."""
    headers = {"X-MBX-USED-WEIGHT-1M": "5999"}
    async with (
        answering(200, headers) as (origin, asked),
        aclosing(RestPools(ONCE, kept=Holds())) as pools,
    ):
        spot = await pools.client(Binance, "spot", origin)
        await spot.get(origin, REQUEST)
        with pytest.raises(TransportError, match="wants no request for"):
            await spot.get(origin, REQUEST, RestSettings(5.0, attempts_max=1, backoff=IMPATIENT))
        assert asked == ["/x"]


async def test_a_rate_of_ones_own_replaces_the_venues() -> None:
    async with (
        answering(200, {"X-MBX-USED-WEIGHT-1M": "9999"}) as (origin, asked),
        aclosing(RestPools(ONCE, weight_per_s=1e6)) as pools,
    ):
        spot = await pools.client(Binance, "spot", origin)
        for _ in range(20):
            await spot.get(origin, RestRequest("/x", weight=500))
        assert len(asked) == 20


async def test_clients_are_opened_anew_after_the_end() -> None:
    pools = RestPools(ONCE, kept=Holds())
    async with answering(200, {}) as (origin, _):
        for _ in range(2):
            client = await pools.client(Okx, "spot", origin)
            assert await client.get(origin, REQUEST) == b"{}"
            await pools.aclose()
