"""Reading without `async`, also where a loop runs already, as in Jupyter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from ingestor import history
from ingestor.consumer import SyncConsumer, iterate
from ingestor.model.errors import SinkUnavailable
from ingestor.model.row_classes import RowClass
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import trades
from tests.kafka.broker import free_ports
from tests.unit.consumer.test_consumer import publish, values_of


def read_all(servers: str) -> list[int]:
    with SyncConsumer(servers, "md.trades.v1", start="earliest", stop_at_end=True) as consumer:
        found = [n for batch in consumer for n in batch.rows["sequence"].tolist()]
        assert consumer.positions == {("md.trades.v1", 0): 30}
        return found


async def test_inside_a_running_loop_and_outside() -> None:
    threads = threading.active_count()
    with DevBroker({"md.trades.v1": 1}) as broker:
        servers = broker.bootstrap_servers
        await publish(servers, "md.trades.v1", 0, values_of(RowClass.TRADE, trades(30)))
        wanted = list(range(1, 31))
        assert read_all(servers) == wanted  # this loop runs, as Jupyter's does
        assert await asyncio.to_thread(read_all, servers) == wanted
        topics = history.open(f"kafka://{servers}/md.", kinds=["trades"])
        assert sorted(n for one in topics for n in one.rows["sequence"].tolist()) == wanted
    assert threading.active_count() <= threads + 1  # that of `to_thread` stays


async def test_an_error_is_the_callers_and_leaves_no_thread() -> None:
    threads = threading.active_count()
    [port] = free_ports(1)
    with pytest.raises(SinkUnavailable), SyncConsumer(f"127.0.0.1:{port}", "md.trades.v1"):
        pass
    assert threading.active_count() == threads


def test_an_iterator_that_is_left_is_closed() -> None:
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(10):
                yield n
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    found = iterate(numbers)
    assert [next(found), next(found)] == [0, 1]
    found.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert list(iterate(numbers)) == list(range(10))
