"""Several batches of a lane under way: order and completeness through every kind of failure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from ingestor.codec import encoder
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.backoff import Backoff
from ingestor.model.row_classes import RowClass
from ingestor.sinks.backpressure import Backpressure
from ingestor.sinks.kafka import in_flight as in_flight_module
from ingestor.sinks.kafka import refusals as refusals_module
from ingestor.sinks.kafka import sender as module
from ingestor.sinks.kafka.batch_maker import BatchMaker
from ingestor.sinks.kafka.clock_steps import ClockSteps
from ingestor.sinks.kafka.in_flight import InFlightBatch
from ingestor.sinks.kafka.overload import Budget
from ingestor.sinks.kafka.queue import PartitionQueue, PublishQueue
from ingestor.sinks.kafka.refusals import Refusals
from ingestor.sinks.kafka.sender import ProducerFailed, Sender
from tests.effort import tried
from tests.fakes.broker import (
    NOT_ENOUGH_AFTER_APPEND,
    NOT_LEADER,
    OUT_OF_ORDER,
    UNKNOWN_PRODUCER,
    Connection,
    SequencedBroker,
)
from tests.fakes.rows import Ledger, table_of, trades

TABLE = table_of(1)
TOPIC = "md.trades.v1"
FIRST = TopicPartition(TOPIC, 0)
LANES = 3


class Bench:
    """A sender between an outbox and a model broker, with the loop that replaces its producer."""

    def __init__(self, broker: SequencedBroker, max_batch_bytes: int = 512 << 10) -> None:
        self.broker = broker
        self.is_over = False
        self.ledger = Ledger()
        self.queue = PublishQueue(
            Budget(),
            self.ledger,
            Backpressure(),
        )
        self.submitted: Counter[int] = Counter()  # rows, by lane
        self.resets: Counter[str] = Counter()
        settings = KafkaSettings("", retry_backoff_ms=0, max_batch_bytes=max_batch_bytes)
        refusals = Refusals(ClockSteps(lambda: 0, lambda: 0), lambda: 0, self._dead_letter)
        encoding = encoder("json", TABLE, bytes(16))
        self.sender = Sender(
            settings,
            self.queue,
            self.ledger,
            BatchMaker(settings, encoding, {RowClass.TRADE: []}, refusals),
            clock=lambda: 0,
            monotonic=lambda: 0,
            progress=asyncio.Event(),
            refusals=refusals,
        )

    def submit(self, rows: int = 2, partition_queue: int = 0) -> None:
        """Queue rows in a lane, numbered from 1 on in each."""
        target = self.queue.partition_queue(RowClass.TRADE, partition_queue)
        first = self.submitted[partition_queue] + 1
        self.queue.put(target, trades(rows, first=first, instruments=1), 0)
        self.submitted[partition_queue] += rows
        self.sender.wake([target])

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not is_so():
                await asyncio.sleep(0)

    async def under_way(self, *requests: list[list[int]]) -> None:
        """Wait until these requests, and no others, wait for their answers."""
        await self.until(lambda: len(self.broker.requests) >= len(requests))
        await turns(20)
        assert self.broker.requests == list(requests)

    async def serve(self) -> None:
        while not self.is_over:  # a group that fails at that moment swallows the cancelling
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.Event().wait())
                    self.sender.start(self.broker.produce(), group)  # type: ignore[arg-type]
            except* ProducerFailed as failures:
                for one in failures.exceptions:
                    assert isinstance(one, ProducerFailed)
                    self.resets[type(one.failure).__name__] += 1
            finally:
                self.sender.stop()

    def assert_all_arrived(self, without: Sequence[int] = ()) -> None:
        """Each lane's rows are in the log in order, once for each producer, and in the ledger."""
        for partition_queue, rows in self.submitted.items():
            log = self.broker.log.get(TopicPartition(TOPIC, partition_queue), [])
            expected = [row for row in range(1, rows + 1) if row not in without]
            assert list(dict.fromkeys(row for _, row in log)) == expected
            for producer in {one for one, _ in log}:
                by_one = [row for one, row in log if one == producer]
                assert by_one == sorted(set(by_one))
        self.assert_settled(without)

    def assert_settled(self, without: Sequence[int] = ()) -> None:
        """Every row was acked or set aside, once."""
        acked = Counter(n for _, rows in self.ledger.kept for n in rows["sequence"].tolist())
        expected = Counter(row for rows in self.submitted.values() for row in range(1, rows + 1))
        for row in without:
            del expected[row]
        assert acked == expected
        assert self.ledger.unexplained(self.submitted.total(), 0) == 0
        assert (self.queue.rows, self.queue.rows_in_flight, self.queue.bytes) == (0, 0, 0)

    def _dead_letter(
        self, partition_queue: PartitionQueue, in_flight: InFlightBatch, _reason: str
    ) -> None:
        rows, _ = in_flight.settle()
        assert len(rows) == 1
        self.queue.settle(partition_queue, rows)
        self.ledger.dead_lettered(RowClass.TRADE, rows)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@asynccontextmanager
