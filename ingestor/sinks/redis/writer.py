"""Writes last values to Redis, a hash for each instrument. Needs the extra `redis`.

It waits for nobody and nobody waits for it: what changes while Redis is slow or away is one change
more of the same instrument, and the last one is written when it answers again.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestor.model.backoff import Backoff
from ingestor.sinks.changes import Changes

log = structlog.get_logger(__name__)

BATCH: Final = 32  # instruments in one round trip: the loop has other work
PAUSE_S: Final = 0.005  # between two
TIMEOUT_S: Final = 2.0
RETRY: Final = Backoff(base_s=0.5, cap_s=30.0, floor_s=0.1)


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """url: `redis://[user:password@]host:port/db`, `rediss://` for TLS. prefix: of the keys.

    interval_s: between two writes of one instrument.
    """

    url: str
    prefix: str = "md:last:"
    interval_s: float = 1.0


class RedisWriter:
    """Writes what changed. counts: writes of instruments by outcome, `written` or `failed`."""

    def __init__(
        self,
        settings: RedisSettings,
        record: Callable[[str], Mapping[str, Any] | None],
        changes: Changes,
    ) -> None:
        """Create the Redis writer.

        Args:
            settings: Where to write.
            record: Returns the last values of an instrument's key.
            changes: Keys that are due.
        """
        self.counts: Counter[str] = Counter(written=0, failed=0)
        self._settings = settings
        self._record = record
        self.changes = changes

    async def run(self) -> None:
        """Write until cancelled."""
        attempt = 0
        async with Redis.from_url(
            self._settings.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        ) as redis:
            while True:
                try:
                    async with asyncio.timeout(TIMEOUT_S * 2):
                        await self._write(redis)
                except (RedisError, OSError, TimeoutError) as failure:
                    log.warning("redis.unavailable", cause=str(failure) or repr(failure))
                    await asyncio.sleep(RETRY.delay_s(attempt, random.random))
                    attempt += 1
                else:
                    attempt = 0
                    await asyncio.sleep(PAUSE_S if self.changes else self._settings.interval_s)

    async def _write(self, redis: Redis) -> None:
        """Write what changed, at most one batch. Raises what the client raises."""
        keys = self.changes.take(BATCH)
        if not keys:
            return
        try:
            async with redis.pipeline(transaction=True) as pipeline:
                for key in keys:
                    name = self._settings.prefix + key
                    pipeline.delete(name)  # what is not known any more must not stay
                    if fields := fields_of(self._record(key) or {}):
                        pipeline.hset(name, mapping=fields)  # type: ignore[arg-type]
                await pipeline.execute()
        except BaseException:
            self.counts["failed"] += len(keys)
            for key in keys:
                self.changes.add(key)
            raise
        self.counts["written"] += len(keys)


def fields_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a hash; what is absent has none.

    A trade's are `trade_price`, `trade_size`, ...; a quote's `quote_bid_price`, ... Of other kinds
    the values that tell rows apart come second: `funding_predicted_rate`,
    `candle_60000000000_trades_open`. Levels are JSON.
    """
    named = [(kind, record.get(kind)) for kind in ("trade", "quote")]
    for kind, found in record.get("more", {}).items():
        for values in found:
            which = [str(values[name]) for name in _TELLING.get(kind, ())]
            named.append(("_".join([kind, *which]), values))
    return {
        f"{prefix}_{name}": value if isinstance(value, str) else json.dumps(value)
        for prefix, values in named
        if values is not None
        for name, value in values.items()
        if value is not None
    }


_TELLING: Final = {
    "funding": ("state",),
    "open_interest": ("unit",),
    "candle": ("interval_ns", "origin"),
}
