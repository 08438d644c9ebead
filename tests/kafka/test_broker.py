"""The test broker is a Kafka: it takes what our producer sends, and keeps it through a crash."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, UnknownTopicOrPartitionError

from tests.kafka.broker import SASL_PASSWORD, SASL_USER, KafkaBroker, KafkaEndpoint


async def produce(bootstrap_servers: str, topic: str, values: list[bytes]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        request_timeout_ms=10_000,
    ) as producer:
        for value in values:
            await producer.send(topic, value, partition=0)
        await producer.flush()


async def consume(bootstrap_servers: str, topic: str, count: int) -> list[bytes]:
    async with (
        AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer,
        asyncio.timeout(60),
    ):
        return [(await consumer.getone()).value for _ in range(count)]


async def test_idempotent_lz4_round_trip(kafka: KafkaEndpoint) -> None:
    topic = kafka.create_topic(f"broker.round-trip.{time.time_ns()}", partitions=2)
    values = [b"%d" % n for n in range(1_000)]
    await produce(kafka.bootstrap_servers, topic, values)
    assert await consume(kafka.bootstrap_servers, topic, len(values)) == values


async def test_records_survive_sigkill(private_kafka: KafkaBroker) -> None:
    topic = private_kafka.create_topic("broker.survives")
    await produce(private_kafka.bootstrap_servers, topic, [b"before"])
    private_kafka.kill()
    assert not private_kafka.running
    await asyncio.to_thread(private_kafka.start)
    await produce(private_kafka.bootstrap_servers, topic, [b"after"])
    assert await consume(private_kafka.bootstrap_servers, topic, 2) == [b"before", b"after"]


async def test_ordered_stop_and_start(private_kafka: KafkaBroker) -> None:
    topic = private_kafka.create_topic("broker.ordered")
    await produce(private_kafka.bootstrap_servers, topic, [b"before"])
    await asyncio.to_thread(private_kafka.stop)
    await asyncio.to_thread(private_kafka.start)
    assert await consume(private_kafka.bootstrap_servers, topic, 1) == [b"before"]


async def test_paused_broker_answers_nothing_then_goes_on(private_kafka: KafkaBroker) -> None:
    topic = private_kafka.create_topic("broker.paused")
    async with AIOKafkaProducer(
        bootstrap_servers=private_kafka.bootstrap_servers, acks="all"
    ) as producer:
        await producer.send_and_wait(topic, b"first", partition=0)
        private_kafka.pause()
        waiting = asyncio.ensure_future(producer.send_and_wait(topic, b"second", partition=0))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
        private_kafka.resume()
        assert (await asyncio.wait_for(waiting, 60)).offset == 1


async def test_overrides_reach_the_broker(kafka_factory: Callable[..., KafkaBroker]) -> None:
    broker = kafka_factory({"message.max.bytes": "2000", "auto.create.topics.enable": "false"})
    topic = broker.create_topic("broker.small")
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, bytes(5_000))
    async with AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, request_timeout_ms=1_000
    ) as producer:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.send_and_wait("broker.absent", b"x")


async def test_sasl_and_tls_listeners(kafka_factory: Callable[..., KafkaBroker]) -> None:
    broker = kafka_factory(sasl=True, tls=True)
    topic = broker.create_topic("broker.secure")
    async with AIOKafkaProducer(
        bootstrap_servers=broker.sasl_bootstrap_servers,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username=SASL_USER,
        sasl_plain_password=SASL_PASSWORD,
    ) as producer:
        assert (await producer.send_and_wait(topic, b"sasl")).offset == 0
    async with AIOKafkaProducer(
        bootstrap_servers=broker.tls_bootstrap_servers,
        security_protocol="SSL",
        ssl_context=ssl.create_default_context(cafile=str(broker.ca_file)),
    ) as producer:
        assert (await producer.send_and_wait(topic, b"tls")).offset == 1
