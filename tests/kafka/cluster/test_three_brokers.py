"""A cluster on three brokers, of which one is lost together with a worker."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.processes import simulated_venue
from tests.kafka.cluster.conftest import FLOORS, write_config
from tests.kafka.cluster.fleet import SESSION_S, by_key, feed_of, fleet, late_rows, missing
from tests.kafka.three_brokers import ThreeBrokers

SHARDS = 8
SYMBOLS = 16
# The new coordinator takes up the group, then a whole session passes.
TAKEOVER_S = SESSION_S + 15.0


@pytest.mark.timeout(300)
@pytest.mark.long(minutes=2)
def test_the_coordinator_is_killed_together_with_a_worker(
    tmp_path: Path, kafka_tools: None
) -> None:
    with (
        ThreeBrokers(FLOORS) as brokers,
        simulated_venue(symbols=SYMBOLS, rate_per_s=20.0) as venue,
    ):
        config = write_config(
            tmp_path,
            brokers.bootstrap_servers,
            feeds=feed_of(venue),
            kafka="replication_factor = 3",
        )
        with fleet(config) as workers:
            workers.prepare(SHARDS)
            workers.start("a", "b", "c")
            workers.settle(SHARDS, "a", "b", "c")
            before = workers.cluster().claims.lives()
            time.sleep(1.0)
            brokers.nodes[brokers.coordinator("prod")].kill()
            workers.signal("a", signal.SIGKILL)
            took_s = workers.until(
                lambda owners: len(owners) == SHARDS and "a" not in owners.values()
            )
            assert took_s <= TAKEOVER_S
            after = workers.cluster().claims.lives()
            assert after == {life for life in before if life.member != "a"}
            time.sleep(2.0)
            rows = workers.rows()
    assert late_rows(rows) == []
    taken = {row.key for row in rows if row.cause == "takeover"}
    assert taken
    assert missing(rows).keys() <= taken
    assert len(by_key(rows)) == SYMBOLS
