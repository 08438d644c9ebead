"""Brokers that move, refuse, stall and lose their links: rows K of the matrix."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ingestor.consumer import EARLIEST, Consumer
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.testbed.broker import DevBroker
from tests.fakes.rows import MAKERS, Ledger, by_key, table_of, trades
from tests.faults.proxy import FaultProxy
from tests.faults.results import RowRecorder
from tests.kafka.broker import KafkaBroker, KafkaEndpoint
from tests.kafka.test_sink import TABLE, feed, running, sink_of, submit
from tests.kafka.three_brokers import ThreeBrokers

MOVES = 30
MESSAGE_BYTES_MAX = 65_536
MBIT_BYTES_PER_S = 125_000


class TimedLedger(Ledger):
    """A ledger that knows the longest time from submission to ack, by class of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.longest_s: dict[RowClass, float] = {}

    def acked(self, row_class: RowClass, rows: Rows, now_ns: int, since_ns: int) -> None:
        super().acked(row_class, rows, now_ns, since_ns)
        waited_s = (now_ns - since_ns) / 1e9
        self.longest_s[row_class] = max(self.longest_s.get(row_class, 0.0), waited_s)

    @property
    def worst_s(self) -> float:
        return max(self.longest_s.values(), default=0.0)


async def read_back(
    sink: KafkaSink, row_class: RowClass, void: int = 0
) -> tuple[list[TickBatch], int]:
    """Return the rows of a class's topic, each once, and how many records were there twice.

    void: numbers of records that are missing, since they were dead-lettered.
    """
    topic, servers = sink.settings.tick_topic(row_class), sink.settings.bootstrap_servers
    async with (
        asyncio.timeout(60),
        Consumer(servers, [topic], start=EARLIEST, stop_at_end=True) as consumer,
    ):
        batches = [batch async for batch in consumer]
        # Those at the end of a partition show no hole.
        assert sum(hole.last - hole.first + 1 for hole in consumer.holes) <= void
        return batches, sum(progress.duplicates for progress in consumer.progress.values())


async def assert_all_there(sink: KafkaSink, ledger: Ledger, submitted: int) -> int:
    """Every row was acked and is in the topic, in order; return how many records are twice."""
    assert ledger.counts == {"acked": submitted}
    batches, twice = await read_back(sink, RowClass.TRADE)
    assert by_key(batches) == by_key([TickBatch(RowClass.TRADE, trades(submitted), TABLE)])
    return twice


@pytest.mark.rows("K3")
async def test_thirty_leader_moves_lose_nothing(row: RowRecorder) -> None:
    """Three brokers of the embedded cluster; each move is noticed by a refusal."""
    ledger, stop = TimedLedger(), asyncio.Event()
    with DevBroker({"md.trades.v1": 3, "md.status.v1": 1}, brokers=3) as cluster:
        sink = sink_of(
            KafkaEndpoint(cluster.bootstrap_servers, "embedded"),
            ledger,
            topic_prefix="md.",
            create_topics=False,
            retry_backoff_ms=20,
        )
        async with running(sink):
            feeding = asyncio.create_task(feed(sink, 3_000, stop))
            leaders = itertools.cycle((2, 3, 1))
            for partition, _ in zip(itertools.cycle(range(3)), range(MOVES), strict=False):
                cluster.set_leader("md.trades.v1", partition, next(leaders))
                await asyncio.sleep(0.15)
            stop.set()
            submitted = await feeding
            assert await sink.drain(60) == 0
        twice = await assert_all_there(sink, ledger, submitted)
    row(
        "K3",
        promised="nothing lost, nothing twice",
        measured=f"{MOVES} moves, {submitted:,} rows: 0 lost, {twice} twice, "
        f"longest wait {ledger.worst_s:.2f} s (embedded broker)",
    )


@pytest.mark.rows("K3")
@pytest.mark.timeout(240)
@pytest.mark.long(minutes=2)
async def test_thirty_leader_moves_of_three_brokers_lose_nothing(
    kafka_tools: None, row: RowRecorder
) -> None:
    """Leaders of three real brokers, each a move to another one."""
    ledger, stop = TimedLedger(), asyncio.Event()
    with ThreeBrokers() as cluster:
        sink = sink_of(cluster, ledger, replication_factor=3, retry_backoff_ms=20)
        topic = sink.settings.tick_topic(RowClass.TRADE)
        async with running(sink):
            feeding = asyncio.create_task(feed(sink, 3_000, stop))
            started_s, leaders = time.monotonic(), cluster.leaders(topic)
            for partition, turn in zip(itertools.cycle(range(3)), range(MOVES), strict=False):
                leaders[partition] = leaders[partition] % 3 + 1
                await cluster.move_leader(topic, partition, leaders[partition])
                await asyncio.sleep(max(0.0, started_s + (turn + 1) * 0.5 - time.monotonic()))
            took_s = time.monotonic() - started_s
            stop.set()
            submitted = await feeding
            assert await sink.drain(60) == 0
        twice = await assert_all_there(sink, ledger, submitted)
        assert twice == 0
    row(
        "K3",
        promised="nothing lost, nothing twice",
        measured=f"{MOVES} moves of three brokers in {took_s:.0f} s, {submitted:,} rows: 0 lost, "
        f"{twice} twice, longest wait {ledger.worst_s:.2f} s",
    )


