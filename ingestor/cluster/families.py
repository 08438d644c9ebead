"""Make the metrics of a cluster's worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric

from ingestor.admin.exposition import counter, gauge
from ingestor.cluster.shards import Phase, ShardMachine


def cluster_families(
    machine: ShardMachine, shards: int, fenced: int, rows: Mapping[int, int]
) -> Iterator[Metric]:
    """Yield the families of a worker.

    Args:
        machine: of its present life.
        shards: how many the cluster has.
        fenced: its lives that others ended.
        rows: that came of each shard that it has.
    """
    states = gauge("cluster_shards", "Shards of this worker by state.", ("state",))
    phases = Counter(machine.phases.values())
    for phase in Phase:
        states.add_metric((phase.value,), phases[phase])
    yield states
    info = gauge("cluster_member", "1, with the name of this worker.", ("member",))
    info.add_metric((machine.me.member,), 1)
    yield info
    counts = machine.counts
    moves = counter("cluster_moves", "Shards that came to this worker, by kind.", ("kind",))
    moves.add_metric(("planned",), counts.handovers)
    moves.add_metric(("takeover",), counts.takeovers)
    yield moves
    took = counter("cluster_move_seconds", "Seconds that these moves took.", ("kind",))
    took.add_metric(("planned",), counts.handover_s)
    took.add_metric(("takeover",), counts.takeover_s)
    yield took
    for name, text, count in (
        ("cluster_handover_timeouts", "Owners that did not release in time.", counts.timeouts),
        ("cluster_fences", "Lives of others that this worker fenced.", counts.fences),
        ("cluster_fenced", "Lives of this worker that others fenced.", fenced),
    ):
        family = counter(name, text)
        family.add_metric((), count)
        yield family
    for name, text, value in (
        ("cluster_doubt", "1 while the group may have given shards away.", int(machine.in_doubt)),
        ("cluster_plan_revision", "The oldest revision of the plan that runs.", machine.revision()),
    ):
        now = gauge(name, text)
        now.add_metric((), value)
        yield now
    messages = counter("cluster_shard_messages", "Rows that came of a shard.", ("shard",))
    for shard, count in rows.items():
        messages.add_metric((str(shard),), count)
    yield messages
    if machine.phases.get(0) is Phase.LIVE:  # one worker counts for all
        unclaimed = gauge("cluster_shards_unclaimed", "Shards of the cluster that nobody has.")
        unclaimed.add_metric((), unclaimed_shards(machine, shards))
        yield unclaimed


def unclaimed_shards(machine: ShardMachine, shards: int) -> int:
    """Return how many shards of the cluster nobody publishes."""
    return sum(machine.table[shard].owner is None for shard in range(shards))
