"""Side records: a partition that takes nothing holds up no other of its topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import orjson
import pytest
from aiokafka import TopicPartition, errors

from ingestor.kafka.partitions import partition_of_key
from ingestor.model.backoff import Backoff
from ingestor.sinks.kafka import auxiliary_topic
from ingestor.sinks.kafka.auxiliary_topic import AuxiliaryRecord, AuxiliaryTopic
from ingestor.sinks.kafka.produce_request import Failures, ProduceClient
from tests.fakes.broker import TOO_LARGE, SequencedBroker, SequencedProduce

NAME = "md.book_snapshot.v1"
FAULTS: list[Callable[[], Exception]] = [
    errors.NotLeaderForPartitionError,
    errors.TopicAuthorizationFailedError,
    errors.RequestTimedOutError,
    lambda: OSError(24, "Too many open files"),
]


class Cluster(SequencedProduce):
    """A cluster with several partitions, some of which take nothing, or answer nothing."""

    def __init__(self, broker: SequencedBroker, count: int) -> None:
        super().__init__(broker, 1)
        self.broker = broker
        self.count = count
        self.faults: dict[int, Callable[[], Exception]] = {}
        self.silent: set[int] = set()
        self.codes: dict[int, list[int]] = {}

    def partitions(self, _topic: str) -> int:
        return self.count

    def absence(self, _topic: str) -> str:
        return "UnknownTopicOrPartition"

    async def send(self, node: int, batches: Mapping[TopicPartition, bytes]) -> Failures:
        (place,) = batches
        if place.partition in self.silent:
            await asyncio.Event().wait()
        if place.partition in self.faults:
            failure = self.faults[place.partition]()
            raise failure
        codes = self.codes.get(place.partition)
        answer = asyncio.ensure_future(super().send(node, batches))
        await asyncio.sleep(0)
        self.broker.answer(codes.pop(0) if codes else 0)
        return await answer


class Topic:
    """A topic of side records that is being sent, and what became of them."""

    def __init__(self, partitions: int = 8) -> None:
        self.broker = SequencedBroker()
        self.cluster = Cluster(self.broker, partitions)
        self.topic = AuxiliaryTopic(NAME, "status.v1", asyncio.Event(), time.time_ns, 64 << 10)
        self._sent = 0

    def put(self, key: bytes, size_bytes: int = 0) -> None:
        self._sent += 1
        value = orjson.dumps({"sequence": self._sent, "key": key.decode(), "x": "x" * size_bytes})
        self.topic.put(AuxiliaryRecord(NAME, "status.v1", key, value, 1))

    def of(self, partition: int) -> list[int]:
        log = self.broker.log.get(TopicPartition(NAME, partition), [])
        return [number for _, number in log]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.topic.run(cast("ProduceClient", self.cluster)))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary_topic, "BACKOFF", Backoff(0.01, 0.02, floor_s=0.01))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


KEYS = {partition_of_key(b"key%d" % number, 8): b"key%d" % number for number in range(100)}


@pytest.mark.rows("I7")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: type(one()).__name__)
async def test_a_dead_partition_holds_its_own_records_alone(fault: Callable[[], Exception]) -> None:
    topic = Topic()
    topic.cluster.faults[3] = fault
    async with topic.running():
        for _ in range(20):
            for key in KEYS.values():
                topic.put(key)
        await until(lambda: topic.topic.acked == 7 * 20)
        await until(lambda: topic.topic.reasons)
        assert topic.topic.reasons.keys() == {3}
        assert len(topic.topic) == 20
        topic.cluster.faults.clear()
        await until(lambda: not len(topic.topic))
    assert topic.topic.reasons == {}
    assert [len(topic.of(partition)) for partition in range(8)] == [20] * 8
    assert topic.of(3) == sorted(topic.of(3))
    assert (topic.topic.dropped, topic.topic.refused) == (0, 0)


@pytest.mark.rows("I7")
async def test_a_partition_without_an_answer_holds_no_other() -> None:
    topic = Topic()
    topic.cluster.silent.add(5)

    def has_acked(records: int) -> bool:
        return topic.topic.acked == records

    async with topic.running():
        for turn in range(1, 6):
            for key in KEYS.values():
                topic.put(key)
            await until(partial(has_acked, 7 * turn))
    topic.cluster.silent.clear()
    async with topic.running():
        await until(lambda: not len(topic.topic))
    assert topic.of(5) == sorted(topic.of(5))
    assert len({*topic.of(5)}) == 5


async def test_the_partition_that_holds_most_pays_for_a_full_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auxiliary_topic, "SIDE_BYTES_MAX", 20_000)
    topic = Topic()
    topic.cluster.silent.add(2)
    async with topic.running():
        topic.put(KEYS[0])
        await until(lambda: topic.topic.acked == 1)  # the partitions are known
        for _ in range(100):
            topic.put(KEYS[2], 1_000)
        full = topic.topic.dropped
        assert 80 <= full <= 82
        for partition in (0, 1, 3, 4, 5, 6, 7):
            topic.put(KEYS[partition], 1_000)
        await until(lambda: topic.topic.acked == 8)
        assert len(topic.topic) + topic.topic.dropped == 100


async def test_records_are_dealt_anew_when_the_partitions_change() -> None:
    topic = Topic(0)
    async with topic.running():
        for number in range(40):
            topic.put(b"key%d" % (number % 10))
        await until(lambda: topic.topic.reasons == {0: "UnknownTopicOrPartition"})
        for count in (4, 8, 2):
            topic.cluster.silent = {0}
            topic.cluster.count = count
            for number in range(40):
                topic.put(b"key%d" % (number % 10))
            await asyncio.sleep(0.02)
            topic.cluster.silent = set()
        # What was sent to a partition that is gone has no answer: the next run sends it again.
    async with topic.running():
        await until(lambda: not len(topic.topic))
    assert topic.topic.acked == 160
    assert topic.topic.reasons == {}


@pytest.mark.rows("K8")
async def test_a_record_that_is_refused_for_itself_is_found() -> None:
    topic = Topic(1)
    topic.broker.poison = {5}
    async with topic.running():
        for _ in range(10):
            topic.put(b"key")
        await until(lambda: not len(topic.topic))
    assert (topic.topic.acked, topic.topic.refused) == (9, 1)
    assert topic.of(0) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


async def test_what_can_never_be_made_ends_as_refused(
    monkeypatch: pytest.MonkeyPatch, expected_bugs: dict[str, int]
) -> None:
    topic = Topic(1)
    build = topic.cluster.build

    def raising(numbering: Any, records: Any, headers: Any, bytes_max: int) -> Any:
        if any(b'"key":"odd"' in value for _, value, _, _ in records):
            raise ArithmeticError("odd")
        return build(numbering, records, headers, bytes_max)

    monkeypatch.setattr(topic.cluster, "build", raising)
    async with topic.running():
        for key in (b"good", b"odd", b"good"):
            topic.put(key)
        await until(lambda: not len(topic.topic))
    assert topic.of(0) == [1, 3]
    assert topic.topic.refused == 1
    expected_bugs["partition"] = 5  # once with its neighbors, and until it is given up


async def test_a_batch_that_is_refused_is_tried_record_by_record() -> None:
    topic = Topic(1)
    topic.cluster.codes[0] = [TOO_LARGE]  # of a batch: its records are tried one by one
    async with topic.running():
        for _ in range(3):
            topic.put(b"key")
        await until(lambda: not len(topic.topic))
    assert topic.of(0) == [1, 2, 3]
    assert topic.topic.acked == 3
