"""Keep a life from publishing: from here on Kafka refuses whatever it still sends.

A life is one run of a worker. It publishes under the producer id of a transactional id of its own,
`GROUP.MEMBER.SESSION`, but without transactions. Whoever takes over from it opens a transaction in
its name, over every partition that it may write to, and aborts it. The transaction is empty:
readers see no record, and the producer's epoch rises in each partition, so that batches of the
earlier epoch are refused there, also those that are on their way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import structlog
from aiokafka import TopicPartition, errors

from ingestor.kafka.aiokafka_compat import AIOKafkaClient
from ingestor.kafka.error_codes import ProducerFencedByBroker, error_name
from ingestor.kafka.transactions import Coordinator, ProducerIdentity
from ingestor.model.backoff import Backoff
from ingestor.model.errors import FenceFailed

log = structlog.get_logger(__name__)

FENCE_TIMEOUT_S: Final = 60.0
BACKOFF: Final = Backoff(base_s=0.01, cap_s=1.0, floor_s=0.002)
# After somebody else took an epoch: longer than a fence takes, so that one of us comes through.
GIVE_WAY: Final = Backoff(base_s=0.1, cap_s=2.0)
# Somebody else fences the same life, or began after us.
OVERTAKEN: Final = (
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.InvalidTxnState,
    ProducerFencedByBroker,
)
_PASSING: Final = (errors.ConcurrentTransactions, errors.OperationNotAttempted)
_ABSENT: Final = (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError)

_Result = TypeVar("_Result")


async def fence(
    client: AIOKafkaClient,
    life: str,
    partitions: Sequence[TopicPartition],
    *,
    timeout_s: float = FENCE_TIMEOUT_S,
) -> None:
    """Return once Kafka refuses what a life still sends to any of the partitions.

    Several may fence the same life at once. Consumers of committed records wait for the duration.

    Args:
        client: started, of any producer or consumer.
        life: its transactional id.
        partitions: all that it may write to, those of auxiliary topics included. One that does not
            exist is left out.
        timeout_s: after so long it is given up.

    Raises:
        FenceFailed: when Kafka refuses, or time is up. The life may go on publishing.
    """
    last: list[BaseException] = []
    try:
        async with asyncio.timeout(timeout_s):
            await _fence(Coordinator(client, life), life, partitions, last)
    except TimeoutError:
        reason = f"{error_name(last[-1])} for {timeout_s:g} s" if last else "no answer"
        raise FenceFailed(life, reason) from None
    except errors.KafkaError as failure:
        raise FenceFailed(life, error_name(failure)) from failure


async def _fence(
    coordinator: Coordinator,
    life: str,
    partitions: Collection[TopicPartition],
    last: list[BaseException],
) -> None:
    attempt = 0
    while True:
        try:
            taken = await persist(coordinator.init_producer_id, last)
            if taken.epoch == 0:
                # Kafka forgets an id after seven days: then nothing is known of that life.
                log.warning("fence.life_unknown", life=life)
            await _mark(coordinator, taken, partitions, last)
        except OVERTAKEN as failure:
            last[:] = [failure]
            await asyncio.sleep(GIVE_WAY.delay_s(attempt, random.random))
            attempt += 1
        else:
            return


async def _mark(
    coordinator: Coordinator,
    taken: ProducerIdentity,
    partitions: Collection[TopicPartition],
    last: list[BaseException],
) -> None:
    """Have the epoch written into each partition. Raises one of OVERTAKEN when it is not ours."""
    wanted = dict.fromkeys(partitions)

    async def add() -> None:
        refused = await coordinator.add_partitions(taken, wanted)
        absent = [place for place, failure in refused.items() if isinstance(failure, _ABSENT)]
        for place in absent:
            del wanted[place]
        reasons = [item for item in refused.values() if not isinstance(item, _ABSENT)]
        reasons.sort(key=lambda one: isinstance(one, _PASSING))  # the one that stays goes first
        if reasons:
            raise reasons[0]

    await persist(add, last)
    if wanted:
        await persist(lambda: coordinator.abort(taken), last)
    # It answers once the markers are written, also when somebody else has asked before us.
    with suppress(*OVERTAKEN):
        await persist(lambda: coordinator.init_producer_id(taken), last)


async def persist(
    ask: Callable[[], Awaitable[_Result]], last: list[BaseException] | None = None
) -> _Result:
    """Ask again until the answer is one that stays.

    Args:
        ask: sends one request.
        last: gets each failure that passes, for whoever gives up.

    Raises:
        KafkaError: that asking again does not change.
    """
    attempt = 0
    while True:
        try:
            return await ask()
        except (errors.KafkaError, OSError) as failure:
            passes = isinstance(failure, (OSError, *_PASSING)) or failure.retriable
            if not passes:
                raise
            if last is not None:
                last[:] = [failure]
        await asyncio.sleep(BACKOFF.delay_s(attempt, random.random))
        attempt += 1
