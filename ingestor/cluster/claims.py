"""The claims of shards: what each says, and which of them count. Pure.

Claims are written to one partition, so that all workers read them in the same order. A claim to own
is a comparison and an exchange (`ClaimTable.take`): it names the owner that it replaces, and counts
only where that one is in force at its place in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

MOVES_KEPT: Final = 50  # of which the cluster's page tells


class ClaimState(Enum):
    """Name what a claim says of its shard."""

    LIVE = "live"  # I publish it
    OFFERED = "offered"  # I publish it until somebody is ready to go on
    READY = "ready"  # my connections stand, I hold their rows
    RELEASED = "released"  # all that I published is acknowledged
    REFUSED = "refused"  # I can't run its new revision


@dataclass(frozen=True, slots=True, order=True)
class Life:
    """One life of a worker. session: 16 bytes in hexadecimal, as in the rows that it publishes."""

    member: str
    session: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One record of the claims topic.

    over: whom it replaces, where it says `live`. where: the worker's address, for people.
    """

    shard: int
    life: Life
    state: ClaimState
    revision: int = 0
    over: Life | None = None
    reason: str = ""
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Move:
    """One shard that came to another life. before: whose it was. takeover: that one was fenced."""

    ts_ms: int
    shard: int
    before: Life | None
    owner: Life
    takeover: bool


@dataclass(slots=True)
class Ownership:
    """A shard as the claims so far have it.

    owner: who publishes it, None for nobody. offered: it gives the shard away. ready: who waits for
    it. had_owner: somebody published it once. last: the last owner. refused: the last refusal of a
    revision, if the owner has not run one since.
    """

    owner: Life | None = None
    offered: bool = False
    ready: Life | None = None
    had_owner: bool = False
    last: Life | None = None
    revision: int = 0
    since_ms: int = 0
    refused: Claim | None = None

    @property
    def state(self) -> str:
        """Say it in one word, for people."""
        if self.owner is None:
            return "released" if self.had_owner else "unclaimed"
        if self.refused is not None:
            return "refused"
        if not self.offered:
            return "live"
        return "offered" if self.ready is None else "ready"


class ClaimTable:
    """All claims, folded in the order of their log.

    moves: the last ones, oldest first. takeovers: how many there were. where: of each member.
    """

    def __init__(self) -> None:
        self._shards: dict[int, Ownership] = {}
        self.moves: deque[Move] = deque(maxlen=MOVES_KEPT)
        self.takeovers = 0
        self.where: dict[str, str] = {}

    def __getitem__(self, shard: int) -> Ownership:
        return self._shards.setdefault(shard, Ownership())

    def items(self) -> Iterator[tuple[int, Ownership]]:
        """Yield each shard that was ever claimed, with what holds of it."""
        yield from self._shards.items()

    def lives(self) -> set[Life]:
        """Return who owns something."""
        return {shard.owner for shard in self._shards.values() if shard.owner is not None}

    def take(self, claim: Claim, ts_ms: int = 0) -> bool:
        """Fold in the next claim of the log; return whether it counts.

        Args:
            claim: the record.
            ts_ms: its time, for display.
        """
        is_first = claim.shard not in self._shards
        entry = self[claim.shard]
        counts = self._counts(entry, claim, is_first=is_first)
        if claim.where:
            self.where[claim.life.member] = claim.where
        if counts:
            if claim.state is ClaimState.LIVE and claim.life != entry.last:
                self._moved(entry, claim, ts_ms)
            self._apply(entry, claim)
            entry.since_ms = ts_ms
            entry.last = entry.owner or entry.last
        return counts

    def _moved(self, entry: Ownership, claim: Claim, ts_ms: int) -> None:
        is_takeover = claim.over not in (None, claim.life)
        self.takeovers += is_takeover
        self.moves.append(Move(ts_ms, claim.shard, entry.last, claim.life, is_takeover))

    @staticmethod
    def _counts(entry: Ownership, claim: Claim, *, is_first: bool) -> bool:
        if is_first:  # the log before it was compacted away
            return True
        match claim.state:
            case ClaimState.LIVE:
                return entry.owner in (claim.over, claim.life)
            case ClaimState.OFFERED | ClaimState.RELEASED:
                return entry.owner == claim.life
            case ClaimState.READY:
                return entry.owner not in (None, claim.life)
            case ClaimState.REFUSED:
                return True

    @staticmethod
    def _apply(entry: Ownership, claim: Claim) -> None:
        match claim.state:
            case ClaimState.LIVE:
                entry.owner, entry.offered, entry.ready = claim.life, False, None
                entry.had_owner, entry.revision, entry.refused = True, claim.revision, None
            case ClaimState.OFFERED:
                entry.owner, entry.offered, entry.had_owner = claim.life, True, True
            case ClaimState.READY:
                entry.ready = claim.life
                entry.owner, entry.had_owner = entry.owner or claim.over, True
                entry.offered = entry.owner is not None
            case ClaimState.RELEASED:
                entry.owner, entry.offered, entry.had_owner = None, False, True
            case ClaimState.REFUSED:
                entry.refused = claim
