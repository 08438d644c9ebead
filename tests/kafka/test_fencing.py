"""A life that was fenced publishes nothing more: against Apache Kafka, with real sinks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from aiokafka import TopicPartition

from ingestor.codec.json_decoder import position
from ingestor.consumer import EARLIEST, Consumer
from ingestor.kafka.fencing import fence, persist
from ingestor.kafka.settings import STATUS
from ingestor.kafka.transactions import Coordinator
from ingestor.model.errors import FenceFailed
from ingestor.model.row_classes import RowClass
from ingestor.sinks.kafka.sink import KafkaSink
from tests.fakes.rows import Ledger, trades
from tests.faults.proxy import FaultProxy
from tests.kafka.broker import SASL_PASSWORD, SASL_USER, KafkaBroker, KafkaEndpoint
from tests.kafka.lives import (
    PARTITIONS,
    SASL,
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
from tests.kafka.test_sink import feed, running, submit


async def behind(proxy: FaultProxy, stack: AsyncExitStack) -> KafkaBroker:
    """Start a broker that sends clients to a proxy, but for those of its SASL listener.

    Its own requests, which carry the markers, go over the SASL listener too.
    """
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    own = f'username="{SASL_USER}" password="{SASL_PASSWORD}" user_{SASL_USER}="{SASL_PASSWORD}"'
    overrides = {
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{login} {own};",
    }
    broker = KafkaBroker(overrides, advertised=proxy.address, sasl=True)
    stack.callback(broker.close)
    proxy.target = broker.address
    await asyncio.to_thread(broker.start)
    return broker


async def test_a_fenced_life_is_refused_in_every_partition(kafka: KafkaEndpoint) -> None:
    servers, ledger, life = kafka.bootstrap_servers, Ledger(), life_name()
    prefix, told = f"t{uuid.uuid4().hex}.", []
    sink = sink_of(servers, ledger, life, prefix)
    sink.on_fenced = lambda: told.append(sink.queue.rows)
    async with client_of(servers) as client, running(sink):
        submitted = submit_everywhere(sink, 1)
        assert await sink.drain(30) == 0
        await fence(client, life, places_of(sink))
        before = await ends(servers, ticks_of(sink))
        # Each lane for itself: whichever is refused first ends the life.
        submitted += submit_everywhere(sink, 100)
        await until(lambda: sink.has_ended)
        assert await ends(servers, ticks_of(sink)) == before
        assert told == [0]
        submitted += submit_everywhere(sink, 200)  # its owner has not heard of it yet
        sink.publish(STATUS, None, b"{}", ts_ms=time.time_ns() // 1_000_000)
        assert await sink.drain(5) == 0
    assert ledger.counts["acked"] + ledger.counts["fenced"] == submitted
    assert ledger.counts["fenced"] == submitted * 2 // 3
    assert ledger.unexplained(submitted, 0) == 0
    assert not sink.producer_resets
    assert sink.side.topics[sink.settings.topic(STATUS)].fenced == 1
    assert "fenced" in (sink.failure or "")
    assert not sink.is_up


async def test_each_partition_refuses_by_itself(kafka: KafkaEndpoint) -> None:
    """For each partition a life that writes to it alone once it is fenced."""
    servers, prefix, refused = kafka.bootstrap_servers, f"t{uuid.uuid4().hex}.", set()
    async with client_of(servers) as client:
        for instrument in range(12):
            ledger, life = Ledger(), life_name()
            sink = sink_of(servers, ledger, life, prefix)
            async with running(sink):
                rows = trades(8)
                rows["instrument"] = instrument
                submit(sink, RowClass.TRADE, rows)
                assert await sink.drain(30) == 0
                await fence(client, life, places_of(sink))
                submit(sink, RowClass.TRADE, rows)
                await until(partial(getattr, sink, "has_ended"))
                refused.add(sink.position(RowClass.TRADE, instrument)["partition"])
            assert ledger.counts == {"acked": 8, "fenced": 8}
    everywhere = {sink.position(RowClass.TRADE, one)["partition"] for one in range(12)}
    assert refused == everywhere
    assert len(refused) > 1


async def test_a_side_topic_is_refused_too(kafka: KafkaEndpoint) -> None:
    servers, ledger, life = kafka.bootstrap_servers, Ledger(), life_name()
    sink = sink_of(servers, ledger, life, f"t{uuid.uuid4().hex}.")
    async with client_of(servers) as client, running(sink):
        sink.publish(STATUS, None, b'{"a":1}', ts_ms=time.time_ns() // 1_000_000)
        await until(lambda: sink.side.acked[sink.settings.topic(STATUS)] == 1)
        await fence(client, life, places_of(sink))
        sink.publish(STATUS, None, b'{"a":2}', ts_ms=time.time_ns() // 1_000_000)
        await until(lambda: sink.has_ended)
    assert sink.side.outcomes()[sink.settings.topic(STATUS), "fenced"] == 1


async def sessions_of(
    sink: KafkaSink, row_class: RowClass, **security: Any
) -> dict[int, list[str]]:
    """The sessions of a topic's records in their order, by partition."""
    found: dict[int, list[str]] = {}
    topic = sink.settings.tick_topic(row_class)
    options: dict[str, Any] = {"start": EARLIEST, "stop_at_end": True, **security}
    async with Consumer(sink.settings.bootstrap_servers, [topic], **options) as consumer:
        async for place, _, value in consumer.records():
            found.setdefault(place.partition, []).append(position(value)[0].hex())
    return found


