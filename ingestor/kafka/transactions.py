"""Requests to the coordinator of a transactional id, over the connections of an aiokafka client.

aiokafka has these requests for whole transactions of a producer of its own. Here they number the
producers of one life, and fence another life, which need them one by one, and need
InitProducerId in the form that names the producer it continues (KIP-360). The layouts are those of
Kafka's protocol guide: InitProducerId 3 to 5, AddPartitionsToTxn 0 to 2, EndTxn 0 to 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from struct import Struct
from typing import Any, Final, Self

from aiokafka import TopicPartition, errors

from ingestor.kafka.aiokafka_compat import (
    AIOKafkaClient,
    CloseReason,
    CoordinationType,
    RequestHeader_v1,
    RequestHeader_v2,
    ResponseHeader_v0,
    ResponseHeader_v1,
    connection_to,
)
from ingestor.kafka.error_codes import error_of

# An open transaction holds up consumers that read committed records. One that its owner left
# behind is ended by Kafka after so long.
TRANSACTION_TIMEOUT_MS: Final = 10_000
_INIT_PRODUCER_ID, _ADD_PARTITIONS, _END = 22, 24, 26
_NO_TAGS: Final = b"\0"
_INT16: Final = Struct(">h")
_INT32: Final = Struct(">i")
_CONTINUED: Final = Struct(">iqh")  # timeout in ms, producer id, epoch
_PRODUCER: Final = Struct(">qh")  # producer id, epoch
_CODE: Final = Struct(">ih")  # throttled for ms, error code
_NUMBERED: Final = Struct(">ihqh")  # the same, producer id, epoch
_OUTCOME: Final = Struct(">ih")  # partition, error code
_NO_ERROR: Final = 0
_COORDINATOR_GONE: Final = (
    errors.GroupCoordinatorNotAvailableError,
    errors.NotCoordinatorForGroupError,
    errors.GroupLoadInProgressError,
)


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """The name and epoch under which Kafka takes batches."""

    producer_id: int
    epoch: int


NEW: Final = ProducerIdentity(-1, -1)  # continues no other
EPOCH_MAX: Final = 32_000  # epochs are of 16 bits with a sign


class Coordinator:
    """Asks the coordinator of one transactional id, each request once."""

    def __init__(self, client: AIOKafkaClient, transactional_id: str) -> None:
        """Create the coordinator.

        Args:
            client: started; its connections are used.
            transactional_id: whose coordinator is asked.
        """
        self._client = client
        self._transactional_id = transactional_id
        self._node: int | None = None

    async def init_producer_id(self, continued: ProducerIdentity = NEW) -> ProducerIdentity:
        """Take the next epoch of the id. A transaction that is open is aborted.

        Args:
            continued: who asks; Kafka refuses when somebody else has taken a later epoch. NEW for
                whoever does not care, and fences all others.

        Raises:
            KafkaError: when Kafka refuses or does not answer. ConcurrentTransactions asks for
                patience; code 90 and InvalidProducerEpoch say that `continued` is fenced.
        """
        name = self._transactional_id.encode()
        numbers = (TRANSACTION_TIMEOUT_MS, continued.producer_id, continued.epoch)
        body = _varint(len(name) + 1) + name + _CONTINUED.pack(*numbers) + _NO_TAGS
        answer = await self._ask(_Request(_INIT_PRODUCER_ID, (3, 5), body))
        _, code, producer_id, epoch = _NUMBERED.unpack_from(answer)
        self._check(code)
        return ProducerIdentity(producer_id, epoch)

    async def add_partitions(
        self, producer: ProducerIdentity, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, errors.KafkaError]:
        """Put partitions into the transaction; return those that Kafka refused, and why.

        Args:
            producer: as `init_producer_id` returned it.
            places: topics and partitions. Where one is refused, all are, the others with
                OperationNotAttempted.

        Raises:
            KafkaError: when Kafka does not answer.
        """
        by_topic: dict[str, list[int]] = {}
        for topic, partition in places:
            by_topic.setdefault(topic, []).append(partition)
        parts = [self._head(producer), _INT32.pack(len(by_topic))]
        for topic, partitions in by_topic.items():
            parts += (_string(topic), _INT32.pack(len(partitions)))
            parts += [_INT32.pack(partition) for partition in partitions]
        refused = _refusals(await self._ask(_Request(_ADD_PARTITIONS, (0, 2), b"".join(parts))))
        for failure in refused.values():
            self._forget_if_gone(failure)
        return refused

    async def abort(self, producer: ProducerIdentity) -> None:
        """End the transaction. Kafka writes an abort marker into each of its partitions.

        Args:
            producer: as `init_producer_id` returned it.

        Raises:
            KafkaError: when Kafka refuses or does not answer.
        """
        body = self._head(producer) + b"\0"
        answer = await self._ask(_Request(_END, (0, 2), body))
        self._check(_CODE.unpack_from(answer)[1])

    def _head(self, producer: ProducerIdentity) -> bytes:
        return _string(self._transactional_id) + _PRODUCER.pack(
            producer.producer_id, producer.epoch
        )

    async def _ask(self, request: _Request) -> bytes:
        client = self._client
        try:
            if self._node is None:
                if client.get_random_node() is None:
                    raise errors.NodeNotReadyError
                kind = CoordinationType.TRANSACTION
                self._node = await client.coordinator_lookup(kind, self._transactional_id)
            # aiokafka loses sight of a connection whose making is cancelled.
            await asyncio.shield(client.ready(self._node))
            connection = connection_to(client, self._node)
            if connection is None:
                raise errors.NodeNotReadyError
            try:
                answer: bytes = await connection.send(request)
            except TimeoutError:
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
                raise errors.RequestTimedOutError from None
        except (errors.KafkaError, OSError):
            self._node = None  # another broker may have become the coordinator
            raise
        return answer

    def _check(self, code: int) -> None:
        if code != _NO_ERROR:
            failure = error_of(code)
            self._forget_if_gone(failure)
            raise failure

    def _forget_if_gone(self, failure: errors.KafkaError) -> None:
        if isinstance(failure, _COORDINATOR_GONE):
            self._node = None


class _Request:
    """Name the members of a request that aiokafka's connection uses.

    The answer is its body, as bytes.
    """

    def __init__(self, key: int, versions: tuple[int, int], body: bytes) -> None:
        """Create the request.

        Args:
            key: of the API.
            versions: the first and the last one of the body's layout.
            body: the request without its header.
        """
        self.API_KEY = key
        self.API_VERSION = versions[1]
        self._versions = versions
        self._body = body

    @property
    def RESPONSE_TYPE(self) -> Self:  # noqa: N802
        return self

    @property
    def _is_flexible(self) -> bool:
        return self.API_KEY == _INIT_PRODUCER_ID

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Self:
        lowest, highest = versions.get(self.API_KEY, (-1, -1))
        ours_from, ours_to = self._versions
        self.API_VERSION = min(highest, ours_to)
        if max(lowest, ours_from) > self.API_VERSION:
            what = f"requests {self.API_KEY} of versions {lowest} to {highest}"
            raise errors.IncompatibleBrokerVersion(what)
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> Any:
        header = RequestHeader_v2 if self._is_flexible else RequestHeader_v1
        return header(self, correlation_id=correlation_id, client_id=client_id)

    def parse_response_header(self, buffer: BytesIO) -> Any:
        return (ResponseHeader_v1 if self._is_flexible else ResponseHeader_v0).decode(buffer)

    def encode(self) -> bytes:
        return self._body

    def decode(self, buffer: BytesIO) -> bytes:
        return buffer.read()


def _refusals(data: bytes) -> dict[TopicPartition, errors.KafkaError]:
    """Return what an answer to AddPartitionsToTxn refuses."""
    at = _INT32.size
    [topics] = _INT32.unpack_from(data, at)
    at += _INT32.size
    found: dict[TopicPartition, errors.KafkaError] = {}
    for _ in range(topics):
        [length] = _INT16.unpack_from(data, at)
        at += _INT16.size
        topic = data[at : at + length].decode()
        at += length
        [count] = _INT32.unpack_from(data, at)
        at += _INT32.size
        for _ in range(count):
            partition, code = _OUTCOME.unpack_from(data, at)
            at += _OUTCOME.size
            if code != _NO_ERROR:
                found[TopicPartition(topic, partition)] = error_of(code)
    return found


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _varint(number: int) -> bytes:
    """Return an unsigned number in groups of seven bits, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
