"""A whole ingestor in one test, and what it published, read back in the reference's terms."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from ingestor.app import Drained, Ingestor, load_plan
from ingestor.app.reload import Configuration
from ingestor.config.model import Config
from ingestor.consumer import EARLIEST, Consumer
from ingestor.model.batch import TickBatch
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.rows import Flag, Kind, Side
from ingestor.telemetry.status import Status
from tests.reference.reader import Level, Quote, Trade

PATIENCE_S = 60.0
TOPICS = {row_class: row_class.topic for row_class in ROW_CLASSES if row_class.is_standard}
_AGGRESSOR = {Side.BID: "buy", Side.ASK: "sell"}
_SIDE = {Side.BID: "bid", Side.ASK: "ask"}


async def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def make_config(
    bootstrap_servers: str,
    feeds: Iterable[Mapping[str, Any]],
    cache_dir: Path,
    **sections: Mapping[str, Any],
) -> Config:
    """A configuration whose topics are nobody else's. sections: what differs from the defaults."""
    kafka = {
        "bootstrap_servers": bootstrap_servers,
        "topic_prefix": f"e2e{uuid.uuid4().hex[:12]}.",
        "partitions": 3,
        **sections.pop("kafka", {}),
    }
    return Config.model_validate(
        {
            "kafka": kafka,
            "http": {"port": 0},
            "catalogue": {"cache_dir": cache_dir},
            "feeds": list(feeds),
            **sections,
        }
    )


class Running:
    """An ingestor at work. `stop` ends it in order and tells how it ended."""

    def __init__(self, ingestor: Ingestor, task: asyncio.Task[Drained]) -> None:
        self.ingestor = ingestor
        self._task = task

    @property
    def status(self) -> Status:
        return self.ingestor.status()

    async def subscribed(self) -> None:
        """Wait until every connection is up and every subscription was answered."""

        def all_up() -> bool:
            self._raise_if_ended()
            supervisor = self.ingestor.supervisor
            up = all(line.connection is not None for line in supervisor.slots)
            return up and not supervisor.statistics().pending

        await until(all_up)

    async def until(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        def met() -> bool:
            self._raise_if_ended()
            return condition()

        await until(met, timeout_s)

    def _raise_if_ended(self) -> None:
        if self._task.done():
            raise AssertionError(f"the ingestor ended: {self._task.result()}")

    async def stop(self) -> Drained:
        self.ingestor.stop()
        return await self._task


@asynccontextmanager
async def running(
    config: Config,
    *,
    publish: bool = True,
    configuration: Configuration | None = None,
    before: Callable[[Ingestor], None] = lambda _ingestor: None,
) -> AsyncIterator[Running]:
    """An ingestor whose Kafka has accepted it; publish: False needs none. before: called first."""
    thresholds = gc.get_threshold()
    planned = await load_plan(config)
    ingestor = Ingestor(config, planned, publish=publish, configuration=configuration)
    before(ingestor)
    ready = asyncio.Event()
    task = asyncio.create_task(ingestor.run(ready.set))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            await task
        yield Running(ingestor, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gc.set_threshold(*thresholds)  # a process of its own would end now
        gc.unfreeze()


class Published:
    """Everything in the tick topics, each row once; in order per instrument."""

    def __init__(self, batches: Iterable[TickBatch], holes: int, duplicates: int) -> None:
        self.holes = holes
        self.duplicates = duplicates
        self._rows: dict[tuple[RowClass, str], list[np.ndarray[Any, Any]]] = {}
        self._exponents: dict[str, tuple[int, int]] = {}
        for batch in batches:
            numbers = batch.rows["instrument"]
            for number in np.unique(numbers).tolist():
                one = batch.instruments[number]
                self._exponents[one.key] = one.price_exponent, one.size_exponent
                rows = self._rows.setdefault((batch.row_class, one.key), [])
                rows.append(batch.rows[numbers == number])

    def keys(self, row_class: RowClass) -> list[str]:
        return [key for one, key in self._rows if one is row_class]

    def rows(self, row_class: RowClass, key: str) -> np.ndarray[Any, Any]:
        """One instrument's rows. key: `venue:market:symbol`."""
        found = self._rows.get((row_class, key), [])
        return np.concatenate(found) if found else np.zeros(0, [("kind", "u1")])

    def count(self, row_class: RowClass, kind: Kind | None = None) -> int:
        """Rows of a class, or those of one kind."""
        every = (rows for (one, _), some in self._rows.items() if one is row_class for rows in some)
        return sum(int((rows["kind"] == kind).sum()) if kind else len(rows) for rows in every)

    @property
    def total(self) -> int:
        return sum(self.count(one) for one in ROW_CLASSES)

    # In the reference's terms; marks are left out ------------------------------------------

    def trades(self, key: str) -> list[Trade]:
        rows = self.rows(RowClass.TRADE, key)
        return [
            Trade(
                _symbol(key),
                _AGGRESSOR[row["side"]],
                *self._decimals(key, row, "price", "size"),
                int(row["trade_id_high"]) << 64 | int(row["trade_id_low"]),
                int(row["sequence"]),
                int(row["ts_event"]),
            )
            for row in rows[rows["kind"] == Kind.TRADE]
        ]

    def quotes(self, key: str) -> list[Quote]:
        rows = self.rows(RowClass.QUOTE, key)
        return [
            Quote(
                _symbol(key),
                *self._decimals(key, row, "bid_price", "bid_size"),
                *self._decimals(key, row, "ask_price", "ask_size"),
                int(row["sequence"]),
                None if row["flags"] & Flag.NO_VENUE_TIME else int(row["ts_event"]),
            )
            for row in rows[rows["kind"] == Kind.QUOTE]
        ]

    def levels(self, key: str) -> list[Level]:
        rows = self.rows(RowClass.LEVEL, key)
        return [
            Level(_SIDE[row["side"]], *self._decimals(key, row, "price", "size"))
            for row in rows[rows["kind"] == Kind.LEVEL]
        ]

    def _decimals(self, key: str, row: Any, price: str, size: str) -> tuple[Decimal, Decimal]:
        price_exponent, size_exponent = self._exponents[key]
        return (
            Decimal(int(row[price])).scaleb(-price_exponent),
            Decimal(int(row[size])).scaleb(-size_exponent),
        )


def _symbol(key: str) -> str:
    return key.split(":", 2)[2]


async def published(config: Config) -> Published:
    """Read all tick topics of a configuration, from their beginning to their present end."""
    topics = [config.kafka.topic_prefix + topic for topic in TOPICS.values()]
    servers = config.kafka.bootstrap_servers
    async with (
        asyncio.timeout(PATIENCE_S),
        Consumer(servers, topics, start=EARLIEST, stop_at_end=True) as consumer,
    ):
        batches = [batch async for batch in consumer]
        duplicates = sum(progress.duplicates for progress in consumer.progress.values())
        return Published(batches, len(consumer.holes), duplicates)


async def side_records(config: Config, topic: str) -> list[tuple[bytes | None, bytes]]:
    """Read (key, value) of every record of a side topic; `topic` without the prefix."""
    name, servers = config.kafka.topic_prefix + topic, config.kafka.bootstrap_servers
    async with (
        asyncio.timeout(PATIENCE_S),
        Consumer(servers, [name], start=EARLIEST, stop_at_end=True) as consumer,
    ):
        return [(key, value) async for _, key, value in consumer.records()]
