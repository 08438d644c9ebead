"""Publish rows of recordings to Kafka, waiting where live would shed."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from ingestor.kafka.settings import KafkaSettings
from ingestor.model.errors import SinkUnavailable
from ingestor.sinks.kafka.overload import Budget
from ingestor.sources.replay.replay import Replay

if TYPE_CHECKING:
    from ingestor.codec import Headers
    from ingestor.sinks.kafka.sink import KafkaSink

CONNECT_S: Final = 15.0
DRAIN_S: Final = 60.0
ROWS_WAITING_MAX: Final = 50_000


class Room:
    """A gate that lets few enough rows wait for Kafka: a replay waits, and sheds nothing."""

    def __init__(self, sink: KafkaSink) -> None:
        self._sink = sink

    def is_set(self) -> bool:
        return self._sink.queue.rows < ROWS_WAITING_MAX

    async def wait(self) -> None:
        await self._sink.room(ROWS_WAITING_MAX)


@asynccontextmanager
async def publisher(
    kafka: KafkaSettings, replay: Replay, more_headers: Headers
) -> AsyncIterator[KafkaSink]:
    """Give a sink for the rows of a replay; at the end, wait until Kafka has them all.

    Args:
        kafka: Where rows go.
        replay: Whose rows they are.
        more_headers: Of each record.

    Raises:
        SinkUnavailable: Kafka can't be reached, or did not take every row.
    """
    from ingestor.sinks.kafka.sink import KafkaSink  # noqa: PLC0415 -- slow to import

    sink = KafkaSink(
        kafka,
        replay.table,
        replay.pipeline.metrics,
        session=os.urandom(16),  # its own: its numbers don't mix with the recording's
        budget=Budget(age_max_s=math.inf, pause_max_s=math.inf),  # `Room` keeps far below it
        more_headers=more_headers,
    )
    running = asyncio.create_task(sink.run())
    try:
        await sink.wait_connected(CONNECT_S)
        yield sink
        left = await sink.drain(DRAIN_S)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    if left:
        raise SinkUnavailable(f"Kafka at {kafka.bootstrap_servers}", f"{left:,} rows not accepted")
