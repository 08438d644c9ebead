"""The steps of one worker: planned moves, takeovers, races, and what operators read of claims."""

from __future__ import annotations

import pytest

from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.shards import (
    HANDOVER_S,
    OPEN_S,
    Drop,
    Fence,
    Open,
    Phase,
    Publish,
    Release,
    ShardMachine,
    Write,
)

A, B, C = Life("a", "01"), Life("b", "02"), Life("c", "03")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def live(shard: int, life: Life, over: Life | None = None) -> Claim:
    return Claim(shard, life, ClaimState.LIVE, over=over)


def owner_of(clock: Clock, life: Life, *shards: int) -> ShardMachine:
    machine = ShardMachine(life, clock)
    machine.assigned(shards)
    for shard in shards:
        machine.read(live(shard, life))
    return machine


def asking(clock: Clock) -> ShardMachine:
    """B, whose connections of shard 1 stand, and which asked A for it."""
    machine = ShardMachine(B, clock)
    machine.read(live(1, A))
    machine.read(Claim(1, A, ClaimState.OFFERED))
    machine.assigned([1])
    machine.opened(1)
    machine.read(Claim(1, B, ClaimState.READY, over=A))
    return machine


def test_a_free_shard_is_claimed_and_published_once_the_claim_is_read(clock: Clock) -> None:
    machine = ShardMachine(A, clock)
    assert machine.assigned([3]) == [Open(3), Write(live(3, A))]
    assert not machine.publishes(3)
    assert machine.read(live(3, A)) == [Publish(3, gap=False, takeover=False)]
    assert machine.phases == {3: Phase.LIVE}


def test_a_planned_move_leaves_no_hole(clock: Clock) -> None:
    old, new = owner_of(clock, A, 3), ShardMachine(B, clock)
    new.read(live(3, A))
    offered = Claim(3, A, ClaimState.OFFERED)
    assert old.revoked([3]) == [Write(offered)]
    assert old.publishes(3)
    old.read(offered)
    new.read(offered)
    assert new.assigned([3]) == [Open(3)]
    ready = Claim(3, B, ClaimState.READY, over=A)
    assert new.opened(3) == [Write(ready)]
    new.read(ready)
    assert old.read(ready) == [Release(3)]
    assert old.publishes(3)  # what it sent is under way
    released = Claim(3, A, ClaimState.RELEASED)
    assert old.drained(3) == [Write(released), Drop(3)]
    assert old.is_empty
    clock.now_s += 0.5
    assert new.read(released) == [Write(live(3, B))]
    assert new.read(live(3, B)) == [Publish(3, gap=False, takeover=False)]
    assert (new.counts.handovers, new.counts.handover_s) == (1, 0.5)
    assert old.counts.planned == 1


def test_a_dead_owner_is_fenced_once_for_all_its_shards(clock: Clock) -> None:
    machine = ShardMachine(B, clock)
    machine.read(live(1, A))
    machine.read(live(2, A))
    assert machine.assigned([1, 2]) == [Open(1), Fence(A), Open(2)]
    claims = [Write(live(1, B, over=A)), Write(live(2, B, over=A))]
    assert machine.fenced_other(A) == claims
    assert machine.read(live(1, B, over=A)) == [Publish(1, gap=True, takeover=True)]
    assert machine.counts.takeovers == 1


def test_an_owner_that_does_not_release_is_fenced(clock: Clock) -> None:
    machine = ShardMachine(B, clock)
    machine.read(live(1, A))
    machine.read(Claim(1, A, ClaimState.OFFERED))
    machine.assigned([1])
    machine.opened(1)
    clock.now_s += HANDOVER_S - 0.1
    assert machine.tick() == []
    clock.now_s += 0.2
    assert machine.tick() == [Fence(A)]
    assert machine.counts.timeouts == 1


def test_a_connection_that_never_stands_holds_up_no_handover(clock: Clock) -> None:
    machine = ShardMachine(B, clock)
    machine.read(live(1, A))
    machine.read(Claim(1, A, ClaimState.OFFERED))
    machine.assigned([1])
    clock.now_s += OPEN_S
    assert machine.tick() == [Write(Claim(1, B, ClaimState.READY, over=A))]


def test_of_two_claims_to_a_free_shard_the_first_counts(clock: Clock) -> None:
    """A worker that slept between its look at the claims and its own claim does not publish."""
    sleeper = ShardMachine(A, clock)
    sleeper.assigned([1])
    assert sleeper.read(live(1, B)) == []
    assert sleeper.read(live(1, A)) == []
    assert not sleeper.publishes(1)
    assert sleeper.table[1].owner == B
    assert sleeper.revoked([1]) == [Drop(1)]  # the group tells it a moment later


def test_the_owner_repeats_its_claim_after_one_that_does_not_count(clock: Clock) -> None:
    """The topic is compacted: the newest record of a shard must be the one in force."""
    owner = owner_of(clock, B, 1)
    assert owner.read(live(1, A)) == [Write(live(1, B, over=B))]
    assert owner.read(live(1, B, over=B)) == []
    assert owner.publishes(1)


def test_a_shard_taken_by_another_ends_this_life(clock: Clock) -> None:
    machine = owner_of(clock, A, 1)
    assert machine.read(live(1, B, over=A)) == [Drop(1)]
    assert machine.is_fenced


