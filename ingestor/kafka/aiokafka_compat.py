"""The only module that reaches into private parts of aiokafka, each with the reason for it.

The private parts were reviewed in aiokafka `REVIEWED_VERSION`:
tests/unit/kafka/test_aiokafka_compat.py fails when requirements.lock names another one, so that
each workaround is looked at again. They are:

- `AIOKafkaConnection.send`, `_send_sasl_token`: a lost socket must be a KafkaConnectionError
  (aio-libs/aiokafka#1038). asyncio drops what is written between a socket's loss and the turn of
  the loop in which aiokafka learns of it. uvloop raises RuntimeError, which would end the task that
  renews a cluster's metadata, a consumer's fetcher, or our own sender.
- `AIOKafkaClient._get_conn_lock`, `Sender.sender_task`, the accumulator's batches: a producer must
  end without waiting for its batches, which `AIOKafkaProducer.stop` does for ever.
- `AIOKafkaProducer._txn_manager`, `AIOKafkaClient._conns`: our produce requests use the producer's
  identity, sequence numbers and connections (ADR 12).
- `default_records.lz4_encode`: aiokafka compresses at level 9.
- `AIOKafkaConsumer._client`: a consumer needs the cluster's topics without creating one.
- What is in modules that aiokafka doesn't document, and is imported from here: the partitioner's
  `murmur2`, the builder of record batches, the headers of requests, `create_conn`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import wraps
from typing import Any, Final

import cramjam
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn
from aiokafka.partitioner import murmur2
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.api import RequestHeader_v1, ResponseHeader_v0
from aiokafka.record import default_records as _record_batches
from aiokafka.record.default_records import DefaultRecordBatchBuilder

try:
    from aiokafka.record._crecords import default_records as _record_batches_in_c
except ImportError:  # aiokafka was built, or is run, without its extensions
    _record_batches_in_c = None

__all__ = [
    "REVIEWED_VERSION",
    "AIOKafkaConnection",
    "CloseReason",
    "DefaultRecordBatchBuilder",
    "RequestHeader_v1",
    "ResponseHeader_v0",
    "collect_hosts",
    "connection_to",
    "create_conn",
    "end_producer",
    "fail_writes_to_lost_sockets",
    "murmur2",
    "topics_of",
    "transactions_of",
    "use_fast_compression",
    "wait_for_metadata",
]

log = structlog.get_logger(__name__)

REVIEWED_VERSION: Final = "0.14.0"  # whose private parts were read
STOP_TIMEOUT_S: Final = 2.0
CONNECT_TIMEOUT_S: Final = 1.0
_METHODS: Final = ("send", "_send_sasl_token")


def fail_writes_to_lost_sockets() -> None:
    """Let aiokafka's connections raise KafkaConnectionError there. May be called again."""
    for name in _METHODS:
        method = getattr(AIOKafkaConnection, name)
        if not hasattr(method, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _failing(method))


def _failing(method: Any) -> Any:
    @wraps(method)
    def call(connection: AIOKafkaConnection, *arguments: Any, **options: Any) -> Any:
        try:
            return method(connection, *arguments, **options)
        except errors.KafkaError:  # a RuntimeError itself
            raise
        except RuntimeError as refused:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            place = f"{connection.host}:{connection.port}"
            raise errors.KafkaConnectionError(f"connection to {place} lost") from refused

    return call


async def end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without waiting for its batches: their futures fail with ProducerClosed.

    `AIOKafkaProducer.stop` waits for every batch, for ever when the broker is gone.
    """
    connecting: asyncio.Lock = producer.client._get_conn_lock
    with suppress(TimeoutError):
        # aiokafka loses sight of a connection whose making is cancelled.
        await asyncio.wait_for(connecting.acquire(), CONNECT_TIMEOUT_S)
    sender_task = producer._sender.sender_task
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
    accumulator: Any = producer._message_accumulator
    batches = [one for queue in accumulator._batches.values() for one in queue]
    # A batch that waits to be sent again is expected here when its future ends.
    accumulator._pending_batches.update(batches)
    batches = list(accumulator._pending_batches)
    accumulator.fail_all(errors.ProducerClosed())
    for batch in batches:
        sent_alone = (future for future, _ in batch._msg_futures)
        for future in (batch.future, batch._drain_waiter, *sent_alone):
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


def transactions_of(producer: AIOKafkaProducer) -> TransactionManager:
    """Return what holds a producer's id, epoch and sequence numbers."""
    return producer._txn_manager


def connection_to(client: AIOKafkaClient, node: int) -> Any:
    """Return a client's open connection to a broker, None when there is none now."""
    connection = client._conns.get((node, ConnectionGroup.DEFAULT))
    return connection if connection is not None and connection.connected() else None


async def topics_of(consumer: AIOKafkaConsumer) -> set[str]:
    """Return the cluster's topics. A request that names one topic could create it."""
    metadata = await consumer._client.fetch_all_metadata()
    topics: set[str] = metadata.topics()
    return topics


async def wait_for_metadata(consumer: AIOKafkaConsumer, topic: str) -> None:
    """Wait for the metadata of a topic that nobody asked for yet."""
    await consumer._client._wait_on_metadata(topic)
