"""The commands of a cluster on a real Kafka: what they write, and what they refuse."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from feeds.simulated import Simulated
from ingestor.app.settings import kafka_settings
from ingestor.cluster.rates import ShardRates, rates_key
from ingestor.cluster.records import SHARDS
from ingestor.cluster.store import read_cluster, write_plan
from ingestor.config.load import load
from ingestor.kafka.settings import CLAIMS, KafkaSettings
from ingestor.model.errors import ClusterError
from ingestor.sources.registry import markets
from tests.conftest import Call
from tests.e2e.processes import Venue, simulated_venue
from tests.kafka.broker import KafkaBroker
from tests.kafka.cluster.conftest import write_config
from tests.kafka.test_isolation import AUTHORIZER, admin


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=24, rate_per_s=1.0) as found:
        yield found


def feed_of(venue: Venue, streams: int = 2) -> str:
    return f"""
[[feeds]]
venue = "simulated"
url = "{venue.url}"
rest_url = "{venue.rest_url}"
symbols = ["*"]
channels = ["trades", "quotes"]
streams_per_connection = {streams}
"""


def settings_of(path: Path) -> KafkaSettings:
    return kafka_settings(load(path, markets()).kafka)


@pytest.fixture
def config(tmp_path: Path, cluster_kafka: KafkaBroker, venue: Venue) -> Path:
    return write_config(tmp_path, cluster_kafka.bootstrap_servers, feeds=feed_of(venue))


def test_a_plan_is_applied_once_and_then_only_its_differences(
    call: Call, config: Path, venue: Venue
) -> None:
    done = call("cluster", "init", str(config), "--workers-max", "3", env={})
    assert (done.returncode, done.stderr) == (0, "")
    assert "cluster prod has 32 shards" in done.stdout
    again = call("cluster", "init", str(config), "--workers-max", "3", env={})
    assert (again.returncode, "created" in again.stdout) == (0, False)

    shown = orjson.loads(call("cluster", "plan", str(config), "--json", env={}).stdout)
    first = orjson.loads(call("cluster", "apply", str(config), "--json", env={}).stdout)
    assert first == shown
    assert (first["revision"], first["added"], first["moved"]) == (1, 24, 0)
    assert first["pools"][0]["connections"] == 24

    none = call("cluster", "plan", str(config), "--weights", "measured", env={})
    assert (none.returncode, none.stderr) == (
        1,
        "ingestor: no worker has measured rates yet; workers tell them every 300 s\n",
    )
    rates = ShardRates(480.0, 48, {"simulated:spot:S00000-USD": 240.0})
    asyncio.run(claim(settings_of(config), rates_key(0), orjson.dumps(rates)))
    weighed = call("cluster", "plan", str(config), "--weights", "measured", "--json", env={})
    assert orjson.loads(weighed.stdout)["busiest"] > first["busiest"]

    nothing = orjson.loads(call("cluster", "plan", str(config), "--json", env={}).stdout)
    assert [nothing[key] for key in ("added", "removed", "changed", "moved")] == [0, 0, 0, 0]

    text = config.read_text().replace('["*"]', '["S00000-USD", "S00001-USD"]')
    config.write_text(text)
    fewer = orjson.loads(call("cluster", "apply", str(config), "--json", env={}).stdout)
    assert (fewer["revision"], fewer["added"], fewer["moved"], fewer["removed"]) == (2, 0, 0, 22)

    status = call("cluster", "status", str(config), "--json", env={})
    report = orjson.loads(status.stdout)
    assert (status.returncode, report["revision"], report["half_written"]) == (1, 2, [])
    assert {one["state"] for one in report["shards"]} == {"unclaimed"}
    assert sum(one["connections"] for one in report["shards"]) == 2


async def claim(settings: KafkaSettings, key: bytes, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        await producer.send_and_wait(settings.topic(CLAIMS), value, key=key, partition=0)


def test_a_cluster_that_is_not_there_is_named(call: Call, config: Path) -> None:
    done = call("cluster", "plan", str(config), env={})
    assert done.returncode == 1
    assert re.fullmatch(r"ingestor: no cluster at .*; run `ingestor cluster init`.*\n", done.stderr)
    assert call("cluster", "init", str(config), "--shards", "4", env={}).returncode == 0
    config.write_text(config.read_text().replace('"prod"', '"prd"'))
    done = call("cluster", "apply", str(config), env={})
    assert (done.returncode, done.stderr) == (
        1,
        "ingestor: cluster 'prd' is unknown; did you mean 'prod'?\n",
    )
    done = call("run", str(config), "--cluster", env={})
    assert (done.returncode, done.stderr) == (
        1,
        "ingestor: cluster 'prd' is unknown; did you mean 'prod'?\n",
    )
    done = call("cluster", "init", str(config), "--shards", "8", env={})
    assert done.returncode == 1
    assert "has 4 shards, not 8" in done.stderr


def test_a_plan_that_breaks_a_limit_without_a_worker_is_refused(
    call: Call, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 connections in 4 shards: of 3 workers, 2 that are left have 12 each."""
    (name, market), *_ = Simulated.markets.items()
    limited = replace(market, limits=replace(market.limits, connections_per_address=11))
    monkeypatch.setattr(Simulated, "markets", {name: limited})
    assert call("cluster", "init", str(config), "--shards", "4", env={}).returncode == 0
    done = call("cluster", "apply", str(config), env={})
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"ingestor: simulated {name}: 24 connections come to 12 at one address when one of 3 "
        "workers is lost; the venue allows 11; run more workers"
    )
    status = call("cluster", "status", str(config), "--json", env={})
    assert orjson.loads(status.stdout)["revision"] == 0  # nothing was written


