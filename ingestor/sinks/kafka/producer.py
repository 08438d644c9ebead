"""The producer's failures: what each one means, and how a producer ends that can't be used again.

aiokafka's idempotent producer counts a batch's sequence numbers when it sends it and never takes
them back, so that after one final error the broker refuses everything else of that partition
(aio-libs/aiokafka#1017). Its owner must start a new one, with a new producer id.

This module, `produce` and `ingestor.kafka.aiokafka_compat` alone reach into aiokafka's insides.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from enum import Enum
from typing import Any, Final

import cramjam
import structlog
from aiokafka import AIOKafkaProducer, errors
from aiokafka.record import default_records as _record_batches

from ingestor.kafka.settings import KafkaSettings

try:
    from aiokafka.record._crecords import default_records as _record_batches_in_c
except ImportError:  # aiokafka was built, or is run, without its extensions
    _record_batches_in_c = None

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 1.0


class Verdict(Enum):
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


def verdict(failure: BaseException, failures: int) -> Verdict:
    """Classify. failures: how often this batch has failed in a row, now included.

    aiokafka knows the errors up to code 79 only, and calls later ones (87, INVALID_RECORD, is one)
    unknown: they count as the producer's fault at first, as a record's when they come back.
    """
    if isinstance(failure, errors.CorruptRecordException) and failures <= 1:
        return Verdict.RESEND
    if isinstance(failure, _OF_RECORDS):
        return Verdict.BISECT
    if isinstance(failure, _OF_RIGHTS):
        return Verdict.HOLD
    if type(failure) is errors.UnknownError and failures > _UNKNOWN_RESENDS:
        return Verdict.BISECT
    return Verdict.RESEND


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


async def end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without waiting for its batches: their futures fail with ProducerClosed.

    `AIOKafkaProducer.stop` waits for every batch, for ever when the broker is gone.
    """
    connecting: asyncio.Lock = producer.client._get_conn_lock  # noqa: SLF001
    with suppress(TimeoutError):
        # aiokafka loses sight of a connection whose making is cancelled.
        await asyncio.wait_for(connecting.acquire(), CONNECT_TIMEOUT_S)
    sender_task = producer._sender.sender_task  # noqa: SLF001
    if sender_task is not None:
        await _end_task(sender_task)  # before `stop`, which would be cancelled along with it
    _fail_batches(producer)
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
    await _end_task(stopping)


async def _end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end. aiokafka's sender first waits for its requests, which
    takes a second cancelling when the broker doesn't answer."""
    for _ in range(2):
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=STOP_TIMEOUT_S)
    if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
        log.debug("kafka.producer.ended_with", reason=repr(failure))


def _fail_batches(producer: AIOKafkaProducer) -> None:
    accumulator: Any = producer._message_accumulator  # noqa: SLF001
    batches = [one for queue in accumulator._batches.values() for one in queue]  # noqa: SLF001
    # A batch that waits to be sent again is expected here when its future ends.
    accumulator._pending_batches.update(batches)  # noqa: SLF001
    batches = list(accumulator._pending_batches)  # noqa: SLF001
    accumulator.fail_all(errors.ProducerClosed())
    for batch in batches:
        sent_alone = (future for future, _ in batch._msg_futures)  # noqa: SLF001
        for future in (batch.future, batch._drain_waiter, *sent_alone):  # noqa: SLF001
            if future.done() and not future.cancelled():
                future.exception()  # marks it as seen: asyncio would log it as never retrieved


def use_fast_compression() -> None:
    """Let aiokafka compress lz4 at the level that producers want. May be called again.

    It asks for level 9, high compression: 64 MB/s, two thirds of the cost of a JSON record. The
    fastest level makes 1,050 MB/s and 15 % more bytes, in the same frame format.
    """
    for module in (_record_batches, _record_batches_in_c):
        if hasattr(module, "lz4_encode"):
            module.lz4_encode = _lz4_encode


def _lz4_encode(payload: bytes) -> bytes:
    # Brokers want independent blocks (KIP-57).
    compressor = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
    compressor.compress(payload)
    return bytes(compressor.finish())


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