def late_records(sessions: dict[int, list[str]], old: KafkaSink, new: KafkaSink) -> int:
    """How many records of the old life come after the first one of the new."""
    late = 0
    for of_partition in sessions.values():
        ours = new.session.hex()
        if ours in of_partition:
            late += of_partition[of_partition.index(ours) :].count(old.session.hex())
    return late


async def declare(old: KafkaSink, new: KafkaSink) -> None:
    """Do what the next life does about the numbers of the one before."""
    for text in old.voids:
        new.publish(STATUS, None, text, ts_ms=time.time_ns() // 1_000_000)
    assert await new.drain(30) == 0


async def test_no_row_of_the_old_life_comes_after_the_first_of_the_next(
    kafka: KafkaEndpoint,
) -> None:
    servers, prefix = kafka.bootstrap_servers, f"t{uuid.uuid4().hex}."
    ledgers, life, stop = (Ledger(), Ledger()), life_name(), asyncio.Event()
    old = sink_of(servers, ledgers[0], life, prefix)
    new = sink_of(servers, ledgers[1], life_name(), prefix)
    async with client_of(servers) as client, running(old), running(new):
        feeding = asyncio.create_task(feed(old, 5_000, stop))
        await until(lambda: ledgers[0].counts["acked"] > 2_000)
        await fence(client, life, places_of(old))
        submit(new, RowClass.TRADE, trades(3_000, first=1_000_000))
        assert await new.drain(30) == 0
        await until(lambda: old.has_ended)
        stop.set()
        submitted = await feeding
        await declare(old, new)
    assert ledgers[0].unexplained(submitted, 0) == 0
    assert ledgers[0].counts["fenced"] > 0
    sessions = await sessions_of(new, RowClass.TRADE)
    assert {len(set(one)) for one in sessions.values()} == {2}
    assert late_records(sessions, old, new) == 0
    assert await complete(new)


async def test_a_request_on_its_way_is_refused_when_it_arrives(
    kafka_tools: None,
) -> None:
    """A worker is cut off from Kafka with requests under way; they arrive after the takeover."""
    async with FaultProxy() as proxy, AsyncExitStack() as stack:
        broker = await behind(proxy, stack)
        prefix, ledgers, life = f"t{uuid.uuid4().hex}.", (Ledger(), Ledger()), life_name()
        stop, servers = asyncio.Event(), broker.sasl_bootstrap_servers
        old = sink_of(proxy.address, ledgers[0], life, prefix)
        new = sink_of(servers, ledgers[1], life_name(), prefix, security=SASL)
        async with running(old), running(new), client_of(servers, **SASL) as client:
            feeding = asyncio.create_task(feed(old, 5_000, stop))
            await until(lambda: ledgers[0].counts["acked"] > 2_000)
            proxy.freeze(up=True, down=False)
            await until(lambda: old.queue.rows_in_flight > 0 and old.queue.rows > 1_000)
            under_way = old.queue.rows_in_flight
            await fence(client, life, places_of(old))
            submit(new, RowClass.TRADE, trades(3_000, first=1_000_000))
            assert await new.drain(30) == 0
            assert not old.has_ended
            acked = ledgers[0].counts["acked"]
            proxy.thaw()
            await until(lambda: old.has_ended)
            stop.set()
            submitted = await feeding
            await declare(old, new)
            sessions = await sessions_of(new, RowClass.TRADE, **SASL)
            assert await complete(new, **SASL)
    assert under_way > 0
    assert ledgers[0].counts["acked"] == acked
    assert ledgers[0].unexplained(submitted, 0) == 0
    assert late_records(sessions, old, new) == 0


async def test_without_a_fence_the_same_request_gets_in(
    kafka_tools: None,
) -> None:
    """What the fence is for: else the rows of the old life come after those of the next one."""
    async with FaultProxy() as proxy, AsyncExitStack() as stack:
        broker = await behind(proxy, stack)
        prefix, ledgers = f"t{uuid.uuid4().hex}.", (Ledger(), Ledger())
        servers = broker.sasl_bootstrap_servers
        old = sink_of(proxy.address, ledgers[0], life_name(), prefix)
        new = sink_of(servers, ledgers[1], life_name(), prefix, security=SASL)
        async with running(old), running(new):
            submit(old, RowClass.TRADE, trades(100))
            assert await old.drain(30) == 0
            proxy.freeze(up=True, down=False)
            submit(old, RowClass.TRADE, trades(100, first=101))
            await until(lambda: old.queue.rows_in_flight > 0)
            submit(new, RowClass.TRADE, trades(3_000, first=1_000_000))
            assert await new.drain(30) == 0
            proxy.thaw()
            assert await old.drain(30) == 0
            sessions = await sessions_of(new, RowClass.TRADE, **SASL)
    assert late_records(sessions, old, new) > 0


async def test_two_takers_at_once_do_no_harm(kafka: KafkaEndpoint) -> None:
    servers, ledger, life = kafka.bootstrap_servers, Ledger(), life_name()
    sink = sink_of(servers, ledger, life, f"t{uuid.uuid4().hex}.")
    async with client_of(servers) as one, client_of(servers) as other, running(sink):
        submitted = submit_everywhere(sink, 1)
        assert await sink.drain(30) == 0
        places = places_of(sink)
        await asyncio.gather(*(fence(client, life, places) for client in (one, other) * 3))
        before = await ends(servers, ticks_of(sink))
        submitted += submit_everywhere(sink, 100)
        await until(lambda: sink.has_ended)
        assert await ends(servers, ticks_of(sink)) == before
    assert ledger.unexplained(submitted, 0) == 0
    assert ledger.counts["acked"] == ledger.counts["fenced"]


async def test_a_fence_outlives_the_broker_and_waits_for_it(
    kafka_factory: Callable[..., KafkaBroker],
) -> None:
    """SIGKILL before the fence, which waits for the broker; and after it, which it outlives."""
    broker = await asyncio.to_thread(kafka_factory)
    servers, ledger, life = broker.bootstrap_servers, Ledger(), life_name()
    sink = sink_of(servers, ledger, life, f"t{uuid.uuid4().hex}.")
    async with client_of(servers) as client, running(sink):
        submitted = submit_everywhere(sink, 1)
        assert await sink.drain(30) == 0
        await asyncio.to_thread(broker.kill)
        fencing = asyncio.create_task(fence(client, life, places_of(sink)))
        await asyncio.sleep(1.0)
        assert not fencing.done()
        await asyncio.to_thread(broker.start)
        await fencing
        await asyncio.to_thread(broker.kill)
        submitted += submit_everywhere(sink, 100)
        await asyncio.to_thread(broker.start)
        await until(lambda: sink.has_ended, 60)
    assert ledger.counts == {"acked": submitted // 2, "fenced": submitted // 2}


async def test_a_fence_that_gets_no_answer_says_so(
    kafka_factory: Callable[..., KafkaBroker],
) -> None:
    broker = await asyncio.to_thread(kafka_factory)
    async with client_of(broker.bootstrap_servers) as client:
        await asyncio.to_thread(broker.kill)
        with pytest.raises(FenceFailed, match=r"^a\.b\.c could not be fenced: \w+ for 1 s$"):
            await fence(client, "a.b.c", [TopicPartition("t", 0)], timeout_s=1.0)


async def test_partitions_that_do_not_exist_are_left_out(kafka: KafkaEndpoint) -> None:
    servers, life = kafka.bootstrap_servers, life_name()
    sink = sink_of(servers, Ledger(), life, f"t{uuid.uuid4().hex}.")
    async with client_of(servers) as client, running(sink):
        submit(sink, RowClass.TRADE, trades(100))
        assert await sink.drain(30) == 0
        absent = [TopicPartition(sink.settings.tick_topic(RowClass.TRADE), PARTITIONS)]
        absent.append(TopicPartition(f"t{uuid.uuid4().hex}", 0))
        await fence(client, life, [*absent, *places_of(sink)])
        submit(sink, RowClass.TRADE, trades(100))
        await until(lambda: sink.has_ended)
        await fence(client, life, absent)
        await fence(client, life, [])


async def test_the_time_of_a_fence_over_192_partitions(
    kafka: KafkaEndpoint, record_property: Callable[[str, object], None]
) -> None:
    """Figures, not a promise: the machine may be busy."""
    servers = kafka.bootstrap_servers
    topics = [f"t{uuid.uuid4().hex}" for _ in range(3)]
    for topic in topics:
        await asyncio.to_thread(kafka.create_topic, topic, 64)
    places = [TopicPartition(topic, number) for topic in topics for number in range(64)]
    took_ms = []
    async with client_of(servers) as client:
        for _ in range(10):
            life = life_name()
            await persist(Coordinator(client, life).init_producer_id)
            started_s = time.monotonic()
            await fence(client, life, places)
            took_ms.append((time.monotonic() - started_s) * 1e3)
    took_ms.sort()
    record_property("fence_ms", took_ms)
    print(f"fence of 192 partitions: {', '.join(f'{one:.0f}' for one in took_ms)} ms")
    assert took_ms[0] < 5_000
