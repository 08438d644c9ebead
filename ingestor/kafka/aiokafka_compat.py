"""The only module that reaches into private parts of aiokafka, each with the reason for it.

The private parts were reviewed in aiokafka `REVIEWED_VERSION`:
tests/unit/kafka/test_aiokafka_compat.py fails when requirements.lock names another one, so that
each workaround is looked at again. They are:

- `AIOKafkaConnection.send`, `_send_sasl_token`: a lost socket must be a KafkaConnectionError
  (aio-libs/aiokafka#1038). asyncio drops what is written between a socket's loss and the turn of
  the loop in which aiokafka learns of it. uvloop raises RuntimeError, which would end the task that
  renews a cluster's metadata, a consumer's fetcher, or our own sender.
- `AIOKafkaClient._get_conn_lock`, `Sender.sender_task`: a producer must end although its broker
  doesn't answer, for which `AIOKafkaProducer.stop` waits for ever.
- `AIOKafkaProducer._txn_manager`, `AIOKafkaClient._conns`: our produce requests use the producer's
  identity and connections (ADR 12).
- `AIOKafkaClient._sync_task`, `Sender.sender_task`: when one of these tasks dies of an exception,
  metadata are never read again and every wait for them is for ever. Somebody must watch them.
- `aiokafka.client.MetadataRequest`: asking for a topic must not create it with the broker's
  defaults; topics are created as configured, or not at all.
- `default_records.lz4_encode`: aiokafka compresses at level 9, with checksums of blocks.
- `AIOKafkaConsumer._client`: a consumer needs the cluster's topics without creating one.
- `aiokafka.consumer.fetcher`, its `MemoryRecords` and `PartitionRecords`: what a fetch brought is
  handed over batch by batch (`fetched_batches`); an object for each record costs 1,500 ns.
- What is in modules that aiokafka doesn't document, and is imported from here: the partitioner's
  `murmur2`, the builder of record batches, the headers of requests, `create_conn`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Final

import aiokafka.client as client_module
import aiokafka.codec as codecs
import aiokafka.consumer.fetcher as fetcher_module
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.partitioner import murmur2
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.api import (
    RequestHeader_v1,
    RequestHeader_v2,
    ResponseHeader_v0,
    ResponseHeader_v1,
)
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record import default_records as _record_batches
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from ingestor.kafka.lz4_frames import compressed

try:
    from aiokafka.record._crecords import default_records as _record_batches_in_c
except ImportError:  # aiokafka was built, or is run, without its extensions
    _record_batches_in_c = None

__all__ = [
    "READ_UNCOMMITTED",
    "REVIEWED_VERSION",
    "AIOKafkaClient",
    "AIOKafkaConnection",
    "CloseReason",
    "CoordinationType",
    "DefaultRecordBatch",
    "DefaultRecordBatchBuilder",
    "MemoryRecords",
    "PartitionRecords",
    "RequestHeader_v1",
    "RequestHeader_v2",
    "ResponseHeader_v0",
    "ResponseHeader_v1",
    "collect_hosts",
    "connection_to",
    "create_conn",
    "decompress",
    "end_producer",
    "fail_writes_to_lost_sockets",
    "fetch_with",
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


def create_no_topics_by_asking() -> None:
    """Let no client of this process create a topic by asking for it. May be called again."""
    client_module.MetadataRequest = partial(MetadataRequest, allow_auto_topic_creation=False)


async def create_topics_by_use(producer: AIOKafkaProducer, topics: list[str]) -> None:
    """Ask for topics in the way that lets a broker create them, where it does that.

    Raises KafkaError, OSError or TimeoutError when the broker doesn't answer.
    """
    client = producer.client
    request = MetadataRequest(topics, allow_auto_topic_creation=True)
    await client.send(client.get_random_node(), request)


async def end_of_background_tasks(producer: AIOKafkaProducer) -> BaseException:
    """Wait until a background task of a producer ends; return what it died of."""
    tasks = {producer.client._sync_task, producer._sender.sender_task}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    ended = next(iter(done))
    failure: BaseException | None = None if ended.cancelled() else ended.exception()
    return failure if failure is not None else RuntimeError("aiokafka's task ended")


async def end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without waiting for a broker that doesn't answer."""
    connecting: asyncio.Lock = producer.client._get_conn_lock
    with suppress(TimeoutError):
        # aiokafka loses sight of a connection whose making is cancelled.
        await asyncio.wait_for(connecting.acquire(), CONNECT_TIMEOUT_S)
    sender_task = producer._sender.sender_task
    if sender_task is not None:
        await _end_task(sender_task)  # before `stop`, which would be cancelled along with it
    reading = producer.client._sync_task
    if reading is not None and reading.done():
        await _end_task(reading)
        producer.client._sync_task = None  # `stop` would raise what it died of, and close nothing
    stopping = asyncio.ensure_future(producer.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
    await _end_task(stopping)


async def _end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end. aiokafka's sender first waits for its requests, which
    takes a second cancelling when the broker doesn't answer.
    """
    for _ in range(2):
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=STOP_TIMEOUT_S)
    if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
        log.debug("kafka.producer.ended_with", reason=repr(failure))


def use_fast_compression() -> None:
    """Let aiokafka compress lz4 at the level that producers want. May be called again.

    It asks for level 9, high compression: 64 MB/s, two thirds of the cost of a JSON record. The
    fastest level makes 1,050 MB/s and 15 % more bytes, in the same frame format. Its frames have
    checksums of blocks, which some clients refuse: ours have none.
    """
    for module in (_record_batches, _record_batches_in_c):
        if hasattr(module, "lz4_encode"):
            module.lz4_encode = compressed


def fetch_with(records: type[MemoryRecords], of_partition: Callable[..., PartitionRecords]) -> None:
    """Let consumers keep what they fetch as `records`, and give it out by `of_partition`."""
    fetcher_module.MemoryRecords = records
    fetcher_module.PartitionRecords = of_partition


_DECODERS: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    0: bytes,
    1: codecs.gzip_decode,
    2: codecs.snappy_decode,
    3: codecs.lz4_decode,
    4: codecs.zstd_decode,
}


def decompress(records: bytes, codec: int) -> bytes:
    """Return the records of a batch. codec: the number of their compression.

    Raises:
        UnsupportedCodecError: for a compression that is not known here.
        CorruptRecordException: the compressed bytes are broken.
    """
    decode = _DECODERS.get(codec)
    if decode is None:
        raise errors.UnsupportedCodecError(f"compression {codec}")
    try:
        return bytes(decode(records))
    except Exception as failure:  # noqa: BLE001  # each codec has exceptions of its own
        raise errors.CorruptRecordException(f"compressed records: {failure!r:.200}") from None


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
