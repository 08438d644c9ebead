"""The epochs of a life: in order, shared, and refused once it is over."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition, errors

from ingestor.kafka import fencing
from ingestor.kafka.fencing import fence
from ingestor.kafka.transactions import EPOCH_MAX
from ingestor.model.backoff import Backoff
from ingestor.sinks.kafka import life as life_module
from ingestor.sinks.kafka.life import Life, LifeEnded
from tests.fakes.coordinator import Kafka

NAME = "group.member.session"
PLACES = [TopicPartition("trades", 0)]


class Bench:
    def __init__(self) -> None:
        self.failures: list[Exception | None] = []
        self.kafka = Kafka(PLACES, lambda: self.failures.pop(0) if self.failures else None)
        self.now_s = 0.0
        self.life = Life(NAME, monotonic_s=lambda: self.now_s, doubt_s=100.0, renew_s=0.01)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(life_module, "Coordinator", made.kafka.coordinator)
    monkeypatch.setattr(fencing, "Coordinator", made.kafka.coordinator)
    monkeypatch.setattr(fencing, "BACKOFF", Backoff(base_s=0.0, cap_s=0.0))
    monkeypatch.setattr(fencing, "GIVE_WAY", Backoff(base_s=0.001, cap_s=0.05))
    return made


async def test_producers_follow_one_another_in_one_name(bench: Bench) -> None:
    first = await bench.life.begin(None)
    second = await bench.life.begin(None)
    assert first.producer_id == second.producer_id
    assert (first.epoch, second.epoch) == (0, 1)


async def test_partitions_that_begin_anew_at_once_share_an_epoch(bench: Bench) -> None:
    await bench.life.begin(None)
    before = bench.kafka.requests
    taken = await asyncio.gather(*(bench.life.epoch_above(0) for _ in range(20)))
    assert taken == [1] * 20
    assert bench.kafka.requests - before == 2  # one request, one answer
    assert await bench.life.epoch_above(1) == 2


async def test_an_answer_that_is_lost_costs_nothing(bench: Bench) -> None:
    await bench.life.begin(None)
    bench.failures = [None, errors.RequestTimedOutError()]  # taken, and not heard of
    assert await bench.life.epoch_above(0) == 1


@pytest.mark.parametrize("ask", ["begin", "epoch_above", "confirm"])
async def test_a_fenced_life_is_over(bench: Bench, ask: str) -> None:
    await bench.life.begin(None)
    await fence(None, NAME, PLACES)
    arguments = {"begin": (None,), "epoch_above": (0,), "confirm": ()}[ask]
    with pytest.raises(LifeEnded, match="fenced"):
        await getattr(bench.life, ask)(*arguments)


async def test_an_answer_lost_to_a_fence_is_no_epoch(bench: Bench) -> None:
    """Its request was taken, the fence came, and the same request comes again."""
    await bench.life.begin(None)
    bench.failures = [None, errors.RequestTimedOutError()]
    coordinator = bench.kafka.coordinator(None, NAME)
    with pytest.raises(errors.RequestTimedOutError):
        await coordinator.init_producer_id(bench.life._taken)
    await fence(None, NAME, PLACES)
    with pytest.raises(LifeEnded, match="fenced"):
        await bench.life.epoch_above(0)


async def test_a_name_that_kafka_has_forgotten_ends_the_life(bench: Bench) -> None:
    await bench.life.begin(None)
    bench.kafka.ids.clear()
    with pytest.raises(LifeEnded, match="forgotten by Kafka"):
        await bench.life.confirm()


async def test_epochs_run_out(bench: Bench) -> None:
    await bench.life.begin(None)
    bench.kafka.ids[NAME].epoch = EPOCH_MAX
    bench.life._taken = type(bench.life._taken)(1, EPOCH_MAX)
    with pytest.raises(LifeEnded, match="no epochs are left"):
        await bench.life.epoch_above(EPOCH_MAX)


async def test_doubt_comes_with_time_and_goes_with_an_answer(bench: Bench) -> None:
    assert bench.life.in_doubt
    await bench.life.begin(None)
    assert not bench.life.in_doubt
    bench.now_s = 100.1
    assert bench.life.in_doubt
    await bench.life.confirm()
    assert not bench.life.in_doubt


async def test_renewal_goes_on_through_refusals_until_the_end(bench: Bench) -> None:
    await bench.life.begin(None)
    keeping = asyncio.create_task(bench.life.keep())
    bench.failures = [errors.TransactionalIdAuthorizationFailed()]
    async with asyncio.timeout(10):
        while bench.kafka.ids[NAME].epoch < 3:
            await asyncio.sleep(0.005)
        await fence(None, NAME, PLACES)
        with pytest.raises(LifeEnded):
            await keeping
