"""Produce requests of our own, over the connections of an aiokafka producer.

aiokafka's batch API keeps a builder, a future, a shield around it and a linger for each batch, and
wakes one task for each: at light load, where every flush makes a small batch for each partition,
that is what publishing costs. Here one request carries all batches that are bound for one broker,
and one coroutine sends it and learns what became of each. Record batches, compression, metadata and
connections stay aiokafka's.

Epoch and sequence numbers are counted here, by partition (`Numbering`): a partition whose batch was
refused for good begins again with the next epoch, which costs no other partition anything. A life
that others can fence has its epochs from Kafka (`life`); else they are counted up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from struct import Struct
from typing import Any, Final, Protocol, Self

from aiokafka import AIOKafkaProducer, TopicPartition, errors

from ingestor.codec import Headers, Record
from ingestor.kafka.aiokafka_compat import (
    CloseReason,
    DefaultRecordBatchBuilder,
    RequestHeader_v1,
    ResponseHeader_v0,
    connection_to,
    transactions_of,
)
from ingestor.kafka.error_codes import error_of
from ingestor.kafka.transactions import EPOCH_MAX, ProducerIdentity
from ingestor.native import crc32c
from ingestor.sinks.kafka.life import Life
from ingestor.sinks.kafka.record_batch import record_batch

Batches = Mapping[TopicPartition, bytes | bytearray]
Failures = dict[TopicPartition, errors.KafkaError | None]

_SEQUENCES: Final = 1 << 31  # sequence numbers begin again at 0 behind the largest of 32 bits
_PRODUCE: Final = 0  # the API's key
_VERSIONS: Final = (3, 7)  # all of one layout: Kafka 0.11 to 4
_CODECS: Final = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_MAGIC: Final = 2
_ALL: Final = -1  # acks
_ACKS: Final = {errors.NoError.errno, errors.DuplicateSequenceNumber.errno}
_HEAD: Final = Struct(">hhii")  # no transactional id, acks, timeout in ms, topics
_LENGTH: Final = Struct(">h")
_COUNT: Final = Struct(">i")
_PART: Final = Struct(">ii")  # partition, bytes
# partition, error code, offset, timestamp; from version 5 on also the log's first offset
_OUTCOME: Final = {version: Struct(">ihqq" + "q" * (version >= 5)) for version in range(3, 8)}


@dataclass(slots=True)
class Numbering:
    """The epoch of one producer in one partition, and the sequence number of the next record.

    The epoch is counted from that which the producer began with.

    A broker takes a batch when its number follows the last one, or when it is 0 and the epoch is
    higher than the last one (KIP-360).
    """

    epoch: int = 0
    sequence: int = 0
    is_used: bool = False  # since the epoch began

    def advance(self, records: int) -> None:
        """Count records that are in a batch."""
        self.sequence = (self.sequence + records) % _SEQUENCES
        self.is_used = True

    def renew(self, epoch: int | None = None) -> None:
        """Begin again: numbers were used that the broker will never see.

        epoch: above the last one; the next one by default.
        """
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self.sequence = 0
        self.is_used = False


class Connection(Protocol):
    """Name the calls of aiokafka's connection to a broker that we use."""

    def connected(self) -> bool: ...

    def send(self, request: _Request) -> Awaitable[list[tuple[TopicPartition, int]]]:
        """Write a request, at once; the answer can be awaited."""

    def close(self, reason: CloseReason) -> object: ...


