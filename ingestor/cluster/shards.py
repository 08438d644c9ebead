"""Decide who owns which shard: what one worker does about the claims.

Pure: claims, assignments, answers and the time go in, actions come out. Three rules keep two
workers from publishing one shard:

- A claim to own counts only where the owner that it replaces is in force
  (`ingestor.cluster.claims`).
- A life publishes from the moment at which it reads its own claim in force, until everything it
  sent is acknowledged and it has written that it released the shard.
- Another life is replaced without its release only after it was fenced: Kafka refuses what it
  sends from then on, its claims too (`ingestor.cluster.fencing`).

Where nobody dies, a fourth one leaves no hole: whoever asked an owner to release a shard takes it,
even if the group wants it back meanwhile, and offers it then. The group gives it to the next worker
after that (`is_giving_back`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ingestor.cluster.claims import Claim, ClaimState, ClaimTable, Life


class Phase(Enum):
    """Name what this worker does with a shard."""

    QUEUED = "queued"  # its owner offers it, and other shards are opened first
    OPENING = "opening"  # it opens the connections; somebody else publishes
    WAITING = "waiting"  # it holds rows; the owner is asked to release
    FENCING = "fencing"  # it holds rows; the owner is being fenced
    CLAIMING = "claiming"  # it holds rows; its claim is written, not yet read
    LIVE = "live"  # it publishes
    OFFERED = "offered"  # it publishes for somebody else to go on
    RELEASING = "releasing"  # it waits for the last acknowledgments


_NOT_YET: Final = (Phase.QUEUED, Phase.OPENING, Phase.WAITING, Phase.FENCING)


@dataclass(frozen=True, slots=True)
class Open:
    """Open the connections of a shard and hold what they bring."""

    shard: int


@dataclass(frozen=True, slots=True)
class Write:
    """Write a claim, under the producer id of this life."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Fence:
    """Fence another life; answer with `fenced_other`."""

    life: Life


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish what is held of a shard and what follows. gap: rows may be missing before it."""

    shard: int
    gap: bool
    takeover: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Take no more of a shard, wait for its acknowledgments, answer with `drained`."""

    shard: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connections of a shard and forget what is held of it."""

    shard: int


Action = Open | Write | Fence | Publish | Release | Drop

HANDOVER_S: Final = 5.0  # from `ready` until the owner is taken for dead
OPEN_S: Final = 30.0  # connections that don't stand by then hold up no handover
PARALLEL: Final = 8  # shards opened at a time whose owners live
DOUBT_S: Final = 3.0  # how long an owner may take to offer, where it may not have been asked yet


@dataclass(slots=True)
class _Holding:
    """A shard that this worker has to do with. since_s: when its phase began.

    gap, takeover: as for `Publish`. rival: whom it takes the shard from. asked: whether it asked
    that one to release it. assigned: whether the group gives it to this worker. patience_s: how
    long the phase WAITING may take.
    """

    phase: Phase
    since_s: float
    patience_s: float = 0.0
    assigned: bool = True
    gap: bool = False
    takeover: bool = False
    rival: Life | None = None
    asked: bool = False


@dataclass(slots=True)
class Counts:
    """Count what a worker did.

    planned: shards that it gave away in order. takeovers, takeover_s: shards that it took from lost
    workers, and seconds from the assignment on. handovers, handover_s: those that it was given in
    order. fences: lives that it fenced. timeouts: owners that did not release in time.
    """

    planned: int = 0
    takeovers: int = 0
    takeover_s: float = 0.0
    handovers: int = 0
    handover_s: float = 0.0
    fences: int = 0
    timeouts: int = 0


class ShardMachine:
    """One life's part in the cluster.

    Each method takes one event and returns what is to be done, in order. Claims are to be written
    in that order too.
    """

    def __init__(
        self,
        me: Life,
        clock_s: Callable[[], float],
        *,
        asks_first: bool = False,
        handover_s: float = HANDOVER_S,
        open_s: float = OPEN_S,
        handover_parallel: int = PARALLEL,
    ) -> None:
        """Create the shard machine.

        Args:
            me: this life.
            clock_s: returns monotonic seconds.
            asks_first: wait for the offer of an owner that was not asked to go; for group protocols
                that call a member lost while it still is one.
            handover_s: how long an owner may take to release a shard.
            open_s: how long connections may take before their shard is claimed all the same.
            handover_parallel: how many shards are taken from living owners at a time.
        """
        self.me = me
        self.table = ClaimTable()
        self.counts = Counts()
        self._clock_s = clock_s
        self._asks_first = asks_first
        self._handover_s = handover_s
        self._open_s = open_s
        self._parallel = handover_parallel
        self._held: dict[int, _Holding] = {}
        self._asked_s: dict[int, float] = {}
        self._unread: Counter[int] = Counter()  # claims by this life that did not come back yet
        self._fencing: set[Life] = set()
        self._fenced: set[Life] = set()
        self._revisions: dict[int, int] = {}
        self.in_doubt = False
        self.is_fenced = False  # this life is over: others have taken what it had

    # ------------------------------------------------------------------ what is shown

    @property
    def phases(self) -> dict[int, Phase]:
        """The shards that this worker has to do with."""
        return {shard: held.phase for shard, held in self._held.items()}

    def publishes(self, shard: int) -> bool:
        """Say whether this life sends rows of a shard."""
        held = self._held.get(shard)
        return held is not None and held.phase in (Phase.LIVE, Phase.OFFERED, Phase.RELEASING)

    def revision(self) -> int:
        """Return the oldest revision that this worker runs, 0 for none."""
        held = (self._revisions.get(shard, 0) for shard in self._held)
        return min(held, default=0)

    @property
    def is_empty(self) -> bool:
        """Return True if nothing is left to be given away."""
        return not self._held

    # ------------------------------------------------------------------ the group

    def assigned(self, shards: Iterable[int]) -> list[Action]:
        """The group gives shards to this worker. All claims written before were read."""
        self.in_doubt = False
        actions: list[Action] = []
        for shard in shards:
            held = self._held.get(shard)
            if held is None:
                self._asked_s[shard] = self._clock_s()
                actions += self._begin(shard)
            else:
                held.assigned = True
                if held.phase is Phase.OFFERED:
                    held.phase = Phase.LIVE
                    actions.append(self._claim(shard, ClaimState.LIVE, over=self.me))
        return actions

    def revoked(self, shards: Iterable[int]) -> list[Action]:
        """The group takes shards away. It gives them to others once all of this is done."""
        actions: list[Action] = []
        for shard in shards:
            held = self._held.get(shard)
            if held is None:
                continue
            held.assigned = False
            if held.phase is Phase.LIVE:
                self._set(held, Phase.OFFERED)
                actions.append(self._claim(shard, ClaimState.OFFERED))
            elif held.phase in _NOT_YET and not self._is_awaited(held):
                actions.append(self._drop(shard))
        return actions

    def is_giving_back(self, shard: int) -> bool:
        """Say whether the group has to wait before it gives a revoked shard to somebody else."""
        held, entry = self._held.get(shard), self.table[shard]
        if held is None or held.assigned:
            return False
        is_told = entry.offered and not self._unread[shard]
        is_unoffered = held.phase is Phase.OFFERED and entry.owner == self.me and not is_told
        return is_unoffered or held.phase is Phase.CLAIMING or self._is_awaited(held)

    @staticmethod
    def _is_awaited(held: _Holding) -> bool:
        """Say whether the owner is about to release the shard to this life, and to nobody else."""
        return held.phase is Phase.WAITING and held.asked

    def _drop(self, shard: int) -> Drop:
        del self._held[shard]
        return Drop(shard)

    def lost(self, shards: Iterable[int]) -> list[Action]:
        """Kafka may have given shards away already: what is live goes on until it is fenced."""
        self.in_doubt = True
        actions: list[Action] = []
        for shard in shards:
            held = self._held.get(shard)
            if held is not None:
                held.assigned = False
                if held.phase in _NOT_YET:
                    actions.append(self._drop(shard))
        return actions

    # ------------------------------------------------------------------ claims

    def read(self, claim: Claim, ts_ms: int = 0) -> list[Action]:
        """The next claim of the log, one's own too."""
        counts = self.table.take(claim, ts_ms)
        shard = claim.shard
        held = self._held.get(shard)
        if claim.life == self.me:
            if claim.state is not ClaimState.REFUSED:
                self._unread[shard] = max(self._unread[shard] - 1, 0)
            return [] if held is None else self._own(shard, held, claim, counts=counts)
        entry = self.table[shard]
        if not counts:
            # The newest record of a key survives: one that doesn't count must not.
            if entry.owner == self.me and held is not None and self.publishes(shard):
                state = ClaimState.OFFERED if held.phase is Phase.OFFERED else ClaimState.LIVE
                return [self._claim(shard, state, over=self.me)]
            return []
        if held is None:
            return []
        if claim.state is ClaimState.READY and held.phase is Phase.OFFERED:
            self._set(held, Phase.RELEASING)
            return [Release(shard)]
        if self.publishes(shard) and entry.owner != self.me:
            self.is_fenced = True  # nobody takes a shard from a life that can still publish
            return [self._drop(shard)]
        if held.phase in _NOT_YET:
            return self._proceed(shard, held)
        return []

    def _own(self, shard: int, held: _Holding, claim: Claim, *, counts: bool) -> list[Action]:
        """One's own claim came back."""
        if claim.state is not ClaimState.LIVE or held.phase is not Phase.CLAIMING:
            return []
        if not counts:  # somebody else was first
            if held.assigned:
                return self._wait_for_offer(shard, held)
            return [self._drop(shard)]
        self._note(shard, held)
        actions: list[Action] = [Publish(shard, held.gap, held.takeover)]
        if held.assigned:
            self._set(held, Phase.LIVE)
        else:
            self._set(held, Phase.OFFERED)
            actions.append(self._claim(shard, ClaimState.OFFERED))
        return actions

    # ------------------------------------------------------------------ answers

    def opened(self, shard: int) -> list[Action]:
        """The connections of a shard stand."""
        held = self._held.get(shard)
        return [] if held is None or held.phase is not Phase.OPENING else self._ready(shard, held)

    def drained(self, shard: int) -> list[Action]:
        """All rows of a shard are acknowledged, and no more will come."""
        held = self._held.get(shard)
        if held is None or held.phase is not Phase.RELEASING:
            return []
        del self._held[shard]
        self.counts.planned += 1
        actions: list[Action] = [self._claim(shard, ClaimState.RELEASED), Drop(shard)]
        if held.assigned:  # it came back meanwhile
            self._asked_s[shard] = self._clock_s()
            actions += self._begin(shard)
        return actions

    def fenced_other(self, life: Life) -> list[Action]:
        """Kafka refuses whatever a life sends from now on."""
        self._fencing.discard(life)
        self._fenced = (self._fenced & self.table.lives()) | {life}
        self.counts.fences += 1
        actions: list[Action] = []
        for shard, held in list(self._held.items()):
            # What it offered, too: it will release nothing any more.
            if held.phase in _NOT_YET and life in (held.rival, self.table[shard].owner):
                actions += self._proceed(shard, held)
        return actions

    def suspect(self, life: Life) -> list[Action]:
        """An operator wants a life fenced."""
        return self._fence(life)

    def refused(self, shard: int, revision: int, reason: str) -> list[Action]:
        """Take note that this worker can't run a revision of a shard, and goes on with the one
        before.

        Args:
            shard: Number of the shard.
            revision: The revision.
            reason: Text for people.

        Returns:
            Actions to take.
        """
        claim = Claim(shard, self.me, ClaimState.REFUSED, revision, reason=reason)
        return [Write(claim)]

    def runs(self, shard: int, revision: int) -> list[Action]:
        """This worker runs a revision of a shard from now on."""
        if self._revisions.get(shard) == revision:
            return []
        self._revisions[shard] = revision
        held = self._held.get(shard)
        if held is None or held.phase is not Phase.LIVE:
            return []
        return [self._claim(shard, ClaimState.LIVE, over=self.me)]

    def give_up(self) -> list[Action]:
        """Release what nobody asked for, at the end of a drain."""
        actions: list[Action] = []
        for shard, held in list(self._held.items()):
            held.assigned = False
            if held.phase in (Phase.LIVE, Phase.OFFERED):
                self._set(held, Phase.RELEASING)
                actions.append(Release(shard))
            elif held.phase is not Phase.RELEASING:
                actions.append(self._drop(shard))
        return actions

    def tick(self) -> list[Action]:
        """Act on what takes too long."""
        now_s = self._clock_s()
        actions: list[Action] = []
        for shard, held in list(self._held.items()):
            waited_s = now_s - held.since_s
            if held.phase is Phase.QUEUED:
                actions += self._proceed(shard, held)
            elif held.phase is Phase.OPENING and waited_s >= self._open_s:
                actions += self._ready(shard, held)
            elif held.phase is Phase.WAITING and waited_s >= held.patience_s:
                self.counts.timeouts += 1
                if held.assigned:
                    actions += self._take_over(shard, held)
                else:
                    actions.append(self._drop(shard))  # whoever has it now deals with its owner
        return actions

    # ------------------------------------------------------------------ steps

    def _begin(self, shard: int) -> list[Action]:
        """Take a shard that the group gives to this worker."""
        entry = self.table[shard]
        held = self._held[shard] = _Holding(Phase.QUEUED, self._clock_s(), gap=entry.had_owner)
        return self._proceed(shard, held)

    def _proceed(self, shard: int, held: _Holding) -> list[Action]:
        """Go on with a shard that is not published here yet, as the claims have it now."""
        entry = self.table[shard]
        if held.phase is Phase.QUEUED:
            is_given = entry.offered and entry.owner not in (None, self.me, *self._fenced)
            if is_given and self._handovers() >= self._parallel:
                return []  # its owner publishes it meanwhile
            self._set(held, Phase.OPENING)
            return [Open(shard), *self._proceed(shard, held)]
        if entry.owner is None or entry.owner == self.me or entry.owner in self._fenced:
            return self._own_it(shard, held)
        if held.phase is Phase.FENCING:
            return self._take_over(shard, held) if entry.owner != held.rival else []
        if held.phase is Phase.OPENING:
            if entry.offered:
                return []  # make before break: the owner goes on until these connections stand
            return (
                self._wait_for_offer(shard, held)
                if self._asks_first
                else self._take_over(shard, held)
            )
        is_other = entry.owner != held.rival
        if not held.assigned and (is_other or not entry.offered):
            return [self._drop(shard)]
        if entry.offered and (is_other or not held.asked):  # it was waited for
            self._set(held, Phase.OPENING)
        return []

    def _handovers(self) -> int:
        """Count the shards that are being taken from owners who offer them."""
        return sum(
            held.phase in (Phase.OPENING, Phase.WAITING) and self.table[shard].offered
            for shard, held in self._held.items()
        )

    def _own_it(self, shard: int, held: _Holding) -> list[Action]:
        owner = self.table[shard].owner
        held.takeover = held.takeover or owner in self._fenced
        held.gap = held.gap or held.takeover
        self._set(held, Phase.CLAIMING)
        return [self._claim(shard, ClaimState.LIVE, over=owner)]

    def _ready(self, shard: int, held: _Holding) -> list[Action]:
        """The connections stand, or took long enough: ask the owner to release."""
        entry = self.table[shard]
        if entry.owner is None or entry.owner == self.me or not entry.offered:
            return self._proceed(shard, held)
        held.gap, held.rival = False, entry.owner  # a release leaves no hole
        held.patience_s, held.asked = self._handover_s, True
        self._set(held, Phase.WAITING)
        return [self._claim(shard, ClaimState.READY, over=entry.owner)]

    def _wait_for_offer(self, shard: int, held: _Holding) -> list[Action]:
        """Give an owner time that may not know yet that it lost the shard, or to find out that
        this worker did.
        """
        held.gap, held.rival = True, self.table[shard].owner
        held.patience_s, held.asked = DOUBT_S, False
        self._set(held, Phase.WAITING)
        return self._proceed(shard, held)

    def _take_over(self, shard: int, held: _Holding) -> list[Action]:
        owner = self.table[shard].owner
        if owner is None or owner == self.me or owner in self._fenced:
            return self._own_it(shard, held)
        held.gap = held.takeover = True
        held.rival = owner
        self._set(held, Phase.FENCING)
        return self._fence(owner)

    def _fence(self, life: Life) -> list[Action]:
        if life in self._fencing or life in self._fenced:
            return []
        self._fencing.add(life)
        return [Fence(life)]

    def _claim(self, shard: int, state: ClaimState, over: Life | None = None) -> Write:
        self._unread[shard] += 1
        return Write(Claim(shard, self.me, state, self._revisions.get(shard, 0), over))

    def _set(self, held: _Holding, phase: Phase) -> None:
        held.phase, held.since_s = phase, self._clock_s()

    def _note(self, shard: int, held: _Holding) -> None:
        took_s = self._clock_s() - self._asked_s.pop(shard, held.since_s)
        if held.takeover:
            self.counts.takeovers += 1
            self.counts.takeover_s += took_s
        elif held.rival is not None:
            self.counts.handovers += 1
            self.counts.handover_s += took_s