def test_a_half_written_plan_is_told_and_written_anew(call: Call, config: Path) -> None:
    assert call("cluster", "init", str(config), "--shards", "4", env={}).returncode == 0
    assert call("cluster", "apply", str(config), env={}).returncode == 0
    settings = settings_of(config)

    async def spoil() -> None:
        async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
            topic = settings.topic(SHARDS)
            await producer.send_and_wait(topic, b"{}", key=b"99", partition=2)

    asyncio.run(spoil())
    status = call("cluster", "status", str(config), env={})
    assert status.returncode == 1
    assert "half-written plan in shards 2" in status.stdout


def test_of_two_who_apply_at_once_one_fails(call: Call, config: Path) -> None:
    assert call("cluster", "init", str(config), "--shards", "4", env={}).returncode == 0
    assert call("cluster", "apply", str(config), env={}).returncode == 0
    done = call("cluster", "apply", str(config), "--expect", "7", env={})
    assert (done.returncode, "at revision 1, not at 7" in done.stderr) == (1, True)
    settings = settings_of(config)

    async def both() -> list[BaseException | None]:
        changes = {0: [(b"5", b"{}")], 1: [(b"6", b"{}")]}
        return await asyncio.gather(
            *(write_plan(settings, "prod", changes, 1) for _ in range(2)), return_exceptions=True
        )

    outcomes = asyncio.run(both())
    failed = [one for one in outcomes if one is not None]
    assert len(failed) == 1, outcomes
    assert isinstance(failed[0], ClusterError)
    assert "at the same time" in str(failed[0])


def test_a_broker_without_the_protocol_is_refused(
    call: Call, tmp_path: Path, kafka_factory: object
) -> None:
    """As Kafka before 4.0. The classic protocol of `cluster.protocol` works there."""
    assert callable(kafka_factory)
    classic = {"group.coordinator.rebalance.protocols": "classic"}
    broker = kafka_factory({**classic, **AUTHORIZER})
    config = write_config(tmp_path, broker.bootstrap_servers, cluster="")
    done = call("cluster", "init", str(config), "--shards", "4", env={})
    assert done.returncode == 1
    assert done.stderr == (
        "ingestor: the broker has no group protocol `consumer` (KIP-848, Kafka 4.0); set "
        'cluster.protocol = "classic"\n'
    )
    status = call("cluster", "status", str(config), env={})
    assert "no cluster at" in status.stderr  # nothing was created
    text = config.read_text().replace("3_000", "6_000")
    config.write_text(text.replace("[cluster]", '[cluster]\nprotocol = "classic"'))
    assert call("cluster", "init", str(config), "--shards", "4", env={}).returncode == 0

    doctor = call("doctor", str(config), env={})
    assert "transactional ids prod.* may be written" in doctor.stdout
    asyncio.run(deny_lives(broker, "prod."))
    doctor = call("doctor", str(config), env={})
    assert doctor.returncode == 1
    assert "Write on the transactional ids prod.* is needed" in doctor.stdout


async def deny_lives(broker: KafkaBroker, prefix: str) -> None:
    """Refuse producer ids under all transactional ids with a prefix."""
    denied = AclBinding(
        ResourceType.TRANSACTIONAL_ID,
        prefix,
        ResourcePatternType.PREFIXED,
        "User:ANONYMOUS",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    client = admin(broker)
    for done in client.create_acls([denied]).values():
        await asyncio.to_thread(done.result, 60)


def test_a_floor_that_is_too_high_is_told_by_init_and_doctor(
    call: Call, tmp_path: Path, kafka_factory: object
) -> None:
    assert callable(kafka_factory)
    broker = kafka_factory()
    config = write_config(tmp_path, broker.bootstrap_servers)
    done = call("cluster", "init", str(config), "--shards", "4", env={})
    assert done.returncode == 1
    floor = "group.consumer.min.session.timeout.ms"
    assert (
        f"below the brokers' {floor} = 45000; set {floor}=3000 in server.properties" in done.stderr
    )

    doctor = call("doctor", str(config), env={})
    assert f"cluster.session_timeout_ms = 3000 is below the brokers' {floor}" in doctor.stdout

    async def nothing_written() -> None:
        with pytest.raises(ClusterError, match="no cluster"):
            await read_cluster(settings_of(config), "prod")

    asyncio.run(nothing_written())
