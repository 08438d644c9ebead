"""Workers come, go, die and freeze under load: what the topics have afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingestor.cluster.claims import Life
from tests.e2e.processes import Venue, ingestor, simulated_venue
from tests.kafka.broker import KafkaBroker
from tests.kafka.cluster.conftest import FLOORS, Link, write_config
from tests.kafka.cluster.fleet import (
    PATIENCE_S,
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
    status = ingestor("cluster", "status", str(workers.config), "--json", env=dict(os.environ))
    members = {one["member"]: one["in_group"] for one in json.loads(status.stdout)["members"]}
    assert (status.returncode, members) == (0, dict.fromkeys("bcd", True))
    page = workers.page("d")
    assert (page["live"], page["takeovers"]) == (SHARDS, 0)
    assert [one["member"] for one in page["workers"]] == ["b", "c", "d"]
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


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=1)
def test_a_killed_worker_that_starts_again_at_once_costs_its_own_shards_alone(
    workers: Fleet,
) -> None:
    """Its new life has another producer id than the one that the others fence."""
    workers.start("a", "b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    mine = {shard for shard, owner in workers.owners().items() if owner == "a"}
    before = workers.cluster().claims.lives()
    workers.signal("a", signal.SIGKILL)
    workers.workers["a"].end()
    workers.start("a")
    workers.until(
        lambda _owners: not {life for life in before if life.member == "a"} & lives(workers)
    )
    workers.settle(SHARDS, "a", "b", "c")
    assert {life for life in before if life.member != "a"} <= lives(workers)
    time.sleep(1.0)
    rows = workers.rows()
    assert late_rows(rows) == []
    holes = {row.session for row in rows if row.cause == "takeover"}
    assert holes
    assert len(missing(rows)) <= len(mine) * SYMBOLS / SHARDS


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=1)
def test_a_worker_that_is_cut_from_kafka_publishes_nothing_late(workers: Fleet, link: Link) -> None:
    """Venues reach it all along; a request that was under way arrives 15 s late."""
    workers.start("a", servers=link.address)
    workers.start("b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    link.cut()
    cut_s = time.monotonic()
    took_s = workers.until(lambda owners: len(owners) == SHARDS and "a" not in owners.values())
    assert took_s <= SESSION_S + 4.0
    time.sleep(max(0.0, 15.0 - (time.monotonic() - cut_s)))
    link.mend()
    workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    rows = workers.rows()
    assert any(row.cause == "takeover" for row in rows)
    assert late_rows(rows) == []
    workers.workers["a"].terminate()
    ended = workers.workers["a"].end()
    assert ended.status == 0, ended.err
    assert "cluster.life.over" in ended.err


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=1)
def test_a_worker_whose_loop_hangs_loses_its_shards(workers: Fleet) -> None:
    """Its other threads go on. `max.poll.interval.ms` is 10 s."""
    program = ("-m", "tests.kafka.cluster.stuck_worker", "25")
    workers.start("a", program=program)
    workers.start("b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    workers.signal("a", signal.SIGUSR1)
    took_s = workers.until(lambda owners: len(owners) == SHARDS and "a" not in owners.values())
    assert took_s <= 20.0
    workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    rows = workers.rows()
    assert any(row.cause == "takeover" for row in rows)
    assert late_rows(rows) == []
    assert "cluster.life.over" in workers.workers["a"].err


@pytest.mark.timeout(240)
@pytest.mark.long(minutes=1)
def test_a_worker_that_dies_while_it_hands_over_is_taken_over(workers: Fleet) -> None:
    """The others wait 5 s for it to release, from the moment at which they are ready."""
    workers.start("a", "b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(workers.kill_at, "a", "offered")
        assert workers.watching.wait(PATIENCE_S)
        workers.workers["a"].terminate()
        killing.result()
    states = {claim.state for _, claim in workers.cluster().claims.items()}
    assert states & {"offered", "ready"}, "it died too late"
    took_s = workers.until(lambda owners: len(owners) == SHARDS and "a" not in owners.values())
    assert took_s <= SESSION_S + 5.0 + 4.0
    time.sleep(1.0)
    rows = workers.rows()
    assert late_rows(rows) == []
    gaps = {row.key for row in rows if row.cause == "takeover"}
    assert missing(rows).keys() <= gaps


@pytest.mark.timeout(300)
@pytest.mark.long(minutes=2)
def test_a_rolling_restart_of_three_leaves_no_hole(workers: Fleet) -> None:
    """Each out within 10 s; a trade that comes twice comes in two sessions."""
    workers.start("a", "b", "c")
    workers.settle(SHARDS, "a", "b", "c")
    for name in ("a", "b", "c"):
        workers.workers[name].terminate()
        ended = workers.workers[name].end()
        assert ended.status == 0, ended.err
        assert ended.took_s <= 10.0
        workers.start(name)
        workers.settle(SHARDS, "a", "b", "c")
    time.sleep(1.0)
    rows = workers.rows()
    assert len(by_key(rows)) == SYMBOLS
    assert missing(rows) == {}
    assert [row for row in rows if row.kind == "gap"] == []
    for own in by_key(rows).values():
        told = Counter((row.sequence, row.session) for row in own)
        assert max(told.values()) == 1


def lives(workers: Fleet) -> set[Life]:
    return workers.cluster().claims.lives()
