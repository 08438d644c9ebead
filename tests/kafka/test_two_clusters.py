"""Two clusters' topics on a real Kafka, read as one."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import numpy as np

from ingestor.consumer import EARLIEST, Consumer, TwoClusters
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Cause, Kind, Rows
from tests.fakes.rows import trades
from tests.kafka.broker import KafkaEndpoint
from tests.kafka.test_consumer import PARTITIONS, publish

ROWS = 20_000
INSTRUMENTS = 12
STEP_NS = 5_000_000


def line_of(line: int, lost: range) -> Rows:
    """What one cluster publishes: all but some trades, and a GAP of each instrument behind them."""
    rows = trades(ROWS, instruments=INSTRUMENTS)
    rows["ts_event"] += rows["sequence"].astype(np.int64) * STEP_NS
    rows["ts_recv"] = rows["ts_event"] + 1_000_000 * (1 + line)
    place = lost.stop - 1
    at_ns = int(rows["ts_recv"][place])
    gaps = [
        control_row(RowClass.TRADE, Kind.GAP, number, at_ns, cause=Cause.TAKEOVER)
        for number in range(INSTRUMENTS)
    ]
    return np.concatenate([rows[: lost.start - 1], *gaps, rows[place:]])


def whole(servers: str, topic: str) -> Consumer:
    return Consumer(servers, topic, start=EARLIEST, stop_at_end=True, is_ordered=True)


async def test_what_one_cluster_lost_the_other_has(kafka: KafkaEndpoint) -> None:
    """Each loses one second, at different times: 0 missing, 0 twice, 0 GAPs."""
    prefix = f"t{uuid.uuid4().hex}"
    servers = kafka.bootstrap_servers
    topics = [f"{prefix}.{name}.trades.v1" for name in "ab"]
    for topic in topics:
        kafka.create_topic(topic, PARTITIONS)
    lost = range(4_001, 4_201), range(12_001, 12_201)
    both = TwoClusters(
        *(
            Consumer(servers, topic, start=EARLIEST, stop_at_end=True, is_ordered=True)
            for topic in topics
        )
    )
    for line, topic in enumerate(topics):
        await publish(servers, topic, line_of(line, lost[line]), Counter())
    async with asyncio.timeout(60), both:
        batches = [batch.rows async for batch in both]
    rows = np.concatenate(batches)
    assert Counter(rows["sequence"].tolist()) == Counter(range(1, ROWS + 1))
    assert set(rows["kind"].tolist()) == {Kind.TRADE}
    assert both.filled == 2 * INSTRUMENTS
    assert both.duplicates == ROWS - 400
    ends = [sum(found.values()) for found in both.positions]
    assert ends == [ROWS - 200 + INSTRUMENTS] * 2


async def test_a_cluster_that_is_gone_costs_nothing(kafka: KafkaEndpoint) -> None:
    """One of them ends in the middle; what comes is that of the other."""
    prefix = f"t{uuid.uuid4().hex}"
    servers = kafka.bootstrap_servers
    topics = [kafka.create_topic(f"{prefix}.{name}.trades.v1", PARTITIONS) for name in "ab"]
    await publish(servers, topics[0], line_of(0, range(2, 3))[:9_000], Counter())
    await publish(servers, topics[1], line_of(1, range(2, 3)), Counter())
    both = TwoClusters(
        *(
            Consumer(servers, topic, start=EARLIEST, stop_at_end=True, is_ordered=True)
            for topic in topics
        )
    )
    async with asyncio.timeout(60), both:
        rows = np.concatenate([batch.rows async for batch in both])
    ticks = rows[rows["kind"] == Kind.TRADE]
    assert Counter(ticks["sequence"].tolist()) == Counter({*range(1, ROWS + 1)} - {2})
    gaps = rows[rows["kind"] == Kind.GAP]
    assert set(gaps["instrument"].tolist()) == set(range(INSTRUMENTS))  # both lost the second one
