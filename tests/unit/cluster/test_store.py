"""What is written for a revision, and whom names are taken for."""

from __future__ import annotations

import pytest

from ingestor.cluster.claims import Claim, ClaimState, ClaimTable, Life
from ingestor.cluster.records import PLAN_KEY, ShardLog
from ingestor.cluster.store import (
    Cluster,
    check_member,
    check_name,
    closing_of,
    revision_records,
)
from ingestor.model.errors import ClusterError


def test_only_differences_are_written_before_the_closing_record() -> None:
    before = ShardLog()
    before.take(b"1", b"old")
    before.take(b"2", b"same")
    before.take(b"3", b"gone")
    after = {0: {b"1": b"new", b"2": b"same"}, 1: {b"4": b"more"}}
    closing = {0: closing_of(b"c0"), 1: closing_of(b"c1")}
    assert revision_records({0: before}, after, closing) == {
        0: [(b"3", None), (b"1", b"new"), (PLAN_KEY, b"c0")],
        1: [(b"4", b"more"), (PLAN_KEY, b"c1")],
    }


def test_names_are_checked() -> None:
    check_name("prod", "prod")
    with pytest.raises(ClusterError, match="did you mean 'prod'"):
        check_name("prdo", "prod")
    with pytest.raises(ClusterError, match="those of 'prod'"):
        check_name("zzz", "prod")
    table = ClaimTable()
    table.take(Claim(0, Life("node7", "01"), ClaimState.LIVE))
    cluster = Cluster("prod", {}, table)
    check_member(cluster, "node7")
    with pytest.raises(ClusterError, match="did you mean 'node7'"):
        check_member(cluster, "node8")
    with pytest.raises(ClusterError, match="there are none"):
        check_member(Cluster("prod", {}, ClaimTable()), "x")
