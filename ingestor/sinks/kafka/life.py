"""The producer id of one life of a worker, which another worker can fence.

A life has a transactional id that no other life has had, `GROUP.MEMBER.SESSION`, and publishes
without transactions. Its epochs come from Kafka's coordinator, one after another: so whoever fences
it takes one that is above all of them. A partition that begins its numbers again takes the next
epoch; the others go on with theirs.

Every epoch is asked for in the name of the one before it. Kafka refuses that once somebody else has
taken one, and the life is over: what it still holds is never sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka import errors

from ingestor.kafka.aiokafka_compat import AIOKafkaClient
from ingestor.kafka.error_codes import error_name
from ingestor.kafka.fencing import OVERTAKEN, persist
from ingestor.kafka.transactions import EPOCH_MAX, NEW, Coordinator, ProducerIdentity

log = structlog.get_logger(__name__)

# Kafka forgets an id that nobody asked about for seven days (`transactional.id.expiration.ms`), and
# a partition forgets a producer that sent it nothing for one (`producer.id.expiration.ms`), its
# fence included.
RENEW_S: Final = 6 * 3_600.0
DOUBT_S: Final = 20 * 3_600.0
_RETRY_S: Final = 60.0


class LifeEnded(Exception):
    """Nothing more may be sent in the name of this life."""

    def __init__(self, life: str, reason: str) -> None:
        super().__init__(f"{life}: {reason}")
        self.life = life
        self.reason = reason


class Life:
    """Takes the epochs of one life, for one producer after another."""

    def __init__(
        self,
        transactional_id: str,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        renew_s: float = RENEW_S,
        doubt_s: float = DOUBT_S,
    ) -> None:
        """Create the life.

        Args:
            transactional_id: of this life alone.
            monotonic_s: seconds since any time.
            renew_s: how often Kafka is reminded of the id.
            doubt_s: how long after its last answer nothing is sent before it has answered again.
        """
        self.transactional_id = transactional_id
        self._monotonic_s = monotonic_s
        self._renew_s = renew_s
        self._doubt_s = doubt_s
        self._coordinator: Coordinator | None = None
        self._taken = NEW
        self._taken_s = float("-inf")
        self._asking = asyncio.Lock()

    @property
    def in_doubt(self) -> bool:
        """Return True if so much time has passed that a fence may have been forgotten."""
        return self._monotonic_s() - self._taken_s > self._doubt_s

    async def begin(self, client: AIOKafkaClient) -> ProducerIdentity:
        """Return the identity of another producer. client: its own.

        Raises:
            LifeEnded: when another has taken an epoch since.
            KafkaError: when Kafka refuses.
        """
        self._coordinator = Coordinator(client, self.transactional_id)
        async with self._asking:
            return await self._take()

    async def epoch_above(self, epoch: int) -> int:
        """Return an epoch above the one given. Raises what `begin` raises."""
        async with self._asking:
            if self._taken.epoch <= epoch:
                await self._take()
            return self._taken.epoch

    async def confirm(self) -> None:
        """Ask Kafka whether this life goes on. Raises what `begin` raises."""
        async with self._asking:
            await self._take()

    async def keep(self) -> None:
        """Remind Kafka of the id, until cancelled. Raises LifeEnded."""
        wait_s = self._renew_s
        while True:
            await asyncio.sleep(wait_s * (0.9 + 0.1 * random.random()))
            try:
                await self.confirm()
            except errors.KafkaError as failure:
                log.warning("life.not_renewed", reason=error_name(failure))
                wait_s = min(_RETRY_S, self._renew_s)
            else:
                wait_s = self._renew_s

    async def _take(self) -> ProducerIdentity:
        coordinator, before = self._coordinator, self._taken
        assert coordinator is not None, "begun"
        try:
            taken = await persist(lambda: coordinator.init_producer_id(before))
        except OVERTAKEN as failure:
            raise LifeEnded(self.transactional_id, "fenced") from failure
        if before != NEW and taken.producer_id != before.producer_id:
            raise LifeEnded(self.transactional_id, "forgotten by Kafka")
        if taken.epoch > EPOCH_MAX:
            raise LifeEnded(self.transactional_id, "no epochs are left")
        self._taken, self._taken_s = taken, self._monotonic_s()
        return taken