async def running(
    patch: pytest.MonkeyPatch, *, beside_s: float = 0.0, **options: Any
) -> AsyncIterator[Bench]:
    """A bench whose lanes start a batch beside one that has been under way for `beside_s`."""
    max_batch_bytes, is_known = (
        options.pop("max_batch_bytes", 512 << 10),
        options.pop("known", True),
    )
    broker = SequencedBroker(**options)
    patch.setattr(refusals_module, "BACKOFF", Backoff(base_s=0.0, cap_s=0.0))
    patch.setattr(module, "GRACE_S", 0.05)
    patch.setattr(in_flight_module, "BESIDE_S", beside_s)
    bench = Bench(broker, max_batch_bytes)
    serving = asyncio.create_task(bench.serve())
    await asyncio.sleep(0)
    try:
        if is_known:
            await make_known(bench)
        yield bench
    finally:
        bench.is_over = True
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def make_known(bench: Bench) -> None:
    """Let every partition have a batch of the producer, and forget it."""
    for partition_queue in range(LANES):
        bench.submit(partition_queue=partition_queue)
    await answer_all(bench)
    bench.submitted.clear()
    bench.ledger.counts.clear()
    bench.ledger.kept.clear()
    bench.broker.log.clear()


async def three_under_way(bench: Bench) -> None:
    """Rows 1 and 2, 3 and 4, 5 and 6 of the first lane, in a batch each."""
    for requests in ([[[1, 2]]], [[[1, 2]], [[3, 4]]], [[[1, 2]], [[3, 4]], [[5, 6]]]):
        bench.submit()
        await bench.under_way(*requests)


async def test_batches_of_one_lane_are_under_way_together(patched: pytest.MonkeyPatch) -> None:
    async with running(patched) as bench:
        await three_under_way(bench)
        await answer_all(bench)
        bench.assert_all_arrived()
        assert bench.broker.under_way_peak == 3


async def test_there_are_no_more_than_the_broker_knows_again(patched: pytest.MonkeyPatch) -> None:
    async with running(patched) as bench:
        for _ in range(9):
            bench.submit()
            await turns(20)
        assert len(bench.broker.requests) == 5
        bench.broker.lose(taken=5)
        await bench.under_way([[1, 2]])
        await answer_all(bench)
        bench.assert_all_arrived()
        assert bench.broker.under_way_peak == 5


async def test_the_first_batch_of_a_producer_goes_alone(patched: pytest.MonkeyPatch) -> None:
    """The broker would take the second one where the first failed."""
    async with running(patched, known=False) as bench:
        for _ in range(3):
            bench.submit()
            await bench.under_way([[1, 2]])
        bench.broker.answer(NOT_LEADER)
        await bench.under_way([[1, 2]])
        bench.broker.answer()
        await bench.under_way([[3, 4, 5, 6]])
        bench.submit()
        await bench.under_way([[3, 4, 5, 6]], [[7, 8]])
        await answer_all(bench)
        bench.assert_all_arrived()


def test_a_lane_that_was_idle_begins_with_one_batch() -> None:
    partition_queue, connection = PartitionQueue(RowClass.TRADE, 0), Connection()
    one = in_flight_module.InFlightWindow(partition_queue, FIRST)
    beside = []
    for now_s in (1.0, 2.0, 3.0, 3.0 + 2 * in_flight_module.IDLE_S):
        in_flight = InFlightBatch(trades(1), 0, 0)
        one.in_flight_batches.append(in_flight)
        one.start(in_flight, connection, now_s)  # type: ignore[arg-type]
        partition_queue.put(trades(1), 0)
        beside.append(one.wait_s(connection, now_s + 1.0))  # type: ignore[arg-type]
        one.land(in_flight)
        one.drop(in_flight)
    assert beside == [None, 0.0, 0.0, None]


async def test_rows_gather_while_a_batch_is_young(patched: pytest.MonkeyPatch) -> None:
    async with running(patched, beside_s=3_600.0) as bench:
        for _ in range(4):
            bench.submit()
            await bench.under_way([[1, 2]])
        bench.broker.answer()
        await bench.under_way([[3, 4, 5, 6, 7, 8]])
        await answer_all(bench)
        bench.assert_all_arrived()


