"""What operators read of a refused revision."""

from __future__ import annotations

from ingestor.cluster.claims import Claim, ClaimState, ClaimTable, Life
from ingestor.cluster.records import ShardLog
from ingestor.cluster.report import report_of, report_text
from ingestor.cluster.store import Cluster


def test_a_refusal_shows_its_reason() -> None:
    table = ClaimTable()
    life = Life("node7", "01")
    table.take(Claim(0, life, ClaimState.LIVE, 1, where="10.0.0.7"))
    table.take(Claim(0, life, ClaimState.REFUSED, 2, reason="no venue 'x'"))
    found = report_of(Cluster("prod", {0: ShardLog()}, table), {"node7": [0]})
    assert found["not_live"] == [0]
    assert "shard 0 is refused by node7: no venue 'x'" in report_text(found)
    assert "node7 at 10.0.0.7: 1 shards, given 1" in report_text(found)
