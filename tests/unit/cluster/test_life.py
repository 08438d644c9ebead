"""One life: what it writes, follows and obeys. tests/kafka/cluster has whole ones."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import orjson
import pytest

from ingestor.app.ingestor import Ingestor
from ingestor.app.planning import Planned
from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.life import WorkerLife
from ingestor.cluster.membership import Group
from ingestor.cluster.rates import read_rates
from ingestor.cluster.records import PLAN_KEY, closing_record
from ingestor.cluster.shards import Open, Phase, Publish
from ingestor.config.model import Config
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.sources.live.plan import Plan
from tests.fakes.spans import traced
from tests.unit.cluster.test_shard_connections import records

ME, OTHER = Life("node7", "01" * 16), Life("node8", "02" * 16)


class Written(list[dict[str, Any]]):
    """The claims that a life writes."""

    def publish(self, topic: str, _key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        assert ts_ms > 0
        if topic == "claims.v1":
            self.append(orjson.loads(value))


def life(monkeypatch: pytest.MonkeyPatch) -> tuple[WorkerLife, Written]:
    config = Config.model_validate({"http": {"enabled": False}, "cluster": {"name": "prod"}})
    ingestor = Ingestor(config, Planned(InstrumentTable(), Plan(())), life="prod.node7.x")
    one = WorkerLife(config, ME, ingestor, Group(config, "t", "node7"), lambda: "host:1")
    claims = Written()
    monkeypatch.setattr(ingestor.sink, "publish", claims.publish)
    return one, claims


async def test_a_shard_is_claimed_published_and_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    one, claims = life(monkeypatch)
    one.connections.begin([3])
    one._do(one.machine.assigned([3]))
    [claim] = claims
    assert (claim["state"], claim["member"], claim["where"]) == ("live", "node7", "host:1")
    one._read(Claim(3, ME, ClaimState.LIVE), 1)
    assert one.machine.phases == {3: Phase.LIVE}
    found = records(["A"])
    for key, value in found.items():
        one.record(3, key, value)
    one.record(3, PLAN_KEY, closing_record(5, found))
    one.at_end(3)
    assert len(one.ingestor.planned.plan) == 1
    assert claims[-1]["revision"] == 5


async def test_a_plan_that_cannot_be_run_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, claims = life(monkeypatch)
    one.connections.begin([3])
    one._do(one.machine.assigned([3]))
    found = records(["A"], venue="nowhere")
    for key, value in found.items():
        one.record(3, key, value)
    one.record(3, PLAN_KEY, closing_record(5, found))
    one.at_end(3)
    last = claims[-1]
    assert (last["state"], last["revision"]) == ("refused", 5)
    assert "nowhere" in str(last["reason"])


async def test_a_life_whose_shard_was_taken_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = life(monkeypatch)
    one._do(one.machine.assigned([3]))
    one._read(Claim(3, ME, ClaimState.LIVE), 1)
    assert not one.over.is_set()
    one._read(Claim(3, OTHER, ClaimState.LIVE, over=ME), 2)
    assert one.over.is_set()


async def test_only_a_command_of_now_and_for_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = life(monkeypatch)
    now_ms = int(time.time() * 1e3) + 1
    mine = orjson.dumps({"member": "node7", "command": "drain"})
    for value, ts_ms in (
        (orjson.dumps({"member": "node8", "command": "drain"}), now_ms),
        (mine, now_ms - 60_000),  # of a life before
        (b"garbage", now_ms),
        (b"[]", now_ms),
        (None, now_ms),
    ):
        one._commanded(b"", value, ts_ms)
    assert not one._draining.is_set()
    one._commanded(b"", mine, now_ms)
    assert one._draining.is_set()


async def test_a_bug_in_one_action_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, expected_bugs: Counter[str]
) -> None:
    expected_bugs["cluster"] += 1
    one, _ = life(monkeypatch)

    def fail(_shard: int) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(one.connections, "open", fail)
        one._do([Open(1)])
    one._do([Open(2)])
    assert set(one.connections.shards) == {2}


async def test_rates_of_live_shards_are_told_in_the_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, _ = life(monkeypatch)
    told: list[tuple[bytes | None, bytes]] = []
    assert one.ingestor.sink is not None
    monkeypatch.setattr(
        one.ingestor.sink, "publish", lambda _topic, key, value, **_: told.append((key, value))
    )
    counts = [{"a": 100}, {"a": 700}]
    monkeypatch.setattr(type(one.connections), "shards", {3: 1, 4: 1})
    monkeypatch.setattr(one, "_rows_by_key", lambda shard: counts[0] if shard == 3 else {})
    monkeypatch.setattr(one.connections, "rows_of", lambda _shard: {(RowClass.TRADE, 0): 1})
    for shard in (3, 4):
        one.machine.assigned([shard])
        one.machine.read(Claim(shard, ME, ClaimState.LIVE), 1)

    async def sleep(_seconds: float) -> None:
        if told:
            raise asyncio.CancelledError
        counts.pop(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await one._measure()
    [(key, value)] = told  # shard 4 has nothing to tell
    found = read_rates(key or b"", value)
    assert found is not None
    assert (found[0], found[1].streams) == (3, 1)
    assert found[1].hot["a"] > 0


async def test_a_takeover_is_a_span_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = life(monkeypatch)
    counts = one.machine.counts
    monkeypatch.setattr(one.connections, "publish", lambda *_, **__: None)
    with traced() as spans:
        counts.takeovers, counts.takeover_s = 1, 2.5
        one._act(Publish(3, gap=True, takeover=True))
        counts.takeovers, counts.takeover_s = 3, 4.5
        one._act(Publish(4, gap=True, takeover=True))
        one._act(Publish(5, gap=False, takeover=False))
    first, second = spans.named("take over")
    for span, shard, took_s in ((first, 3, 2.5), (second, 4, 1.0)):
        assert span.attributes == {"shard": shard}
        assert span.start_time is not None
        assert span.end_time is not None
        assert (span.end_time - span.start_time) / 1e9 == pytest.approx(took_s, abs=0.1)