class ProduceClient:
    """Builds batches in the name of one producer, and sends them."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        *,
        compression: str | None,
        timeout_ms: int,
        life: Life | None = None,
        identity: ProducerIdentity | None = None,
    ) -> None:
        """Create the produce client.

        Args:
            producer: started, idempotent.
            compression: of batches.
            timeout_ms: what the broker may take.
            life: gives out epochs; None where the producer counts its own.
            identity: under which the life begins; the producer's own by default.
        """
        self._client = producer.client
        self._cluster = producer.client.cluster
        self._identity = identity or identity_of(producer)
        self._life = life
        self._codec = _CODECS[compression]
        self._timeout_ms = timeout_ms

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has, 0 when the cluster shows us no such topic."""
        return len(self._cluster.partitions_for_topic(topic) or ())

    def absence(self, topic: str) -> str:
        """Return why a topic, or the leader of a partition of it, is not known."""
        if topic in self._cluster.unauthorized_topics:
            return "TopicAuthorizationFailed"
        return "LeaderNotAvailable" if self.partitions(topic) else "UnknownTopicOrPartition"

    def leader(self, place: TopicPartition) -> int | None:
        """Return the broker that leads a partition, None when it isn't known."""
        node: int | None = self._cluster.leader_for_partition(place)
        return None if node == -1 else node

    @property
    def in_doubt(self) -> bool:
        """Return True if Kafka is to be asked before anything more is sent."""
        return self._life is not None and self._life.in_doubt

    async def confirm(self) -> None:
        """Ask Kafka whether this life goes on. Raises LifeEnded, KafkaError."""
        if self._life is not None:
            await self._life.confirm()

    async def renew(self, numbering: Numbering) -> None:
        """Begin the numbers of a partition again. Nothing of it may be under way.

        Raises:
            LifeEnded: when another has fenced this life.
            KafkaError: when Kafka refuses an epoch, or there are none left.
        """
        if self._life is None:
            numbering.renew()
            if numbering.epoch > EPOCH_MAX:
                raise errors.InvalidProducerEpoch("no epochs are left")
        else:
            began = self._identity.epoch
            numbering.renew(await self._life.epoch_above(began + numbering.epoch) - began)

    def build(
        self,
        numbering: Numbering,
        records: Iterable[Record],
        headers: Headers,
        bytes_max: int,
        first: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[bytearray, int, int]:
        """Make a batch of the first records, as many as fit, at least one.

        Args:
            numbering: of the partition; it is advanced.
            records: in order.
            headers: of each record.
            bytes_max: size of the batch before compression.
            first: more headers, of the first record alone.

        Returns:
            The batch, which can be sent again as it is; how many records are in it; how many bytes
            they had before compression.
        """
        builder = DefaultRecordBatchBuilder(
            _MAGIC,
            self._codec,
            0,
            self._identity.producer_id,
            self._identity.epoch + numbering.epoch,
            numbering.sequence,
            bytes_max,
        )
        append, count, more = builder.append, 0, [*headers, *first]
        for key, value, ts_ms, _ in records:
            if append(count, ts_ms, key, value, more) is None:
                break
            count += 1
            more = headers
        numbering.advance(count)
        size_bytes: int = builder.size()
        return builder.build(), count, size_bytes

    def wrap(
        self, numbering: Numbering, records: bytes, count: int, first_ms: int, last_ms: int
    ) -> bytearray:
        """Make a batch of records that are written already.

        Args:
            numbering: of the partition; it is advanced.
            records: plain ones, or an LZ4 frame where that is the compression.
            count: how many there are.
            first_ms: the timestamp of the first one, ms since the epoch.
            last_ms: the largest timestamp.
        """
        batch = record_batch(
            *(records, count, self._codec, first_ms, last_ms, self._identity.producer_id),
            self._identity.epoch + numbering.epoch,
            numbering.sequence,
            crc32c,
        )
        numbering.advance(count)
        return batch

    def connection(self, node: int) -> Connection | None:
        """Return the connection to a broker, None when there is none now."""
        connection: Connection | None = connection_to(self._client, node)
        return connection

    async def connect(self, node: int) -> bool:
        """Connect to a broker; return whether that worked."""
        # aiokafka loses sight of a connection whose making is cancelled.
        is_ready: bool = await asyncio.shield(self._client.ready(node))
        return is_ready

    async def send(self, node: int, batches: Batches) -> Failures:
        """Send batches to a broker; return why it took each one not, None where it did.

        The request is written before this waits for anything, so that requests go out in the order
        in which their tasks start. Raises KafkaError when there is no answer: the batches may be in
        the log all the same.
        """
        connection = self.connection(node)
        if connection is None:
            raise errors.NodeNotReadyError
        try:
            codes = await connection.send(_Request(batches, self._timeout_ms))
        except TimeoutError:
            # Not `AIOKafkaClient.send`: it closes the connection in force by then.
            connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise errors.RequestTimedOutError from None
        failures: Failures = {place: errors.UnknownError("not in the answer") for place in batches}
        failures.update((place, _failure(code)) for place, code in codes)
        return failures

    async def refresh(self) -> None:
        """Ask the cluster which broker leads which partition."""
        await self._client.force_metadata_update()


def identity_of(producer: AIOKafkaProducer) -> ProducerIdentity:
    """Return the identity that Kafka gave to a producer when it started."""
    transactions = transactions_of(producer)
    return ProducerIdentity(transactions.producer_id, transactions.producer_epoch)


def _failure(code: int) -> errors.KafkaError | None:
    """Return what an error code means. A batch that the broker has already is no failure."""
    if code in _ACKS:
        return None
    return error_of(code)


class _Request:
    """Name the members of a request that aiokafka's connection uses."""

    API_KEY: Final = _PRODUCE

    def __init__(self, batches: Batches, timeout_ms: int) -> None:
        self.API_VERSION = _VERSIONS[1]
        self._batches = batches
        self._timeout_ms = timeout_ms

    @property
    def RESPONSE_TYPE(self) -> _Answer:  # noqa: N802
        return _ANSWERS[self.API_VERSION]

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Self:
        lowest, highest = versions[_PRODUCE]
        self.API_VERSION = min(highest, _VERSIONS[1])
        if max(lowest, _VERSIONS[0]) > self.API_VERSION:
            raise errors.IncompatibleBrokerVersion(f"produce requests {lowest} to {highest}")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> Any:
        return RequestHeader_v1(self, correlation_id=correlation_id, client_id=client_id)

    def parse_response_header(self, buffer: BytesIO) -> Any:
        return ResponseHeader_v0.decode(buffer)

    def encode(self) -> bytes:
        by_topic: dict[str, list[tuple[int, bytes | bytearray]]] = {}
        for (topic, partition), batch in self._batches.items():
            by_topic.setdefault(topic, []).append((partition, batch))
        parts: list[bytes | bytearray] = [_HEAD.pack(-1, _ALL, self._timeout_ms, len(by_topic))]
        for topic, batches in by_topic.items():
            name = topic.encode()
            parts += (_LENGTH.pack(len(name)), name, _COUNT.pack(len(batches)))
            for partition, batch in batches:
                parts += (_PART.pack(partition, len(batch)), batch)
        return b"".join(parts)


class _Answer:
    """Reads the broker's answer: an error code for each partition."""

    def __init__(self, outcome: Struct) -> None:
        self._outcome = outcome

    def decode(self, buffer: BytesIO) -> list[tuple[TopicPartition, int]]:
        data, at, outcome = buffer.read(), _COUNT.size, self._outcome
        codes: list[tuple[TopicPartition, int]] = []
        for _ in range(_COUNT.unpack_from(data)[0]):
            [length] = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            topic = data[at : at + length].decode()
            at += length
            [count] = _COUNT.unpack_from(data, at)
            at += _COUNT.size
            for _ in range(count):
                partition, code, *_ = outcome.unpack_from(data, at)
                at += outcome.size
                codes.append((TopicPartition(topic, partition), code))
        return codes


_ANSWERS: Final = {version: _Answer(outcome) for version, outcome in _OUTCOME.items()}
