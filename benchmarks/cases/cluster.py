"""What a cluster of a hundred workers would carry: packed, dealt, killed, joined and drained.

Measured: the pure functions that `ingestor cluster apply` packs with, and a deal as the broker's
assignor makes it. Then a real group of 20 light members on the tests' Kafka, sessions of 6 s: how
long shards are without an owner, and how many move. Without Java, and with --quick, only the first.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from benchmarks.harness import group
from ingestor.cluster.packing import PARCELS_PER_SHARD, Parcel, busiest, cut, deal, pack
from tests.kafka.broker import missing_tools

WORKERS: Final = 100
SHARDS: Final = 1_024
VENUES: Final = 5
KILLED: Final = 10
GROUP_MEMBERS: Final = 20
GROUP_SHARDS: Final = 256


def run(*, quick: bool = False) -> dict[str, Any]:
    """Pack 50,000 feeds on connections of 10, and 5,000,000 on connections of 200."""
    plans = [(50_000, 10)] if quick else [(50_000, 10), (5_000_000, 200)]
    rows = [row for feeds, each in plans for row in _rows(feeds, each)]
    headline = {"cluster_busiest": max(row["busiest"] for row in rows)}
    if not quick and missing_tools() is None:
        found = _real_group()
        headline["cluster_group_killed_s"] = found[1]["seconds"]
        rows += found
    headline["cluster_moved_by_others"] = max(row["moved_by_others"] for row in rows)
    return {"results": rows, "headline": headline}


def _real_group() -> list[dict[str, Any]]:
    with group.broker() as broker:
        servers = broker.bootstrap_servers
        asyncio.run(group.prepare_group(servers, GROUP_SHARDS))
        return group.measure(servers, GROUP_MEMBERS, GROUP_SHARDS)


def _rows(feeds: int, each: int) -> list[dict[str, Any]]:
    parcels = connections(feeds, each)
    started_s = time.perf_counter()
    packed = pack(parcels, SHARDS)
    pack_s = time.perf_counter() - started_s
    names = [f"w{number}" for number in range(WORKERS)]
    dealt = deal(SHARDS, names)
    survivors = names[KILLED:]
    events: list[tuple[str, Sequence[str]]] = [
        ("dealt", names),
        ("one killed", names[1:]),
        (f"{KILLED} killed", survivors),
        (f"{KILLED} joined", [*names, *(f"new{number}" for number in range(KILLED))]),
        ("one drained", names[:-1]),
    ]
    found = []
    for event, workers in events:
        now = deal(SHARDS, workers, dealt)
        moved = [shard for shard in dealt if dealt[shard] != now[shard]]
        found.append(
            {
                "feeds": feeds,
                "connections": len(parcels),
                "event": event,
                "workers": len(workers),
                "busiest": round(busiest(parcels, packed, now), 3),
                "moved": len(moved),
                "moved_by_others": _needless(dealt, now, workers),
                "pack_s": round(pack_s, 3),
            }
        )
    return found


def _needless(
    before: Mapping[int, Hashable], now: Mapping[int, Hashable], workers: Sequence[str]
) -> int:
    """Return how many shards moved between two workers that were there before and after."""
    old, new = set(before.values()), set(workers)
    stayed = old & new
    return sum(
        before[shard] != now[shard] and before[shard] in stayed and now[shard] in stayed
        for shard in before
    )


def connections(feeds: int, each: int) -> list[Parcel]:
    """Return connections of `each` feeds whose rates follow a power law in each venue."""
    rng = random.Random(7)
    parcels: list[Parcel] = []
    for venue in range(VENUES):
        rates = [1 / (rank + 20) ** 0.9 for rank in range(feeds // VENUES)]
        rng.shuffle(rates)
        cap = sum(rates) * VENUES / SHARDS / PARCELS_PER_SHARD
        for first in range(0, len(rates), each):
            together = rates[first : first + each]
            for places in cut(together, cap):
                weight = sum(together[place] for place in places)
                parcels.append(Parcel(len(parcels), f"venue {venue}", weight))
    return parcels