def test_a_lost_shard_is_published_until_somebody_takes_it(clock: Clock) -> None:
    machine = owner_of(clock, A, 1)
    assert machine.lost([1]) == []
    assert machine.in_doubt
    assert machine.publishes(1)
    machine.assigned([1])
    assert not machine.in_doubt


def test_a_shard_that_comes_back_before_it_went_is_claimed_again(clock: Clock) -> None:
    machine = owner_of(clock, A, 1)
    machine.revoked([1])
    assert machine.assigned([1]) == [Write(live(1, A, over=A))]
    assert machine.phases == {1: Phase.LIVE}


def test_where_members_may_be_called_lost_an_owner_may_still_offer(clock: Clock) -> None:
    machine = ShardMachine(B, clock, asks_first=True)
    machine.read(live(1, A))
    assert machine.assigned([1]) == [Open(1)]
    assert machine.tick() == []
    assert machine.read(Claim(1, A, ClaimState.OFFERED)) == []  # it goes on until these stand
    assert machine.opened(1) == [Write(Claim(1, B, ClaimState.READY, over=A))]


def test_a_shard_that_was_asked_for_is_taken_and_offered_when_the_group_wants_it_back(
    clock: Clock,
) -> None:
    """Its owner will release it to this worker, whomever the group thinks of next."""
    machine = asking(clock)
    assert machine.revoked([1]) == []
    assert machine.is_giving_back(1)
    assert machine.read(Claim(1, A, ClaimState.RELEASED)) == [Write(live(1, B))]
    assert machine.is_giving_back(1)
    offered = Claim(1, B, ClaimState.OFFERED)
    assert machine.read(live(1, B)) == [Publish(1, gap=False, takeover=False), Write(offered)]
    assert machine.is_giving_back(1)
    machine.read(offered)
    assert not machine.is_giving_back(1)
    assert machine.publishes(1)


def test_a_shard_that_the_group_wants_back_is_given_up_if_its_owner_does_not_answer(
    clock: Clock,
) -> None:
    machine = asking(clock)
    machine.revoked([1])
    clock.now_s += HANDOVER_S
    assert machine.tick() == [Drop(1)]
    assert not machine.is_giving_back(1)
    assert not machine.counts.fences


def test_a_shard_that_the_group_wants_back_is_given_up_if_another_took_it(clock: Clock) -> None:
    machine = asking(clock)
    machine.revoked([1])
    assert machine.read(live(1, C, over=A)) == [Drop(1)]


def test_an_offer_before_the_shard_came_back_is_no_offer(clock: Clock) -> None:
    """The next worker would find the claim to own between the two, and fence this life."""
    machine = owner_of(clock, A, 1)
    offered = Claim(1, A, ClaimState.OFFERED)
    machine.revoked([1])
    machine.read(offered)
    assert not machine.is_giving_back(1)
    machine.assigned([1])
    assert machine.revoked([1]) == [Write(offered)]
    assert machine.is_giving_back(1)
    machine.read(live(1, A, over=A))
    assert machine.is_giving_back(1)
    machine.read(offered)
    assert not machine.is_giving_back(1)


def test_a_drain_releases_what_nobody_asks_for(clock: Clock) -> None:
    machine = owner_of(clock, A, 1)
    machine.revoked([1])
    assert machine.give_up() == [Release(1)]
    assert machine.drained(1) == [Write(Claim(1, A, ClaimState.RELEASED)), Drop(1)]
    assert machine.is_empty


def test_a_new_revision_is_claimed_and_a_bad_one_refused(clock: Clock) -> None:
    machine = owner_of(clock, A, 1)
    assert machine.runs(1, 7) == [Write(Claim(1, A, ClaimState.LIVE, 7, over=A))]
    assert machine.runs(1, 7) == []
    refusal = Claim(1, A, ClaimState.REFUSED, 8, reason="no venue 'x'")
    assert machine.refused(1, 8, "no venue 'x'") == [Write(refusal)]
    machine.read(refusal)
    assert machine.table[1].state == "refused"
    assert machine.publishes(1)


def test_only_so_many_shards_are_taken_from_a_living_owner_at_a_time(clock: Clock) -> None:
    machine = ShardMachine(B, clock, handover_parallel=2)
    for shard in range(4):
        machine.read(live(shard, A))
        machine.read(Claim(shard, A, ClaimState.OFFERED))
    machine.read(live(4, C))  # which was lost: a takeover waits for nobody
    actions = machine.assigned(range(5))
    assert actions == [Open(0), Open(1), Open(4), Fence(C)]
    assert machine.phases[2] is machine.phases[3] is Phase.QUEUED
    assert machine.tick() == []
    machine.opened(0)
    assert machine.tick() == []  # its owner has not released it yet
    machine.read(Claim(0, A, ClaimState.RELEASED))
    assert machine.tick() == [Open(2)]
    assert machine.revoked([3]) == [Drop(3)]
    assert 3 not in machine.phases


def test_all_that_a_dead_owner_offered_is_taken_once_it_is_fenced(clock: Clock) -> None:
    machine = ShardMachine(B, clock, handover_parallel=1)
    for shard in range(2):
        machine.read(live(shard, A))
        machine.read(Claim(shard, A, ClaimState.OFFERED))
    machine.assigned([0, 1])
    machine.opened(0)
    clock.now_s += HANDOVER_S
    assert machine.tick() == [Fence(A), Open(1)]
    assert machine.fenced_other(A) == [Write(live(0, B, over=A)), Write(live(1, B, over=A))]