def too_large(table: InstrumentTable) -> Rows:
    """A trade whose record is above the topic's limit: its instrument has a very long name."""
    name = uuid.uuid4().hex + "X" * MESSAGE_BYTES_MAX
    rows = trades(1)
    rows["instrument"] = table.add(instrument("acme", "spot", name, "X-Y", "X", "Y", "1", "1"))
    return rows


def year_ahead(table: InstrumentTable) -> Rows:
    rows = trades(1)
    rows["ts_recv"] = time.time_ns() + 365 * 86_400 * 1_000_000_000
    return rows


@pytest.mark.rows("K8")
@pytest.mark.parametrize("bad", [too_large, year_ahead])
async def test_a_refused_record_costs_its_neighbors_and_other_topics_nothing(
    kafka: KafkaEndpoint, bad: Callable[[InstrumentTable], Rows], row: RowRecorder
) -> None:
    """Trades, quotes and books flow; every half second one trade is refused for ever."""
    table, ledger = table_of(), TimedLedger()
    prefix = f"t{uuid.uuid4().hex}."
    limits = {"max.message.bytes": str(MESSAGE_BYTES_MAX), "retention.ms": "-1"}
    kafka.create_topic(f"{prefix}trades.v1", 3, limits)
    sink = sink_of(kafka, ledger, topic_prefix=prefix, compression=None)
    sink = KafkaSink(sink.settings, table, ledger, session=uuid.uuid4().bytes)
    first = dict.fromkeys(MAKERS, 1)
    submitted = dict.fromkeys(MAKERS, 0)
    async with running(sink):
        for turn in range(100):
            for row_class, make in MAKERS.items():
                rows = make(20, first=first[row_class])
                first[row_class] += 20
                submitted[row_class] += len(rows)
                submit(sink, row_class, rows, table)
            if turn % 25 == 10:
                submit(sink, RowClass.TRADE, bad(table), table)
            await asyncio.sleep(0.02)
        assert await sink.drain(60) == 0
    counts = ledger.counts
    declared = counts["declared"]
    assert counts["dead_lettered"] >= 4
    assert counts["acked"] + counts["dead_lettered"] == sum(submitted.values()) + 4 + declared
    assert set(counts) == {"acked", "dead_lettered", "declared"}
    for row_class, make in MAKERS.items():
        void = counts["dead_lettered"] if row_class is RowClass.TRADE else 0
        batches, _ = await read_back(sink, row_class, void)
        ticks = [
            TickBatch(row_class, batch.rows[batch.rows["kind"] == row_class.id], batch.instruments)
            for batch in batches
        ]
        found, wanted = by_key(ticks), make(first[row_class] - 1)
        assert found == by_key([TickBatch(row_class, wanted, table)]), row_class
    others_s = max(ledger.longest_s[RowClass.QUOTE], ledger.longest_s[RowClass.LEVEL])
    row(
        "K8",
        promised="one record dead-lettered, neighbors delivered",
        measured=f"{bad.__name__.replace('_', ' ')}: other topics waited {others_s * 1e3:.0f} ms "
        f"at most, trades {ledger.longest_s[RowClass.TRADE] * 1e3:.0f} ms",
    )


# ------------------------------------------------------------------ the long suite


