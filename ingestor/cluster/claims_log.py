"""Reads the claims of all workers, in the order of their log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from ingestor.cluster.claims import Claim
from ingestor.cluster.records import COMMAND_PREFIX, read_claim
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.backoff import Backoff

log = structlog.get_logger(__name__)

FETCH_MS: Final = 50
BACKOFF: Final = Backoff(base_s=0.1, cap_s=2.0, floor_s=0.05)


class ClaimsLog:
    """Follows the one partition of the claims topic, from its beginning on."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        on_claim: Callable[[Claim, int], None],
        on_command: Callable[[bytes, bytes | None, int], None],
    ) -> None:
        """Create the claims log.

        Args:
            settings: how to reach Kafka.
            topic: its full name.
            on_claim: called with each claim and its time in ms.
            on_command: called with key, value and time of each command.
        """
        self._settings = settings
        self._place = TopicPartition(topic, 0)
        self._on_claim = on_claim
        self._on_command = on_command
        self._offset = 0  # of the next record
        self._consumer: AIOKafkaConsumer | None = None
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled; a client that fails is made anew and goes on."""
        attempt = 0
        while True:
            try:
                await self._follow()
            except (errors.KafkaError, OSError) as failure:
                log.warning("cluster.claims.unreadable", reason=error_name(failure))
                await asyncio.sleep(BACKOFF.delay_s(attempt, random.random))
                attempt += 1

    async def catch_up(self) -> None:
        """Wait until every claim that is written now was told."""
        while True:
            consumer = self._consumer
            if consumer is not None:
                try:
                    end = (await consumer.end_offsets([self._place]))[self._place]
                    break
                except (errors.KafkaError, OSError, TimeoutError):
                    pass
            await asyncio.sleep(FETCH_MS / 1e3)
        while self._offset < end:
            self._moved.clear()
            await self._moved.wait()

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            enable_auto_commit=False,
            fetch_max_wait_ms=FETCH_MS,
            auto_offset_reset="earliest",
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
            consumer.assign([self._place])
            if self._offset:
                consumer.seek(self._place, self._offset)
            self._consumer = consumer
            while True:
                batches = await consumer.getmany(self._place, timeout_ms=FETCH_MS)
                for record in batches.get(self._place, ()):
                    self._take(record.key, record.value, record.timestamp)
                self._offset = await consumer.position(self._place)
                self._moved.set()
        finally:
            self._consumer = None
            await consumer.stop()

    def _take(self, key: bytes | None, value: bytes | None, ts_ms: int) -> None:
        claim = read_claim(key, value)
        if claim is not None:
            self._on_claim(claim, ts_ms)
        elif key is not None and key.startswith(COMMAND_PREFIX):
            self._on_command(key, value, ts_ms)
