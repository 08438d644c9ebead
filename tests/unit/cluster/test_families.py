"""What is counted of a worker, and by whom shards without an owner are."""

from __future__ import annotations

from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.families import cluster_families
from ingestor.cluster.shards import ShardMachine

ME, OTHER = Life("node7", "01"), Life("node8", "02")


def samples(machine: ShardMachine) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in cluster_families(machine, 4, 2, {0: 9})
        for sample in family.samples
    }


def test_the_owner_of_shard_0_counts_for_all() -> None:
    machine = ShardMachine(ME, lambda: 0.0)
    assert ("ingestor_cluster_shards_unclaimed",) not in samples(machine)
    machine.assigned([0, 2])
    machine.read(Claim(0, ME, ClaimState.LIVE))
    machine.read(Claim(1, OTHER, ClaimState.LIVE))
    machine.runs(0, 7)
    machine.runs(2, 6)
    found = samples(machine)
    assert found["ingestor_cluster_shards_unclaimed",] == 2
    assert found["ingestor_cluster_shards", "live"] == 1
    assert found["ingestor_cluster_shards", "claiming"] == 1
    assert found["ingestor_cluster_plan_revision",] == 6
    assert found["ingestor_cluster_fenced_total",] == 2
    assert found["ingestor_cluster_member", "node7"] == 1
    assert found["ingestor_cluster_shard_messages_total", "0"] == 9
