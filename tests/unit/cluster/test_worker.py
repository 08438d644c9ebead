"""A worker has one life after another. tests/kafka/cluster has whole ones."""

from __future__ import annotations

import orjson

from ingestor.cluster.worker import ClusterWorker, member_name
from ingestor.config.model import Config
from ingestor.telemetry.status import Phase


def config(**cluster: object) -> Config:
    return Config.model_validate({"http": {"enabled": False}, "cluster": {"name": "p", **cluster}})


def test_a_worker_has_a_name() -> None:
    assert member_name(config(member="node7")) == "node7"
    assert member_name(config()).count("-") >= 1


async def test_each_life_has_a_session_of_its_own() -> None:
    worker = ClusterWorker(config(member="node7"), 4)
    first = worker.life
    second = worker._make_life()
    assert first.me.member == second.me.member == "node7"
    assert first.me.session != second.me.session
    assert worker.lives == 2
    assert worker.status().phase is Phase.STARTING
    assert first.ingestor.planned.plan.workers == 1


async def test_workers_behind_one_address_share_the_limits() -> None:
    worker = ClusterWorker(config(workers_per_egress=4), 4)
    assert worker.life.ingestor.planned.plan.workers == 4


async def test_the_next_life_says_which_numbers_will_never_come() -> None:
    worker = ClusterWorker(config(), 4)
    void = orjson.dumps({"kind": "void"})
    worker._publish_voids([void, void])
    assert worker.life.ingestor.sink is not None
    assert len(worker.life.ingestor.sink.side.topics["md.status.v1"]) == 2
