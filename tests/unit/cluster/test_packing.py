"""Packing: each connection once, shares of venues kept, few moves, workers equally busy."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases.cluster import connections
from ingestor.cluster.packing import (
    Parcel,
    PoolLimit,
    busiest,
    cut,
    deal,
    pack,
    pool_loads,
    shard_count,
)

weights = st.floats(0.1, 1e5)
plans = st.lists(
    st.tuples(st.sampled_from(["binance spot", "okx swap", "kraken spot"]), weights), max_size=60
).map(lambda found: [Parcel(number, *one) for number, one in enumerate(found)])


@given(plans, st.integers(1, 16))
def test_each_connection_has_one_shard_and_each_shard_its_share(
    parcels: list[Parcel], shards: int
) -> None:
    packed = pack(parcels, shards)
    assert sorted(packed) == [one.number for one in parcels]
    assert all(0 <= shard < shards for shard in packed.values())
    totals = Counter(one.pool for one in parcels)
    held = Counter((one.pool, packed[one.number]) for one in parcels)
    assert all(count <= -(-totals[pool] // shards) for (pool, _), count in held.items())
    assert pack(parcels, shards) == packed


@given(plans, plans, st.integers(1, 16), st.data())
def test_what_is_placed_stays_placed(
    before: list[Parcel], after: list[Parcel], shards: int, data: st.DataObject
) -> None:
    packed = pack(before, shards)
    kept = data.draw(st.sets(st.sampled_from(sorted(packed)))) if packed else set()
    new = [Parcel(one.number + 1_000, one.pool, one.weight) for one in after]
    plan = [one for one in before if one.number in kept] + new
    again = pack(plan, shards, packed)
    assert set(again) == {one.number for one in plan}
    assert all(again[number] == packed[number] for number in kept)


@given(plans, st.integers(1, 16), st.integers(2, 6), st.integers(1, 3))
def test_limits_hold_with_one_worker_fewer(
    parcels: list[Parcel], shards: int, workers: int, egress: int
) -> None:
    """No deal of equal counts gives an address more than what was computed."""
    packed = pack(parcels, shards)
    loads = {one.pool: one for one in pool_loads(parcels, packed, workers, {}, egress)}
    dealt = deal(1 + max(packed.values(), default=0), range(workers - 1))
    held: Counter[tuple[str, int]] = Counter()
    for one in parcels:
        worker = dealt[packed[one.number]]
        assert isinstance(worker, int)
        held[one.pool, worker // egress] += 1
    assert all(count <= loads[pool].per_address for (pool, _), count in held.items())


def test_a_limit_is_judged_and_a_takeover_estimated() -> None:
    parcels = [Parcel(number, "okx swap") for number in range(64)]
    packed = pack(parcels, 16)
    limits = {"okx swap": PoolLimit(connections=30, connects_per_s=2.0)}
    with_three, with_four = (pool_loads(parcels, packed, workers, limits)[0] for workers in (3, 4))
    assert (with_three.per_address, with_three.holds) == (32, False)
    assert (with_four.per_address, with_four.holds) == (24, True)
    assert with_three.takeover_s == 6.0  # 24 connections lost, 12 for each survivor, 2 a second


@given(st.integers(1, 200), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 7))
def test_a_deal_is_equal_and_moves_few(shards: int, joined: list[int], leaver: int) -> None:
    workers = ["a", "b", "c", *(f"w{one}" for one in sorted(set(joined)))]
    first = deal(shards, workers)
    counts = Counter(first.values())
    assert max(counts.values()) - min(counts[worker] for worker in workers) <= 1
    gone = workers[leaver % len(workers)]
    left = [worker for worker in workers if worker != gone]
    second = deal(shards, left, first)
    moved = [shard for shard in first if first[shard] != second[shard]]
    assert all(first[shard] == gone for shard in moved)
    third = deal(shards, [*left, "new"], second)
    came = [shard for shard in second if second[shard] != third[shard]]
    assert all(third[shard] == "new" for shard in came)
    assert len(came) == Counter(third.values())["new"] <= -(-shards // (len(left) + 1))


def test_nobody_gets_nothing() -> None:
    assert deal(8, []) == {}


def test_the_number_of_shards_follows_workers_and_connections() -> None:
    assert shard_count(100, 25_000) == 1_024
    assert shard_count(3, 10_000) == 32
    assert shard_count(6, 10_000) == 64
    assert shard_count(100, 50) == 32
    assert shard_count(1, 0) == 1
    assert shard_count(10_000, 1_000_000) == 4_096


def test_the_busiest_of_a_hundred_workers_has_little_more_than_the_mean() -> None:
    parcels = connections(50_000, 10)
    packed = pack(parcels, 1_024)
    dealt = deal(1_024, range(100))
    assert busiest(parcels, packed, dealt) <= 1.1
    without_one = deal(1_024, range(99), dealt)
    assert sum(dealt[shard] != without_one[shard] for shard in dealt) <= 11
    assert busiest(parcels, packed, without_one) <= 1.1


@given(st.lists(weights, max_size=20), st.floats(0.1, 1e5))
def test_a_cut_connection_is_as_light_as_can_be(found: list[float], cap: float) -> None:
    parts = cut(found, cap)
    assert [place for part in parts for place in part] == list(range(len(found)))
    assert all(
        len(part) == 1 or sum(found[place] for place in part) <= cap * 1.001 for part in parts
    )
