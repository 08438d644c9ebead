"""Requests to a coordinator, byte by byte, and how their answers are read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from aiokafka import TopicPartition, errors

from ingestor.kafka import transactions
from ingestor.kafka.transactions import Coordinator, ProducerIdentity

NAME = "g.m.s"
PRODUCER = ProducerIdentity(7, 3)


class Connection:
    """Answers with bytes given beforehand; keeps what was asked."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[Any] = []
        self.closed: list[object] = []

    async def send(self, request: Any) -> bytes:
        prepared = request.prepare({22: (0, 6), 24: (0, 5), 26: (0, 5)})
        self.asked.append(prepared)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        decoded: bytes = prepared.RESPONSE_TYPE.decode(BytesIO(answer))
        return decoded

    def close(self, reason: object) -> None:
        self.closed.append(reason)


class Client:
    """`AIOKafkaClient`. lookups: how often it was asked for the coordinator."""

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self.lookups = 0
        self.nodes = 1

    def get_random_node(self) -> int | None:
        return 0 if self.nodes else None

    async def coordinator_lookup(self, _kind: object, name: str) -> int:
        assert name == NAME
        self.lookups += 1
        return 5

    async def ready(self, node: int) -> bool:
        assert node == 5
        return self.connection is not None


Asking = Callable[..., tuple[Any, Client, Connection]]


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Asking:
    def made(*answers: bytes | Exception) -> tuple[Any, Client, Connection]:
        connection = Connection(*answers)
        client = Client(connection)
        monkeypatch.setattr(transactions, "connection_to", lambda one, _node: one.connection)
        return Coordinator(client, NAME), client, connection

    return made


async def test_an_identity_is_asked_for_in_the_name_of_the_last(asking: Asking) -> None:
    coordinator, _, connection = asking(struct.pack(">ihqhb", 0, 0, 9, 4, 0))
    assert await coordinator.init_producer_id(PRODUCER) == ProducerIdentity(9, 4)
    [request] = connection.asked
    assert request.API_VERSION == 5
    expected = b"\x06g.m.s" + struct.pack(">iqh", 10_000, 7, 3) + b"\0"
    assert request.encode() == expected
    assert request.build_request_header(1, "c").encode().endswith(b"\0")  # no tags


async def test_long_names_have_long_lengths(
    monkeypatch: pytest.MonkeyPatch, asking: Asking
) -> None:
    coordinator, client, connection = asking(struct.pack(">ihqhb", 0, 0, 9, 4, 0))
    coordinator._transactional_id = "x" * 300
    monkeypatch.setattr(client, "coordinator_lookup", lambda *_: asyncio.sleep(0, 5))
    await coordinator.init_producer_id()
    assert connection.asked[0].encode().startswith(b"\xad\x02xxx")  # 301 in groups of seven bits


async def test_partitions_are_added(asking: Asking) -> None:
    answer = struct.pack(">ii", 0, 1) + b"\x00\x01t" + struct.pack(">iihih", 2, 0, 0, 4, 55)
    coordinator, _, connection = asking(answer)
    places = [TopicPartition("t", 0), TopicPartition("u", 1), TopicPartition("t", 4)]
    refused = await coordinator.add_partitions(PRODUCER, places)
    assert {place: type(one) for place, one in refused.items()} == {
        TopicPartition("t", 4): errors.OperationNotAttempted
    }
    head = b"\x00\x05g.m.s" + struct.pack(">qh", 7, 3)
    topics = struct.pack(">i", 2) + b"\x00\x01t" + struct.pack(">iii", 2, 0, 4)
    topics += b"\x00\x01u" + struct.pack(">ii", 1, 1)
    assert connection.asked[0].encode() == head + topics
    assert connection.asked[0].API_VERSION == 2


async def test_a_transaction_is_aborted(asking: Asking) -> None:
    coordinator, _, connection = asking(struct.pack(">ih", 0, 0))
    await coordinator.abort(PRODUCER)
    assert connection.asked[0].encode() == b"\x00\x05g.m.s" + struct.pack(">qhb", 7, 3, 0)


@pytest.mark.parametrize(
    ("failure", "raised", "lookups"),
    [
        (struct.pack(">ih", 0, 16), errors.NotCoordinatorForGroupError, 2),
        (struct.pack(">ih", 0, 51), errors.ConcurrentTransactions, 1),
        (struct.pack(">ih", 0, 47), errors.InvalidProducerEpoch, 1),
        (errors.KafkaConnectionError(), errors.KafkaConnectionError, 2),
        (TimeoutError(), errors.RequestTimedOutError, 2),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
async def test_the_coordinator_is_looked_up_again_when_it_may_have_moved(
    asking: Asking, failure: bytes | Exception, raised: type[Exception], lookups: int
) -> None:
    coordinator, client, connection = asking(failure, struct.pack(">ih", 0, 0))
    with pytest.raises(raised):
        await coordinator.abort(PRODUCER)
    await coordinator.abort(PRODUCER)
    assert client.lookups == lookups
    assert bool(connection.closed) == isinstance(failure, TimeoutError)


async def test_nobody_to_ask(asking: Asking) -> None:
    coordinator, client, _ = asking()
    client.connection = None
    with pytest.raises(errors.NodeNotReadyError):
        await coordinator.init_producer_id()
    client.nodes = 0
    with pytest.raises(errors.NodeNotReadyError):
        await coordinator.init_producer_id()


@pytest.mark.parametrize("offered", [{22: (0, 2)}, {22: (6, 8)}, {}])
def test_brokers_of_another_age_are_refused(offered: dict[int, tuple[int, int]]) -> None:
    request = transactions._Request(22, (3, 5), b"")
    with pytest.raises(errors.IncompatibleBrokerVersion):
        request.prepare(offered)
