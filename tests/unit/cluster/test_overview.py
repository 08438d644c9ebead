"""What the cluster's page is told."""

from __future__ import annotations

from ingestor.cluster.claims import MOVES_KEPT, Claim, ClaimState, Life
from ingestor.cluster.overview import overview
from ingestor.cluster.shards import ShardMachine

A, B, C = Life("a", "01"), Life("b", "02"), Life("c", "03")
LIVE, OFFERED, READY, RELEASED = (
    ClaimState.LIVE,
    ClaimState.OFFERED,
    ClaimState.READY,
    ClaimState.RELEASED,
)


def machine() -> ShardMachine:
    return ShardMachine(A, lambda: 0.0)


def test_a_handover_and_a_takeover_are_told_apart() -> None:
    one = machine()
    for ts_ms, claim in enumerate(
        (
            Claim(0, A, LIVE, 1, where="hosta:1"),
            Claim(1, A, LIVE, 1),
            Claim(0, A, LIVE, 2, over=A),  # a newer revision is no move
            Claim(0, A, OFFERED, 2),
            Claim(0, B, READY, over=A),
            Claim(0, A, RELEASED, 2),
            Claim(0, B, LIVE, 2),
            Claim(1, C, LIVE, 2, over=A),  # which was fenced
        ),
        start=1,
    ):
        one.read(claim, ts_ms)
    found = overview("prod", one, 3, 2)
    assert (found["live"], found["takeovers"]) == (2, 1)
    assert [
        (move["shard"], move["from"], move["to"], move["takeover"]) for move in found["moves"]
    ] == [
        (1, "a", "c", True),
        (0, "a", "b", False),
        (1, "", "a", False),
        (0, "", "a", False),
    ]
    assert [worker["member"] for worker in found["workers"]] == ["b", "c"]
    assert [shard["state"] for shard in found["shards"]] == ["live", "live", "unclaimed"]


def test_only_the_last_moves_are_kept() -> None:
    one = machine()
    for turn in range(MOVES_KEPT):
        one.read(Claim(0, A, LIVE, over=B if turn else None), turn)
        one.read(Claim(0, B, LIVE, over=A), turn)
    found = overview("prod", one, 1, 0)
    assert len(found["moves"]) == MOVES_KEPT
    assert found["takeovers"] == 2 * MOVES_KEPT - 1
