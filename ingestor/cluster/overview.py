"""Compute the cluster's page from the claims, as one worker has read them. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ingestor.cluster.claims import Life, Move
from ingestor.cluster.shards import ShardMachine


def overview(name: str, machine: ShardMachine, shards: int, revision: int) -> dict[str, Any]:
    """Return workers, shards and the last moves, for `/cluster.json`.

    Args:
        name: Of the cluster.
        machine: Of the worker that is asked.
        shards: How many the cluster has.
        revision: The newest of the plan that the worker has seen.
    """
    table = machine.table
    entries = {shard: table[shard] for shard in range(shards)}
    owned = Counter(entry.owner for entry in entries.values() if entry.owner is not None)
    return {
        "cluster": name,
        "member": machine.me.member,
        "session": machine.me.session,
        "revision": revision,
        "live": sum(entry.state == "live" for entry in entries.values()),
        "in_doubt": machine.in_doubt,
        "takeovers": table.takeovers,
        "workers": [
            {
                "member": life.member,
                "session": life.session,
                "where": table.where.get(life.member, ""),
                "shards": owned[life],
            }
            for life in sorted(owned)
        ],
        "shards": [
            {
                "shard": shard,
                "state": entry.state,
                "owner": _name(entry.owner),
                "ready": _name(entry.ready),
                "since_ms": entry.since_ms,
                "revision": entry.revision,
                "reason": entry.refused.reason if entry.refused else "",
            }
            for shard, entry in entries.items()
        ],
        "moves": [_move(move) for move in reversed(table.moves)],
    }


def _move(move: Move) -> dict[str, Any]:
    return {
        "time_ms": move.ts_ms,
        "shard": move.shard,
        "from": _name(move.before),
        "to": move.owner.member,
        "takeover": move.takeover,
    }


def _name(life: Life | None) -> str:
    return "" if life is None else life.member
