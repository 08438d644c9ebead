"""Start producers, and tell what a failed delivery means.

A batch that is refused for good has used sequence numbers that the broker will never see, so that
it refuses whatever follows in that partition (KIP-98). The partition begins again with the next
epoch (`Numbering.renew`); other partitions of the producer don't notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, errors

from ingestor.kafka.aiokafka_compat import (
    create_no_topics_by_asking,
    end_of_background_tasks,
    end_producer,
    fail_writes_to_lost_sockets,
    use_fast_compression,
)
from ingestor.kafka.error_codes import InvalidRecord
from ingestor.kafka.settings import KafkaSettings
from ingestor.kafka.transactions import ProducerIdentity
from ingestor.sinks.kafka.life import Life
from ingestor.sinks.kafka.produce_request import identity_of
from ingestor.telemetry.bulkheads import bulkheads

log = structlog.get_logger(__name__)


class DeliveryAction(Enum):
    """Name the meaning of a failed delivery for its batch."""

    RESEND = "resend"  # the partition's numbering is at fault: begin it again
    BISECT = "bisect"  # one of its records can never be accepted: find it
    HOLD = "hold"  # the partition accepts nothing until somebody changes something outside
    REPLACE = "replace"  # the producer itself is refused, everywhere


# Verdicts on the content of a batch. A record may have been corrupted on the way: that one is sent
# again once before it counts as the record's own fault.
_OF_RULES: Final = (
    errors.UnsupportedForMessageFormatError,
    errors.PolicyViolationError,
    errors.UnknownError,
    InvalidRecord,
)
_OF_RECORDS: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    errors.CorruptRecordException,
    *_OF_RULES,
)
_OF_PARTITIONS: Final = (
    errors.TopicAuthorizationFailedError,
    errors.UnknownTopicOrPartitionError,
    errors.InvalidTopicError,
    errors.InvalidConfigurationError,
    errors.InvalidRequiredAcksError,
)
_OF_PRODUCERS: Final = (
    errors.ClusterAuthorizationFailedError,
    errors.SaslAuthenticationFailed,
    errors.AuthenticationFailedError,
    errors.SecurityDisabled,
    errors.InvalidProducerIdMapping,
    errors.IncompatibleBrokerVersion,
)
_UNKNOWN_RESENDS: Final = 3


def classify_failure(failure: BaseException, failures: int) -> DeliveryAction:
    """Tell what to do about a failed delivery.

    Args:
        failure: Kafka's error, or what was raised while the batch was made. Anything but a verdict
            of Kafka's is the batch's own fault when it comes back.
        failures: how often this batch has failed in a row, now included.
    """
    if isinstance(failure, errors.CorruptRecordException) and failures <= 1:
        return DeliveryAction.RESEND
    is_verdict = isinstance(failure, errors.KafkaError) and type(failure) is not errors.UnknownError
    if not is_verdict:
        again = failures <= _UNKNOWN_RESENDS
        return DeliveryAction.RESEND if again else DeliveryAction.BISECT
    if isinstance(failure, _OF_RECORDS):
        return DeliveryAction.BISECT
    if isinstance(failure, _OF_PARTITIONS):
        return DeliveryAction.HOLD
    if isinstance(failure, _OF_PRODUCERS):
        return DeliveryAction.REPLACE
    return DeliveryAction.RESEND


def is_of_topic(failure: BaseException) -> bool:
    """Tell whether the records of a whole topic may be refused for what one of them is refused for.

    A topic that compacts refuses every record without a key; a record is too large for itself.
    """
    return isinstance(failure, _OF_RULES)


async def start_producer(settings: KafkaSettings) -> AIOKafkaProducer:
    """Return a started idempotent producer with acks=all and no linger of its own.

    Raises aiokafka's errors and OSError when no broker can be had; nothing is left running then.
    """
    use_fast_compression()
    fail_writes_to_lost_sockets()
    create_no_topics_by_asking()
    producer = AIOKafkaProducer(
        acks="all",
        enable_idempotence=True,
        compression_type=settings.compression,
        max_batch_size=settings.max_batch_bytes,
        max_request_size=settings.max_batch_bytes * 4,
        linger_ms=0,
        **settings.client_options(),
    )
    try:
        async with asyncio.timeout(settings.request_timeout_ms / 1_000):
            await producer.start()
    except BaseException:
        await end_producer(producer)
        raise
    return producer


async def while_alive(producer: AIOKafkaProducer, work: Coroutine[None, None, None]) -> None:
    """Do something that waits for metadata, for no longer than aiokafka reads them.

    Raises what the work raises, or what aiokafka's task died of.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(end_of_background_tasks(producer))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise watching.result()
        working.result()
    finally:
        working.cancel()
        watching.cancel()


async def identify(
    producer: AIOKafkaProducer, life: Life | None, settings: KafkaSettings
) -> ProducerIdentity:
    """Return the identity under which a producer sends.

    Args:
        producer: started.
        life: whose name it has; None for a name of its own.
        settings: of the producer.

    Raises:
        LifeEnded: when another has fenced the life.
        KafkaError: when Kafka refuses.
        TimeoutError: when it does not answer.
    """
    if life is None:
        return identity_of(producer)
    async with asyncio.timeout(settings.request_timeout_ms / 1_000):
        return await life.begin(producer.client)


async def end_quietly(producer: AIOKafkaProducer) -> None:
    """End a producer whatever state it is in."""
    try:
        await end_producer(producer)
    except OSError as failure:
        log.debug("kafka.producer.ended_with", reason=repr(failure))
    except Exception as failure:  # noqa: BLE001  # the boundary
        bulkheads.bug("producer", failure)


def leaves_of(group: BaseExceptionGroup[Any]) -> list[Any]:
    """Return the exceptions of a group and of groups in it."""
    found: list[Any] = []
    for failure in group.exceptions:
        found += leaves_of(failure) if isinstance(failure, BaseExceptionGroup) else [failure]
    return found