async def test_time_alone_starts_what_waits(patched: pytest.MonkeyPatch) -> None:
    async with running(patched, beside_s=0.01) as bench:
        bench.submit()
        await bench.under_way([[1, 2]])
        bench.submit()
        await bench.until(lambda: len(bench.broker.requests) == 2)
        assert bench.broker.requests == [[[1, 2]], [[3, 4]]]
        await answer_all(bench)
        bench.assert_all_arrived()


async def test_what_is_behind_a_refused_batch_is_sent_again_in_order(
    patched: pytest.MonkeyPatch,
) -> None:
    """The broker refuses the batches behind it too; that is no verdict, and nothing overtakes."""
    async with running(patched) as bench:
        await three_under_way(bench)
        bench.broker.answer(NOT_LEADER)
        bench.submit()
        await bench.under_way([[3, 4]], [[5, 6]])  # nothing new, and nothing again yet
        bench.broker.answer()
        bench.broker.answer()
        for again in ([[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]):
            await bench.under_way(again)  # one after another
            bench.broker.answer()
        await bench.until(lambda: not bench.queue.rows)
        bench.assert_all_arrived()
        assert not bench.resets


async def test_other_lanes_go_on_meanwhile(patched: pytest.MonkeyPatch) -> None:
    async with running(patched) as bench:
        await three_under_way(bench)
        bench.broker.answer(NOT_LEADER)
        bench.submit(partition_queue=1)
        await bench.under_way([[3, 4]], [[5, 6]], [[1, 2]])
        await answer_all(bench)
        bench.assert_all_arrived()


async def test_a_batch_that_is_there_although_it_failed(patched: pytest.MonkeyPatch) -> None:
    """Those behind it are acked before it is."""
    async with running(patched) as bench:
        await three_under_way(bench)
        bench.broker.answer(NOT_ENOUGH_AFTER_APPEND)
        bench.broker.answer()
        bench.broker.answer()
        await bench.under_way([[1, 2]])
        await answer_all(bench)
        bench.assert_all_arrived()
        assert not bench.resets


@pytest.mark.parametrize("taken", range(4))
async def test_a_lost_connection(patched: pytest.MonkeyPatch, taken: int) -> None:
    """However many of the three requests had arrived."""
    async with running(patched) as bench:
        await three_under_way(bench)
        bench.broker.lose(taken)
        bench.submit()
        for again in ([[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]):
            await bench.under_way(again)
            bench.broker.answer()
        await bench.until(lambda: not bench.queue.rows)
        bench.assert_all_arrived()
        assert not bench.resets


async def test_a_broker_that_is_away(patched: pytest.MonkeyPatch) -> None:
    async with running(patched) as bench:
        await three_under_way(bench)
        bench.broker.is_down = True
        bench.broker.lose(1)
        await turns(100)
        bench.broker.is_down = False
        await bench.under_way([[1, 2]])
        await answer_all(bench)
        bench.assert_all_arrived()


async def test_a_record_that_is_refused_for_ever_with_others_behind_it(
    patched: pytest.MonkeyPatch,
) -> None:
    """Row 4 costs itself alone: its batch is halved in epochs of their own, and those that were
    under way behind it come after. Neither the producer nor another lane is touched."""
    async with running(patched) as bench:
        bench.broker.poison = {4}
        await three_under_way(bench)
        bench.submit()
        await answer_all(bench)
        bench.assert_all_arrived(without=[4])
        assert bench.ledger.counts == {"acked": 7, "dead_lettered": 1}
        assert bench.sender.refused == {"MessageSizeTooLarge": 2}
        assert not bench.resets


@pytest.mark.parametrize("code", [OUT_OF_ORDER, UNKNOWN_PRODUCER])
async def test_the_oldest_batch_alone_is_judged(patched: pytest.MonkeyPatch, code: int) -> None:
    """A state that the broker has lost costs one epoch, not one for each batch under way."""
    async with running(patched) as bench:
        await three_under_way(bench)
        bench.broker.answer(code)
        bench.broker.answer(code)
        bench.broker.answer(code)
        await bench.until(lambda: bench.sender.refused.total() == 1)
        for again in ([[1, 2]], [[3, 4]], [[5, 6]]):
            await bench.under_way(again)
            bench.broker.answer()
        await bench.until(lambda: not bench.queue.rows)
        bench.assert_all_arrived()
        assert bench.sender.refused.total() == 1
        assert not bench.resets


async def test_batches_larger_than_allowed_are_divided(patched: pytest.MonkeyPatch) -> None:
    """The rest of a batch goes before what was queued after it, through failures too."""
    async with running(patched, max_batch_bytes=2_000) as bench:
        bench.sender.batches.row_bytes[RowClass.TRADE] = 1.0
        bench.submit(40)
        bench.submit(5)
        await bench.until(lambda: len(bench.broker.requests) > 2)
        bench.broker.answer(NOT_LEADER)
        await answer_all(bench)
        bench.assert_all_arrived()


async def answer_all(bench: Bench) -> None:
    """Take every request until nothing is left."""
    async with asyncio.timeout(60):
        while bench.queue.rows:
            if bench.broker.requests:
                bench.broker.answer()
            await turns(3)


FAULTS = st.one_of(
    st.tuples(st.just("answer"), st.just(0), st.just(7)),
    st.tuples(
        st.just("answer"),
        st.sampled_from([NOT_LEADER, NOT_ENOUGH_AFTER_APPEND, UNKNOWN_PRODUCER, OUT_OF_ORDER]),
        st.integers(1, 7),
    ),
    st.tuples(st.just("lose"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 30), st.just(0)),
)
SUBMITS = st.tuples(st.integers(0, LANES - 1), st.integers(1, 12), st.integers(0, 12))


async def scenario(
    submits: Sequence[tuple[int, int, int]],
    faults: Sequence[tuple[str, int, int]],
    poison: set[int],
    *,
    checks_order: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        options = {"checks_order": checks_order, "max_batch_bytes": 3_000, "known": False}
        async with running(patch, **options) as bench:
            bench.broker.poison = set(poison)
            feeding = asyncio.create_task(feed(bench, submits))
            for kind, number, partition_queues in faults:
                if kind == "wait":
                    await turns(number)
                elif kind == "lose":
                    bench.broker.lose(number)
                elif bench.broker.requests:
                    places = [
                        TopicPartition(TOPIC, n) for n in range(LANES) if partition_queues & 1 << n
                    ]
                    bench.broker.answer(number, places)
                await turns(2)
            await feeding
            await answer_all(bench)
            lost = [
                row
                for partition_queue in bench.submitted
                for row in poisoned(bench, partition_queue)
            ]
            if checks_order and not lost:
                bench.assert_all_arrived()
            elif checks_order:
                assert_arrived_without(bench)
            else:
                bench.assert_settled()
            assert bench.broker.under_way_peak <= 5


def poisoned(bench: Bench, partition_queue: int) -> list[int]:
    return [row for row in bench.broker.poison if row <= bench.submitted[partition_queue]]


def assert_arrived_without(bench: Bench) -> None:
    """As `assert_all_arrived`, where the same number is poison in every lane that has it."""
    poison = sum(len(poisoned(bench, partition_queue)) for partition_queue in bench.submitted)
    assert bench.ledger.counts["dead_lettered"] == poison
    assert bench.ledger.unexplained(bench.submitted.total(), 0) == 0
    for partition_queue, rows in bench.submitted.items():
        log = bench.broker.log.get(TopicPartition(TOPIC, partition_queue), [])
        expected = [row for row in range(1, rows + 1) if row not in bench.broker.poison]
        assert list(dict.fromkeys(row for _, row in log)) == expected


POISON = st.sets(st.integers(1, 40), max_size=2)


async def feed(bench: Bench, submits: Sequence[tuple[int, int, int]]) -> None:
    for partition_queue, rows, pause in submits:
        bench.submit(rows, partition_queue)
        await turns(pause)


@tried(60, 3_000)
@given(st.lists(SUBMITS, min_size=1, max_size=25), st.lists(FAULTS, max_size=30))
def test_order_holds_through_any_failures(
    submits: list[tuple[int, int, int]], faults: list[tuple[str, int, int]]
) -> None:
    asyncio.run(scenario(submits, faults, set(), checks_order=True))


@tried(25, 1_000)
@given(st.lists(SUBMITS, min_size=1, max_size=15), st.lists(FAULTS, max_size=20), POISON)
def test_order_holds_around_records_that_are_refused_for_ever(
    submits: list[tuple[int, int, int]], faults: list[tuple[str, int, int]], poison: set[int]
) -> None:
    asyncio.run(scenario(submits, faults, poison, checks_order=True))


@tried(25, 1_000)
@given(st.lists(SUBMITS, min_size=1, max_size=25), st.lists(FAULTS, max_size=30))
def test_nothing_is_lost_where_the_broker_checks_no_order(
    submits: list[tuple[int, int, int]], faults: list[tuple[str, int, int]]
) -> None:
    asyncio.run(scenario(submits, faults, set(), checks_order=False))
