"""A life over its time: partitions that begin anew, other producers, renewal, sleep."""

from __future__ import annotations

import asyncio
import uuid

import numpy as np
import pytest
from aiokafka import errors

from ingestor.kafka.fencing import fence
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.life import Life
from ingestor.sinks.kafka.produce_request import Batches, Failures, ProduceClient
from tests.fakes.rows import MAKERS, Ledger, by_key, trades
from tests.kafka.broker import KafkaEndpoint
from tests.kafka.lives import (
    client_of,
    complete,
    ends,
    life_name,
    places_of,
    sink_of,
    submit_everywhere,
    ticks_of,
    until,
)
from tests.kafka.test_flights import by_key_of
from tests.kafka.test_sink import TABLE, feed, read, running


async def test_partitions_begin_anew_without_leaving_the_fence_behind(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of partitions that began anew come from Kafka: a fence is above each of them."""
    servers, ledger, life = kafka.bootstrap_servers, Ledger(), life_name()
    sink = sink_of(servers, ledger, life, f"t{uuid.uuid4().hex}.", retry_backoff_ms=10)
    send, lost = ProduceClient.send, 0

    async def losing(produce: ProduceClient, node: int, batches: Batches) -> Failures:
        """Every other batch was refused for good, so that its numbers are used up."""
        nonlocal lost
        unlucky = set(list(batches)[:: 2 if lost < 30 else 10_000][: 30 - lost])
        lost += len(unlucky)
        rest = {place: batch for place, batch in batches.items() if place not in unlucky}
        answered = await send(produce, node, rest) if rest else {}
        return answered | {place: errors.OutOfOrderSequenceNumber() for place in unlucky}

    monkeypatch.setattr(ProduceClient, "send", losing)
    async with client_of(servers) as client, running(sink):
        submitted = 0
        for first in range(1, 20_000, 1_000):
            submitted += submit_everywhere(sink, first)
            assert await sink.drain(30) == 0
        assert lost == 30
        assert not sink.producer_resets
        await fence(client, life, places_of(sink))
        before = await ends(servers, ticks_of(sink))
        submitted += submit_everywhere(sink, 100_000)
        await until(lambda: sink.has_ended)
        assert await ends(servers, ticks_of(sink)) == before
    assert ledger.unexplained(submitted, 0) == 0
    assert await complete(sink)
    for row_class in MAKERS:
        read_rows = by_key(await read(sink, row_class))
        kept = [rows for kept_class, rows in ledger.kept if kept_class is row_class]
        if row_class.is_compacted:  # the last row of each instrument is left, or more
            numbers = np.concatenate(kept)["instrument"].tolist()
            assert read_rows.keys() == {TABLE[number].key for number in numbers}
        else:
            assert sum(map(len, read_rows.values())) == sum(map(len, kept))


async def test_a_producer_that_is_replaced_goes_on_with_its_life(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, ledger, life = kafka.bootstrap_servers, Ledger(), life_name()
    sink, send, refuses = (
        sink_of(servers, ledger, life, f"t{uuid.uuid4().hex}."),
        ProduceClient.send,
        0,
    )

    async def refusing(produce: ProduceClient, node: int, batches: Batches) -> Failures:
        """The producer is refused, everywhere."""
        nonlocal refuses
        if not refuses:
            return await send(produce, node, batches)
        refuses -= 1
        return {place: errors.ClusterAuthorizationFailedError() for place in batches}

    monkeypatch.setattr(ProduceClient, "send", refusing)
    async with client_of(servers) as client, running(sink):
        submitted = submit_everywhere(sink, 1)
        assert await sink.drain(30) == 0
        for times in (1, 2):
            refuses = 1
            submitted += submit_everywhere(sink, times * 1_000)
            assert await sink.drain(30) == 0
            assert sink.producer_resets.total() == times
        assert ledger.counts == {"acked": submitted}
        await fence(client, life, places_of(sink))
        refuses = 1  # the producer that follows is refused before it has sent anything
        submitted += submit_everywhere(sink, 5_000)
        await until(lambda: sink.has_ended)
    assert ledger.unexplained(submitted, 0) == 0
    assert await complete(sink)


async def test_a_life_is_renewed_and_rows_stay_in_order(
    kafka: KafkaEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many times a second here, once in six hours else: no row is lost, repeated or late."""
    taken = []
    confirm = Life.confirm

    async def counted(life: Life) -> None:
        await confirm(life)
        taken.append(life)

    monkeypatch.setattr(Life, "confirm", counted)
    ledger, life, stop = Ledger(), life_name(), asyncio.Event()
    sink = sink_of(kafka.bootstrap_servers, ledger, life, f"t{uuid.uuid4().hex}.")
    sink.life = Life(life, renew_s=0.02)
    async with running(sink):
        feeding = asyncio.create_task(feed(sink, 5_000, stop))
        await asyncio.sleep(3)
        stop.set()
        submitted = await feeding
        assert await sink.drain(30) == 0
    assert len(taken) > 30
    assert ledger.counts == {"acked": submitted}
    assert not sink.producer_resets
    assert by_key(await read(sink, RowClass.TRADE)) == by_key_of(trades(submitted))


async def test_a_renewal_finds_out_that_the_life_is_over(kafka: KafkaEndpoint) -> None:
    """It has nothing to send, so no partition tells it."""
    servers, life = kafka.bootstrap_servers, life_name()
    sink = sink_of(servers, Ledger(), life, f"t{uuid.uuid4().hex}.")
    sink.life = Life(life, renew_s=0.1)
    async with client_of(servers) as client, running(sink):
        await fence(client, life, places_of(sink))
        await until(lambda: sink.has_ended)


async def test_a_life_in_doubt_asks_before_it_sends(kafka: KafkaEndpoint) -> None:
    """As one that slept for longer than partitions remember its fence."""
    servers, ledger, life = kafka.bootstrap_servers, Ledger(), life_name()
    now_s = [0.0]
    sink = sink_of(servers, ledger, life, f"t{uuid.uuid4().hex}.")
    sink.life = Life(life, monotonic_s=lambda: now_s[0])
    async with client_of(servers) as client, running(sink):
        submitted = submit_everywhere(sink, 1)
        assert await sink.drain(30) == 0
        now_s[0] = 86_400.0
        submitted += submit_everywhere(sink, 100)  # nobody fenced it: it goes on
        assert await sink.drain(30) == 0
        await fence(client, life, [])  # the id alone, as if all partitions had forgotten it
        now_s[0] *= 2
        before = await ends(servers, ticks_of(sink))
        submitted += submit_everywhere(sink, 200)
        await until(lambda: sink.has_ended)
        assert await ends(servers, ticks_of(sink)) == before
    assert ledger.counts == {"acked": submitted * 2 // 3, "fenced": submitted // 3}
