"""Workers come, go, die and freeze under load: what the topics have afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Venue, simulated_venue
from tests.kafka.broker import KafkaBroker
from tests.kafka.cluster.conftest import FLOORS, write_config
from tests.kafka.cluster.fleet import (
    SESSION_S,
    Fleet,
    by_key,
    feed_of,
    fleet,
    late_rows,
    missing,
)

SHARDS = 8
SYMBOLS = 32


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    """Two streams of each symbol: 5,120 messages a second."""
    with simulated_venue(symbols=SYMBOLS, rate_per_s=80.0) as found:
        yield found


@pytest.fixture
def quiet_venue() -> Iterator[Venue]:
    """As much as the budget holds while Kafka is away."""
    with simulated_venue(symbols=SYMBOLS, rate_per_s=10.0) as found:
        yield found


@pytest.fixture
def workers(tmp_path: Path, cluster_kafka: KafkaBroker, venue: Venue) -> Iterator[Fleet]:
    config = write_config(tmp_path, cluster_kafka.bootstrap_servers, feeds=feed_of(venue))
    with fleet(config) as found:
        found.prepare(SHARDS)
        yield found


@pytest.mark.timeout(180)
def test_a_worker_that_leaves_or_joins_leaves_no_hole(workers: Fleet) -> None:
    """Each out within 10 s; what comes twice is told by the trade's number."""
    workers.start("a", "b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    workers.workers["a"].terminate()
    ended = workers.workers["a"].end()
    assert ended.status == 0, ended.err
    assert ended.took_s <= 10.0
    workers.settle(SHARDS, "b", "c")
    workers.start("d")
    workers.settle(SHARDS, "b", "c", "d")
    time.sleep(1.0)
    rows = workers.rows()
    assert len(by_key(rows)) == SYMBOLS
    assert missing(rows) == {}
    assert [row for row in rows if row.kind == "gap"] == []
    twice = sum(len(own) - len({row.sequence for row in own}) for own in by_key(rows).values())
    assert twice < len(rows) / 10


@pytest.mark.timeout(180)
def test_the_shards_of_a_killed_worker_are_taken_over(workers: Fleet) -> None:
    workers.start("a", "b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    before = workers.cluster().claims.lives()
    time.sleep(1.0)
    workers.signal("a", signal.SIGKILL)
    took_s = workers.until(lambda owners: len(owners) == SHARDS and "a" not in owners.values())
    assert took_s <= SESSION_S + 4.0
    time.sleep(1.0)
    after = workers.cluster().claims.lives()
    assert after == {life for life in before if life.member != "a"}, "a live worker was fenced"
    rows = workers.rows()
    assert late_rows(rows) == []
    for key, absent in missing(rows).items():
        own = by_key(rows)[key]
        places = [place for place, row in enumerate(own) if row.cause == "takeover"]
        assert len(places) == 1, key
        last = max(row.sequence for row in own[: places[0]])
        first = min(row.sequence for row in own[places[0] + 1 :])
        assert last < absent[0] <= absent[-1] < first


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=2)
def test_a_worker_that_was_frozen_publishes_nothing_late(workers: Fleet) -> None:
    workers.start("a", "b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    workers.signal("a", signal.SIGSTOP)
    took_s = workers.until(lambda owners: len(owners) == SHARDS and "a" not in owners.values())
    assert took_s <= SESSION_S + 4.0
    time.sleep(2 * SESSION_S - took_s)
    workers.signal("a", signal.SIGCONT)
    workers.settle(SHARDS, "a", "b", "c")  # it begins a new life
    time.sleep(1.0)
    rows = workers.rows()
    assert any(row.cause == "takeover" for row in rows)
    assert late_rows(rows) == []
    workers.workers["a"].terminate()
    ended = workers.workers["a"].end()
    assert ended.status == 0, ended.err
    assert "cluster.life.over" in ended.err


@pytest.mark.timeout(300)
@pytest.mark.long(minutes=2)
def test_nothing_moves_while_kafka_is_away(
    tmp_path: Path, quiet_venue: Venue, kafka_tools: None
) -> None:
    with KafkaBroker(FLOORS) as broker:
        config = write_config(tmp_path, broker.bootstrap_servers, feeds=feed_of(quiet_venue))
        with fleet(config) as workers:
            workers.prepare(SHARDS)
            workers.start("a", "b", "c")
            workers.settle(SHARDS, "a", "b", "c")
            owners, lives = workers.owners(), workers.cluster().claims.lives()
            broker.kill()
            time.sleep(25.0)
            broker.start()
            time.sleep(2 * SESSION_S)
            workers.settle(SHARDS, "a", "b", "c")
            assert workers.owners() == owners
            assert workers.cluster().claims.lives() == lives
            rows = workers.rows()
            assert missing(rows) == {}
            assert [row for row in rows if row.kind == "gap"] == []
