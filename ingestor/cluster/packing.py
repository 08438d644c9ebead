"""Pack planned connections into shards, and say what workers would carry of them.

Pure and deterministic. A shard holds its share of each market's connections, so that every equal
deal of shards to workers keeps the venues' limits. Connections that have a shard keep it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Final

SHARDS_PER_WORKER: Final = 10
SHARDS_MAX: Final = 4_096
GOLDEN: Final = 0.618034
PARCELS_PER_SHARD: Final = 4  # a connection of more than this part of a shard is cut


@dataclass(frozen=True, slots=True)
class Parcel:
    """One connection to be packed.

    number: of the connection in the whole plan. pool: whose limits it counts against, such as
    "acme spot". weight: expected messages per second, or anything in proportion.
    """

    number: int
    pool: str
    weight: float = 1.0


def shard_count(workers_max: int, connections: int) -> int:
    """Return the number of shards for a cluster: fixed for its life.

    It is the power of two that is nearest to ten for each worker, and no more than connections.

    Args:
        workers_max: the most workers that the cluster shall ever have.
        connections: how many the first plan has.
    """
    wanted = max(1, workers_max) * SHARDS_PER_WORKER
    below = 1 << (wanted.bit_length() - 1)
    nearest = below if wanted - below < 2 * below - wanted else 2 * below
    fitting = 1 << (max(1, connections).bit_length() - 1)
    return min(nearest, fitting, SHARDS_MAX)


def cut(weights: Sequence[float], cap: float) -> list[range]:
    """Cut the instruments of a connection where it would be too heavy; return their places.

    A connection is the smallest thing that can be packed: a hot one sets the load of its worker.
    An instrument that is heavier than the cap gets a connection of its own.

    Args:
        weights: of the instruments, in order.
        cap: what a connection should weigh at most, in the same unit.
    """
    found = []
    first, held = 0, 0.0
    for place, weight in enumerate(weights):
        if place > first and held + weight > cap:
            found.append(range(first, place))
            first, held = place, 0.0
        held += weight
    return [*found, range(first, len(weights))] if weights else []


def pack(
    parcels: Iterable[Parcel], shards: int, placed: Mapping[int, int] | None = None
) -> dict[int, int]:
    """Return the shard of each connection, by its number.

    Heavy connections go first, each into the lightest shard that lacks its share of the pool.
    Equally light shards are filled in a spread order: brokers deal contiguous ranges, or combs.

    Args:
        parcels: all connections of the plan.
        shards: how many there are.
        placed: the shards of connections that stay where they are.
    """
    everything = list(parcels)
    stay = {
        item.number: placed[item.number]
        for item in everything
        if placed and 0 <= placed.get(item.number, -1) < shards
    }
    share = {
        pool: -(-count // shards)
        for pool, count in Counter(item.pool for item in everything).items()
    }
    held: Counter[tuple[str, int]] = Counter()
    loads = [0.0] * shards
    for item in everything:
        shard = stay.get(item.number)
        if shard is not None:
            held[item.pool, shard] += 1
            loads[shard] += item.weight
    order = _spread(shards)
    heap = [(loads[shard], place, shard) for place, shard in enumerate(order)]
    heapq.heapify(heap)
    for parcel in sorted(everything, key=lambda one: (-one.weight, one.pool, one.number)):
        if parcel.number not in stay:
            stay[parcel.number] = _place(parcel, heap, held, share[parcel.pool])
    return stay


def _place(
    parcel: Parcel,
    heap: list[tuple[float, int, int]],
    held: Counter[tuple[str, int]],
    share: int,
) -> int:
    """Put a connection into the lightest shard with room for its pool; return the shard.

    Room is always there: the shares of all shards hold all connections of the pool.
    """
    passed = []
    while held[parcel.pool, heap[0][2]] >= share:
        passed.append(heapq.heappop(heap))
    load, place, shard = heap[0]
    heapq.heapreplace(heap, (load + parcel.weight, place, shard))
    for item in passed:
        heapq.heappush(heap, item)
    held[parcel.pool, shard] += 1
    return shard


def _spread(shards: int) -> list[int]:
    """Return all shards in an order whose beginnings are spread evenly over the whole.

    Steps of the golden section: contiguous ranges and combs of it are alike, so that no way of
    dealing shards gives the heaviest connections to one worker.
    """
    step = next(
        item for item in range(round(shards * GOLDEN), 2 * shards + 2) if gcd(item, shards) == 1
    )
    return [place * step % shards for place in range(shards)]


@dataclass(frozen=True, slots=True)
class PoolLimit:
    """Bound what an egress address may have of one pool.

    connections: at most at a time; 0 = no limit. connects_per_s: how fast they may be opened.
    """

    connections: int = 0
    connects_per_s: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """Say what one pool comes to with one worker fewer.

    per_address: connections of the fullest egress address then. takeover_s: how long a survivor
    takes at least to open its part of the lost worker's connections.
    """

    pool: str
    connections: int
    per_address: int
    limit: int
    takeover_s: float

    @property
    def holds(self) -> bool:
        return self.limit == 0 or self.per_address <= self.limit


def pool_loads(
    parcels: Iterable[Parcel],
    packed: Mapping[int, int],
    workers: int,
    limits: Mapping[str, PoolLimit],
    workers_per_egress: int = 1,
) -> list[PoolLoad]:
    """Return what each pool comes to when one of the workers is lost.

    Args:
        parcels: all connections of the plan.
        packed: the shard of each, by number.
        workers: how many the cluster has.
        limits: of each pool; a pool without an entry has none.
        workers_per_egress: how many workers share one source address.
    """
    left = max(1, workers - 1)
    shards = 1 + max(packed.values(), default=0)
    per_worker = -(-shards // left)
    lost = -(-shards // max(1, workers))
    totals: Counter[str] = Counter()
    of_shard: Counter[tuple[str, int]] = Counter()
    for parcel in parcels:
        totals[parcel.pool] += 1
        of_shard[parcel.pool, packed[parcel.number]] += 1
    fullest: dict[str, list[int]] = {}
    for (pool, _), count in of_shard.items():
        fullest.setdefault(pool, []).append(count)
    found = []
    for pool, total in sorted(totals.items()):
        counts = sorted(fullest[pool], reverse=True)
        limit = limits.get(pool, PoolLimit())
        most = sum(counts[:per_worker]) * min(workers_per_egress, left)
        new = -(-sum(counts[:lost]) // left) * min(workers_per_egress, left)
        found.append(
            PoolLoad(pool, total, most, limit.connections, new / max(limit.connects_per_s, 1e-9))
        )
    return found


def deal(
    shards: int,
    workers: Sequence[Hashable],
    before: Mapping[int, Hashable] | None = None,
) -> dict[int, Hashable]:
    """Return the worker of each shard, as the broker deals them: equal counts, least moves.

    Args:
        shards: how many there are.
        workers: who is there. Without any, nothing is dealt.
        before: who had which shard.
    """
    if not workers:
        return {}
    least, more = divmod(shards, len(workers))
    owned: dict[Hashable, list[int]] = {worker: [] for worker in workers}
    free = []
    for shard in range(shards):
        owner = (before or {}).get(shard)
        if owner in owned:
            owned[owner].append(shard)
        else:
            free.append(shard)
    # Those who have most keep one more than the others: that moves the fewest.
    rich = sorted(workers, key=lambda worker: -len(owned[worker]))
    quota = {worker: least + (place < more) for place, worker in enumerate(rich)}
    for worker in workers:
        while len(owned[worker]) > quota[worker]:
            free.append(owned[worker].pop())
    for worker in workers:
        while len(owned[worker]) < quota[worker]:
            owned[worker].append(free.pop())
    return {shard: worker for worker, mine in owned.items() for shard in mine}


def busiest(
    parcels: Iterable[Parcel], packed: Mapping[int, int], dealt: Mapping[int, Hashable]
) -> float:
    """Return the load of the busiest worker in units of the mean.

    Args:
        parcels: all connections of the plan.
        packed: the shard of each, by number.
        dealt: the worker of each shard.
    """
    loads: dict[Hashable, float] = dict.fromkeys(dealt.values(), 0.0)
    for parcel in parcels:
        loads[dealt[packed[parcel.number]]] += parcel.weight
    total = sum(loads.values())
    return max(loads.values()) * len(loads) / total if total else 1.0
