"""What operators read of claims, and a log that was compacted."""

from __future__ import annotations

from ingestor.cluster.claims import Claim, ClaimState, ClaimTable, Life

A, B, C = Life("a", "01"), Life("b", "02"), Life("c", "03")


def test_an_operator_reads_the_state_of_a_shard() -> None:
    table = ClaimTable()
    states = [table[1].state]
    for claim in (
        Claim(1, A, ClaimState.LIVE),
        Claim(1, A, ClaimState.OFFERED),
        Claim(1, B, ClaimState.READY, over=A),
        Claim(1, C, ClaimState.RELEASED),  # it was never C's
        Claim(1, A, ClaimState.RELEASED),
    ):
        table.take(claim)
        states.append(table[1].state)
    assert states == ["unclaimed", "live", "offered", "ready", "ready", "released"]
    assert table.lives() == set()


def test_a_log_that_was_compacted_is_taken_as_it_begins() -> None:
    table = ClaimTable()
    assert table.take(Claim(1, B, ClaimState.READY, over=A))
    assert table[1].owner == A
