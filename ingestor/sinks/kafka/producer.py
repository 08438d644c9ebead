"""The producer's failures: what each one means, and how a producer ends that can't be used again.

aiokafka's idempotent producer counts a batch's sequence numbers when it sends it and never takes
them back, so that after one final error the broker refuses everything else of that partition
(aio-libs/aiokafka#1017). Its owner must start a new one, with a new producer id.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Final

from aiokafka import AIOKafkaProducer, errors

from ingestor.kafka.aiokafka_compat import end_producer, use_fast_compression
from ingestor.kafka.settings import KafkaSettings


class DeliveryAction(Enum):
    """What a failed delivery means for its batch. The producer is replaced in every case."""

    RESEND = "resend"  # the producer's fault: send the same again
    BISECT = "bisect"  # one of its records can never be accepted: find it
    HOLD = "hold"  # nothing is accepted here until somebody changes something outside


# Verdicts on the content of a batch. A record may have been corrupted on the way: that one is sent
# again once before it counts as the record's own fault.
_OF_RECORDS: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    errors.CorruptRecordException,
    errors.UnsupportedForMessageFormatError,
    errors.PolicyViolationError,
)
_OF_RIGHTS: Final = (
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.UnknownTopicOrPartitionError,
    errors.InvalidTopicError,
    errors.SaslAuthenticationFailed,
    errors.AuthenticationFailedError,
    errors.SecurityDisabled,
)
_UNKNOWN_RESENDS: Final = 3


def classify_failure(failure: BaseException, failures: int) -> DeliveryAction:
    """Classify. failures: how often this batch has failed in a row, now included.

    aiokafka knows the errors up to code 79 only, and calls later ones (87, INVALID_RECORD, is one)
    unknown: they count as the producer's fault at first, as a record's when they come back.
    """
    if isinstance(failure, errors.CorruptRecordException) and failures <= 1:
        return DeliveryAction.RESEND
    if isinstance(failure, _OF_RECORDS):
        return DeliveryAction.BISECT
    if isinstance(failure, _OF_RIGHTS):
        return DeliveryAction.HOLD
    if type(failure) is errors.UnknownError and failures > _UNKNOWN_RESENDS:
        return DeliveryAction.BISECT
    return DeliveryAction.RESEND


def cause(failure: BaseException) -> str:
    """Return a name for logs and metrics."""
    return type(failure).__name__.removesuffix("Error").removesuffix("Exception")


async def start_producer(settings: KafkaSettings) -> AIOKafkaProducer:
    """Return a started idempotent producer with acks=all and no linger of its own.

    Raises aiokafka's errors and OSError when no broker can be had; nothing is left running then.
    """
    use_fast_compression()
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


class OncePerSecond(logging.Filter):
    """Lets one line a second pass for each cause (the place that logs), and says what it held.

    In an outage aiokafka writes some 70 lines a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next_s: dict[tuple[str, int], float] = {}
        self._held: dict[tuple[str, int], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = record.pathname, record.lineno
        if record.created < self._next_s.get(place, 0.0):
            self._held[place] = self._held.get(place, 0) + 1
            return False
        self._next_s[place] = record.created + 1.0
        held = self._held.pop(place, 0)
        if held:
            record.msg = f"{record.getMessage()} ({held} more like this)"
            record.args = ()
        return True


_limit: Final = OncePerSecond()


def limit_logging() -> None:
    """Hold aiokafka to one line a second and cause. May be called again."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "aiokafka":
            logging.getLogger(name).addFilter(_limit)
