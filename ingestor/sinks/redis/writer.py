"""Writes last values to Redis, a hash for each instrument. Needs the extra `redis`.

It waits for nobody and nobody waits for it: what changes while Redis is slow or away is one change
more of the same instrument, and the last one is written when it answers again.
"""

from __future__ import annotations

import asyncio
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
        """Args:
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
            async with redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    name = self._settings.prefix + key
                    fields, absent = fields_of(self._record(key) or {})
                    if fields:
                        pipeline.hset(name, mapping=fields)  # type: ignore[arg-type]
                    if absent:
                        pipeline.hdel(name, *absent)
                await pipeline.execute()
        except BaseException:
            self.counts["failed"] += len(keys)
            for key in keys:
                self.changes.add(key)
            raise
        self.counts["written"] += len(keys)


def fields_of(record: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the fields of a hash, and the prefixes of those that must not stay.

    A trade's are `trade_price`, `trade_size`, ...; a quote's `quote_bid_price`, ...
    """
    fields: dict[str, str] = {}
    absent: list[str] = []
    for kind in ("trade", "quote"):
        values = record.get(kind)
        if values is None:
            absent += [f"{kind}_{name}" for name in _NAMES[kind]]
        else:
            fields |= {f"{kind}_{name}": str(value) for name, value in values.items()}
    return fields, absent


_HEADER: Final = ("ts_event", "ts_recv", "sequence", "flags")
_NAMES: Final = {
    "trade": (*_HEADER, "side", "price", "size", "trade_id"),
    "quote": (*_HEADER, "bid_price", "bid_size", "ask_price", "ask_size"),
}
