"""What a member of a group does while partitions go to and fro; real rebalances: tests/kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from ingestor.consumer.merge import Supply
from ingestor.consumer.positions import Position
from ingestor.consumer.reader import PartitionReader
from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import trades
from tests.unit.consumer.test_consumer import publish, values_of

TOPIC = "md.trades.v1"
PARTITIONS = [TopicPartition(TOPIC, number) for number in range(2)]


@pytest.fixture
def servers() -> Iterator[str]:
    with DevBroker({TOPIC: 2, "other": 1}) as broker:
        yield broker.bootstrap_servers


async def test_partitions_that_are_lost_are_told_and_are_no_end(servers: str) -> None:
    await publish(servers, TOPIC, 1, values_of(RowClass.TRADE, trades(5)))
    lost: list[TopicPartition] = []
    reader = PartitionReader(
        servers, [TOPIC], Position(0), Position(None), on_lost=lost.append, options={}
    )
    async with asyncio.timeout(30):
        await reader.start()
        assert reader.ready == PARTITIONS
        assert (await reader.supplies())[PARTITIONS[0]] is Supply.ENDED
        await reader.on_partitions_revoked(PARTITIONS)
        assert lost == PARTITIONS
        assert reader.ready == []
        assert not reader.is_finished(await reader.supplies())
        assert await reader.poll(PARTITIONS, 10) == {}
        await reader.on_partitions_assigned(PARTITIONS[1:])
        assert reader.ready == PARTITIONS[1:]
        records = await reader.poll(reader.ready, 5_000)
        assert [one.offset for one in records[PARTITIONS[1]]] == [0, 1, 2, 3, 4]
        assert reader.is_finished(await reader.supplies())
        await reader.on_partitions_assigned([])  # more members than partitions
        assert reader.is_finished(await reader.supplies())
        await reader.stop()


async def test_a_failure_to_begin_is_the_readers(servers: str) -> None:
    reader = PartitionReader(servers, [TOPIC], Position(0), None, options={})
    await reader.start()
    await reader.on_partitions_assigned([TopicPartition("other", 0)])  # is not assigned
    with pytest.raises(IllegalStateError):
        await reader.poll(PARTITIONS, 10)
    await reader.stop()
