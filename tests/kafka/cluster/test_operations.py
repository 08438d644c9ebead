"""What operators do to a running cluster: new plans, bad plans, drain, fence."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ingestor.app.settings import kafka_settings
from ingestor.cluster.records import PLAN_KEY, closing_record
from ingestor.cluster.store import write_plan
from ingestor.config.load import load
from ingestor.sources.registry import markets
from tests.e2e.processes import Venue, ingestor, simulated_venue
from tests.kafka.broker import KafkaBroker
from tests.kafka.cluster.conftest import write_config
from tests.kafka.cluster.fleet import Fleet, by_key, feed_of, fleet, late_rows

SHARDS = 4


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with simulated_venue(symbols=16, rate_per_s=10.0) as found:
        yield found


@pytest.fixture
def workers(tmp_path: Path, cluster_kafka: KafkaBroker, venue: Venue) -> Iterator[Fleet]:
    feeds = feed_of(venue).replace('["*"]', '["S00000-USD", "S00001-USD", "S00002-USD"]')
    config = write_config(tmp_path, cluster_kafka.bootstrap_servers, feeds=feeds)
    with fleet(config) as found:
        found.prepare(SHARDS)
        yield found


def revisions(workers: Fleet) -> set[int]:
    return {claim.revision for _, claim in workers.cluster().claims.items()}


def run(*arguments: str) -> None:
    done = ingestor("cluster", *arguments, env=dict(os.environ))
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=2)
def test_plans_are_followed_and_workers_obey(workers: Fleet) -> None:
    config = str(workers.config)
    workers.start("a", "b")
    workers.settle(SHARDS, "a", "b")
    text = workers.config.read_text()
    workers.config.write_text(text.replace('["S00000-USD", "S00001-USD", "S00002-USD"]', '["*"]'))
    run("apply", config)
    workers.until(lambda _owners: revisions(workers) == {2})
    time.sleep(2.0)
    assert len(by_key(workers.rows())) == 16

    # A revision that nobody can run, in one shard: it is refused, and what was there runs on.
    settings = kafka_settings(load(workers.config, markets()).kafka)
    shard, log = next((s, one) for s, one in workers.cluster().shards.items() if one.records)
    key, value = next(iter(log.records.items()))
    bad = orjson.dumps(orjson.loads(value) | {"venue": "nowhere"})
    closing = closing_record(3, {**log.records, key: bad})
    asyncio.run(write_plan(settings, "prod", {shard: [(key, bad), (PLAN_KEY, closing)]}))
    workers.until(lambda owners: shard not in owners)
    status = ingestor("cluster", "status", config, env=dict(os.environ))
    assert status.returncode == 1
    assert f"shard {shard} is refused by" in status.stdout
    assert "nowhere" in status.stdout
    run("apply", config)
    workers.settle(SHARDS, "a", "b")

    run("drain", config, "a")
    ended = workers.workers["a"].end()
    assert ended.status == 0, ended.err
    workers.settle(SHARDS, "b")
    assert [row for row in workers.rows() if row.cause in ("takeover", "restart")] == []

    before = workers.cluster().claims.lives()
    run("fence", config, "b")
    workers.until(lambda owners: len(owners) == SHARDS and not before & lives(workers))
    time.sleep(1.0)
    assert late_rows(workers.rows()) == []


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=2)
def test_whoever_has_shard_0_keeps_the_plan_up_to_the_lists(
    tmp_path: Path, cluster_kafka: KafkaBroker, venue: Venue
) -> None:
    """Symbols are listed, delisted, and listed again after its owner was killed."""
    venue.control("list", "count=10")
    config = write_config(
        tmp_path,
        cluster_kafka.bootstrap_servers,
        feeds=feed_of(venue),
        lists="ttl_s = 1",
    )
    with fleet(config) as workers:
        workers.prepare(SHARDS)
        workers.start("a", "b")
        workers.settle(SHARDS, "a", "b")
        assert subscribed(workers) == 10
        assert workers.cluster().revision == 1
        venue.control("list", "count=16")
        workers.until(lambda _owners: subscribed(workers) == 16 and revisions(workers) == {2})
        time.sleep(1.0)
        assert len(by_key(workers.rows())) == 16

        venue.control("list", "count=12")
        workers.until(lambda _owners: subscribed(workers) == 12)
        assert workers.cluster().revision == 3
        workers.until(lambda _owners: revisions(workers) == {3})
        # Another configuration is applied, which these workers don't have: they leave it alone.
        text = workers.config.read_text()
        workers.config.write_text(text.replace('["*"]', '["S00000-USD", "S00001-USD"]'))
        run("apply", str(workers.config))
        venue.control("list", "count=16")
        time.sleep(4.0)
        assert (workers.cluster().revision, subscribed(workers)) == (4, 2)
        workers.config.write_text(text)
        venue.control("list", "count=12")
        run("apply", str(workers.config))
        workers.settle(SHARDS, "a", "b")
        assert [row for row in workers.rows() if row.cause in ("takeover", "restart")] == []

        owner = workers.owners()[0]
        workers.signal(owner, signal.SIGKILL)
        venue.control("list", "count=16")
        workers.until(lambda _owners: subscribed(workers) == 16)
        other = ({"a", "b"} - {owner}).pop()
        workers.settle(SHARDS, other)
        assert late_rows(workers.rows()) == []


def subscribed(workers: Fleet) -> int:
    """Count the instruments of the plan."""
    records = [value for log in workers.cluster().shards.values() for value in log.records.values()]
    return len({one["symbol"] for value in records for one in orjson.loads(value)["instruments"]})


def lives(workers: Fleet) -> set[object]:
    return set(workers.cluster().claims.lives())