@pytest.fixture
def broker_behind(kafka_tools: None) -> Callable[..., Any]:
    """`async with broker_behind() as (proxy, broker)`: clients reach Apache Kafka by a proxy."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[FaultProxy, KafkaBroker]]:
        async with FaultProxy() as proxy:
            broker = KafkaBroker(advertised=proxy.address)
            proxy.target = broker.address
            try:
                await asyncio.to_thread(broker.start)
                yield proxy, broker
            finally:
                await asyncio.to_thread(broker.close)

    return make


@asynccontextmanager
async def link_under_load(
    behind: Callable[..., Any], rows_per_s: int, row: RowRecorder, row_id: str, what: str
) -> AsyncIterator[tuple[FaultProxy, KafkaSink, TimedLedger]]:
    """Feed a sink through a proxy while the caller spoils the link; then everything is there."""
    ledger, stop = TimedLedger(), asyncio.Event()
    async with behind() as (proxy, broker):
        sink = sink_of(broker, ledger, request_timeout_ms=8_000, encoding="binary")
        async with running(sink):
            feeding = asyncio.create_task(feed(sink, rows_per_s, stop))
            await asyncio.sleep(1)
            yield proxy, sink, ledger
            ended_s = time.monotonic()
            await asyncio.sleep(1)
            stop.set()
            submitted = await feeding
            assert await sink.drain(60) == 0
            caught_up_s = time.monotonic() - ended_s
        twice = await assert_all_there(sink, ledger, submitted)
    row(
        row_id,
        promised="nothing lost",
        measured=f"{what}: {submitted:,} rows, 0 lost, {twice} records twice, longest wait "
        f"{ledger.worst_s:.1f} s, all acked {caught_up_s:.1f} s after its end",
    )


@pytest.mark.long(minutes=3)
@pytest.mark.rows("K4")
@pytest.mark.parametrize("replies_only", [False, True])
async def test_a_link_that_holds_what_passes(
    broker_behind: Callable[..., Any], replies_only: bool, row: RowRecorder
) -> None:
    what = "replies held 20 s" if replies_only else "both ways held 30 s"
    async with link_under_load(broker_behind, 5_000, row, "K4", what) as (proxy, _, _):
        proxy.freeze(up=not replies_only)
        await asyncio.sleep(20 if replies_only else 30)
        proxy.thaw()


@pytest.mark.long(minutes=2)
@pytest.mark.rows("K4")
async def test_a_link_that_loses_what_passes(
    broker_behind: Callable[..., Any], row: RowRecorder
) -> None:
    """Half-open for 30 s, then reset: batches may have been taken whose answers were lost."""
    what = "both ways dropped 30 s"
    async with link_under_load(broker_behind, 5_000, row, "K4", what) as (proxy, _, _):
        proxy.drop()
        await asyncio.sleep(30)
        proxy.mend()


@pytest.mark.long(minutes=6)
@pytest.mark.rows("K7")
@pytest.mark.parametrize("rtt_s", [0.5, 3.0])
async def test_a_far_broker(
    broker_behind: Callable[..., Any], rtt_s: float, row: RowRecorder
) -> None:
    what = f"round trips of {rtt_s} s for 60 s"
    async with link_under_load(broker_behind, 2_000, row, "K7", what) as (proxy, sink, ledger):
        proxy.up.latency_s = proxy.down.latency_s = rtt_s / 2
        peak_bytes = 0
        for _ in range(600):
            await asyncio.sleep(0.1)
            peak_bytes = max(peak_bytes, sink.queue.bytes)
        assert peak_bytes < sink.queue.policy.budget.bytes_max // 4
        assert ledger.worst_s >= rtt_s  # the lag follows
        proxy.mend()


@pytest.mark.long(minutes=3)
@pytest.mark.rows("K7")
async def test_a_narrow_link(broker_behind: Callable[..., Any], row: RowRecorder) -> None:
    """1 Mbit/s: batches grow, and what comes still fits."""
    async with link_under_load(broker_behind, 500, row, "K7", "1 Mbit/s for 60 s") as (
        proxy,
        sink,
        _,
    ):
        proxy.up.bytes_per_s = proxy.down.bytes_per_s = MBIT_BYTES_PER_S
        peak_bytes = 0
        for _ in range(600):
            await asyncio.sleep(0.1)
            peak_bytes = max(peak_bytes, sink.queue.bytes)
        assert peak_bytes < sink.queue.policy.budget.bytes_max // 4
        proxy.mend()


@pytest.mark.long(minutes=3)
@pytest.mark.rows("K2")
async def test_a_broker_stopped_for_longer_than_a_request_may_take(
    private_kafka: KafkaBroker, row: RowRecorder
) -> None:
    ledger, stop = TimedLedger(), asyncio.Event()
    sink = sink_of(private_kafka, ledger, request_timeout_ms=20_000, encoding="binary")
    async with running(sink):
        feeding = asyncio.create_task(feed(sink, 10_000, stop))
        await asyncio.sleep(1)
        private_kafka.pause()
        await asyncio.sleep(45)
        private_kafka.resume()
        await asyncio.sleep(1)
        stop.set()
        submitted = await feeding
        assert await sink.drain(60) == 0
    twice = await assert_all_there(sink, ledger, submitted)
    row(
        "K2",
        promised="0 lost, order kept",
        measured=f"45 s at 10,000 rows/s: {submitted:,} rows, 0 lost, {twice} records twice",
    )
