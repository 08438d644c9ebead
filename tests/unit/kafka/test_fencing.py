"""Fencing against the coordinator's rules: takers at once, requests and answers that are lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from aiokafka import TopicPartition, errors
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.kafka import fencing
from ingestor.kafka.fencing import fence
from ingestor.kafka.transactions import ProducerIdentity
from ingestor.model.backoff import Backoff
from ingestor.model.errors import FenceFailed
from tests.fakes.coordinator import Kafka

LIFE = "group.member.session"
PLACES = [TopicPartition("trades", number) for number in range(3)]
ABSENT = TopicPartition("trades", 3)
PASSING = (
    errors.RequestTimedOutError,
    errors.KafkaConnectionError,
    errors.NotCoordinatorForGroupError,
    errors.ConcurrentTransactions,
    ConnectionResetError,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "BACKOFF", Backoff(base_s=0.0, cap_s=0.0))
    monkeypatch.setattr(fencing, "GIVE_WAY", Backoff(base_s=0.001, cap_s=0.05))


async def begin(kafka: Kafka) -> ProducerIdentity:
    return await kafka.coordinator(None, LIFE).init_producer_id()


def is_fenced(kafka: Kafka, life: ProducerIdentity) -> bool:
    """Whether every partition has seen a later epoch, so that it refuses this one's batches."""
    return all(kafka.markers.get((place, life.producer_id), -1) > life.epoch for place in PLACES)


@pytest.mark.parametrize("takers", [1, 2, 5])
async def test_takers_at_once(monkeypatch: pytest.MonkeyPatch, takers: int) -> None:
    kafka = Kafka(PLACES)
    monkeypatch.setattr(fencing, "Coordinator", kafka.coordinator)
    life = await begin(kafka)
    await asyncio.gather(*(fence(None, LIFE, [*PLACES, ABSENT]) for _ in range(takers)))
    assert is_fenced(kafka, life)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), takers=st.integers(1, 4), share=st.floats(0, 0.6))
def test_whatever_fails_a_fence_that_returns_holds(seed: int, takers: int, share: float) -> None:
    chance = random.Random(seed)
    broken = True

    def fails() -> Exception | None:
        return chance.choice(PASSING)() if broken and chance.random() < share else None

    async def run() -> None:
        nonlocal broken
        kafka = Kafka(PLACES, fails)
        broken = False
        life = await begin(kafka)
        broken = True
        holds = []

        async def take() -> None:
            await fence(None, LIFE, PLACES)
            holds.append(is_fenced(kafka, life))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fencing, "Coordinator", kafka.coordinator)
            await asyncio.gather(*(take() for _ in range(takers)))
        assert holds == [True] * takers

    asyncio.run(run())


async def test_what_asking_again_does_not_change_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka(PLACES, errors.TransactionalIdAuthorizationFailed)
    monkeypatch.setattr(fencing, "Coordinator", kafka.coordinator)
    with pytest.raises(FenceFailed, match="could not be fenced: TransactionalIdAuthorization"):
        await fence(None, LIFE, PLACES)
    assert kafka.requests == 1


async def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka(PLACES, errors.KafkaConnectionError)
    monkeypatch.setattr(fencing, "Coordinator", kafka.coordinator)
    with pytest.raises(FenceFailed, match=r"KafkaConnection for 0\.05 s"):
        await fence(None, LIFE, PLACES, timeout_s=0.05)


async def test_a_topic_that_is_denied_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka(PLACES)
    made = kafka.coordinator(None, LIFE)

    async def denied(
        _producer: ProducerIdentity, _places: object
    ) -> dict[TopicPartition, errors.KafkaError]:
        return {
            PLACES[0]: errors.OperationNotAttempted(),
            PLACES[1]: errors.TopicAuthorizationFailedError(),
        }

    monkeypatch.setattr(made, "add_partitions", denied)
    monkeypatch.setattr(fencing, "Coordinator", lambda *_: made)
    with pytest.raises(FenceFailed, match="TopicAuthorizationFailed"):
        await fence(None, LIFE, PLACES)
