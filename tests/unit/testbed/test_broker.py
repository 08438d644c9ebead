"""The embedded broker takes and gives records, injects faults, and never outlives its parent."""

from __future__ import annotations

import asyncio
import ctypes.util
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from ingestor.model.errors import ConfigError, SinkUnavailable
from ingestor.testbed import broker as devbroker
from ingestor.testbed.broker import DISCONNECT, DevBroker

NOT_LEADER = 6
MESSAGE_TOO_LARGE = 10


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with DevBroker({"ticks": 3}) as broker:
        yield broker


def producer_of(broker: DevBroker) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        retry_backoff_ms=20,
    )


async def read(broker: DevBroker, partition: int, count: int) -> list[bytes]:
    async with (
        AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers) as consumer,
        asyncio.timeout(60),
    ):
        where = TopicPartition("ticks", partition)
        consumer.assign([where])
        await consumer.seek_to_beginning(where)
        return [(await consumer.getone()).value for _ in range(count)]


async def test_records_come_back_in_order(broker: DevBroker) -> None:
    values = [b"%d" % n for n in range(500)]
    async with producer_of(broker) as producer:
        for value in values:
            await producer.send("ticks", value, partition=2)
        await producer.flush()
        assert await producer.partitions_for("ticks") == {0, 1, 2}
    assert await read(broker, 2, len(values)) == values


@pytest.mark.parametrize("code", [NOT_LEADER, DISCONNECT])
async def test_retriable_fault_is_survived(broker: DevBroker, code: int) -> None:
    async with producer_of(broker) as producer:
        await producer.send_and_wait("ticks", b"first", partition=0)
        broker.push_errors([code, code])
        await producer.send_and_wait("ticks", b"second", partition=0)
    assert (await read(broker, 0, 2))[:2] == [b"first", b"second"]


async def test_refusal_reaches_the_producer_until_cleared(broker: DevBroker) -> None:
    broker.push_errors([MESSAGE_TOO_LARGE] * 2)
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait("ticks", b"x", partition=0)
        broker.clear_errors()
        await producer.send_and_wait("ticks", b"x", partition=0)


async def test_down_refuses_and_up_remembers(broker: DevBroker) -> None:
    async with producer_of(broker) as producer:
        await producer.send_and_wait("ticks", b"kept", partition=1)
    broker.set_down()
    producer = producer_of(broker)
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()
    broker.set_up()
    assert await read(broker, 1, 1) == [b"kept"]


async def test_round_trip_time_is_added() -> None:
    with DevBroker({"ticks": 1}, rtt_ms=200) as broker:
        async with producer_of(broker) as producer:
            started_s = time.monotonic()
            await producer.send_and_wait("ticks", b"late")
            assert time.monotonic() - started_s >= 0.2
            broker.set_rtt(0)
            took_s = []
            for _ in range(20):  # one of them while the machine is not busy
                started_s = time.monotonic()
                await producer.send_and_wait("ticks", b"soon")
                took_s.append(time.monotonic() - started_s)
            assert min(took_s) < 0.2


def test_a_topic_exists_once(broker: DevBroker) -> None:
    with pytest.raises(SinkUnavailable, match=r"create_topic: .*already exists"):
        broker.create_topic("ticks", 1)


def test_a_process_that_ends_at_once_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "true")
    broker = DevBroker()
    with pytest.raises(SinkUnavailable, match="ended"):
        broker.start()
    with pytest.raises(SinkUnavailable, match="not started"):
        broker.set_up()
    broker.stop()


def test_a_dead_process_is_unavailable(broker: DevBroker) -> None:
    assert broker._process is not None
    broker._process.kill()
    broker._process.wait()
    with pytest.raises(SinkUnavailable, match="ended"):
        broker.set_up()


def test_a_silent_process_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devbroker, "REPLY_TIMEOUT_S", 0.0)
    with pytest.raises(SinkUnavailable, match="silent"):
        DevBroker().start()


def test_it_ends_with_its_parent() -> None:
    code = (
        "import os; from ingestor.testbed.broker import DevBroker; b = DevBroker(); b.start();"
        "print(b._process.pid, flush=True); os._exit(1)"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    pid = int(parent.stdout)
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s and _alive(pid):
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        # An orphan that nobody reaps stays as a zombie, which is dead enough.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_confluent_kafka_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\[demo\]"):
        DevBroker().start()


def test_library_of_the_system_is_second_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = SimpleNamespace(origin=os.fspath(tmp_path / "confluent_kafka" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "librdkafka.so.1")
    assert devbroker.library_path() == "librdkafka.so.1"
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(ConfigError, match="no librdkafka"):
        devbroker.library_path()
