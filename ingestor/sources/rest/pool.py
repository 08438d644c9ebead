"""One REST client and one budget for each pool of each venue (`RestLimit`), in a process.

Instrument lists, book snapshots, book checks and whatever else asks a venue share them.
"""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from ingestor.adapter import FeedAdapter, RestLimit
from ingestor.model.clocks import Clocks
from ingestor.sources.rate_limiter import Holds, holds
from ingestor.sources.rest.budget import RestBudget
from ingestor.sources.rest.client import RestClient, RestSettings

_DEFAULT: Final = RestSettings(timeout_s=20.0)


class RestPools:
    """The clients of a process. They are opened when they are first asked for."""

    def __init__(
        self,
        settings: RestSettings = _DEFAULT,
        *,
        ssl_context: ssl.SSLContext | None = None,
        workers: int = 1,
        clocks: Clocks | None = None,
        weight_per_s: float | None = None,
        kept: Holds = holds,
    ) -> None:
        """Create the REST pools.

        Args:
            settings: of requests that come without their own.
            ssl_context: None means the system's trusted certificates.
            workers: processes that share what the venues allow.
            clocks: of the process.
            weight_per_s: of each pool, instead of what its venue allows.
            kept: the venues' holds, which outlive the clients.
        """
        self._settings = settings
        self._ssl_context = ssl_context
        self._workers = workers
        self._clocks = clocks or Clocks()
        self._weight_per_s = weight_per_s
        self._kept = kept
        self._clients: dict[tuple[str, str], RestClient] = {}
        self._closing = AsyncExitStack()

    async def client(self, adapter: type[FeedAdapter], market: str, origin: str) -> RestClient:
        """Return the client of a market's pool.

        Args:
            adapter: the venue.
            market: one of its markets.
            origin: scheme and host that are asked, which are the pool where the venue names none.
        """
        limit = adapter.markets[market].limits.rest
        key = (adapter.venue, limit.pool or origin)
        client = self._clients.get(key)
        if client is None:
            allowed, clocks = self._allowed(limit), self._clocks
            budget = RestBudget(*key, allowed, self._workers, clocks, kept=self._kept)
            client = RestClient(self._settings, ssl_context=self._ssl_context, budget=budget)
            self._clients[key] = await self._closing.enter_async_context(client)
        return client

    def _allowed(self, limit: RestLimit) -> RestLimit:
        rate = self._weight_per_s
        if rate is None:
            return limit
        return replace(limit, weight_per_s=rate, weight_burst=max(1, int(rate)), used_header="")

    async def aclose(self) -> None:
        """Close all clients; later ones are opened anew."""
        self._clients.clear()
        await self._closing.aclose()
