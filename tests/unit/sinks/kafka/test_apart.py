"""Which partitions are set apart."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.apart import lanes_apart, trouble_of
from ingestor.sinks.kafka.in_flight import InFlightWindow
from ingestor.sinks.kafka.queue import PartitionQueue
from tests.fakes.rows import trades


def queued(rows: int = 1) -> tuple[PartitionQueue, InFlightWindow]:
    queue = PartitionQueue(RowClass.TRADE, 0)
    if rows:
        queue.put(trades(rows), 0)
    return queue, InFlightWindow(queue, TopicPartition("t", 0))


@pytest.mark.parametrize(
    ("is_own", "last_ack_s", "now_s", "is_apart"),
    [
        (True, -1e9, 11.9, False),  # refused, not for long
        (True, -1e9, 12.0, True),  # refused for long
        (False, -1e9, 60.0, False),  # nobody is taken: it is Kafka
        (False, 11.5, 12.5, True),  # others are
        (False, 10.5, 12.5, False),  # others were, when it began
        (False, 11.5, 17.0, False),  # others were, a while ago
    ],
)
def test_who_takes_nothing_while_others_do(
    is_own: bool, last_ack_s: float, now_s: float, is_apart: bool
) -> None:
    queue, window = queued()
    window.suffer(10.0, "why", is_own=is_own)
    assert lanes_apart({queue: window}, (), last_ack_s, now_s) == ({queue} if is_apart else set())


def test_who_was_found_stays_until_it_takes_something() -> None:
    queue, window = queued()
    window.miss(10.0, "why", is_own=False)
    assert lanes_apart({queue: window}, {queue}, -1e9, 10.1) == {queue}
    window.recover()
    assert trouble_of(window) is None
    assert not lanes_apart({queue: window}, {queue}, -1e9, 10.1)


def test_who_holds_nothing_is_not_missed() -> None:
    queue, window = queued(rows=0)
    window.suffer(10.0, "why", is_own=True)
    assert not lanes_apart({queue: window}, {queue}, -1e9, 60.0)
