"""Faults that the emulator commits on demand: seeded, chosen by frame, counted exactly.

Whether a frame is hit depends on the seed and on its place in the recording alone, so a run can be
predicted and repeated. Each client that would have got the frame suffers the fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    DROP = "drop"  # the frame is not sent
    DUPLICATE = "duplicate"  # it is sent twice
    REORDER = "reorder"  # it is sent after the one that follows it
    DELAY = "delay"  # it and all after it are late by `delay_s`
    STALL = "stall"  # the client hears nothing for `stall_s`, then everything
    DISCONNECT = "disconnect"  # instead of it, the connection breaks without a close frame
    MALFORMED = "malformed"  # its second half is missing


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per frame, of which at most one comes true.

    streams: recorded streams that are hit, None = all. at: frames by number (data frames of the
    recording, from 0) that are hit whatever the probabilities say.
    """

    seed: int = 0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    stall: float = 0.0
    disconnect: float = 0.0
    malformed: float = 0.0
    delay_s: float = 0.1
    stall_s: float = 2.0
    streams: frozenset[str] | None = None
    at: Mapping[int, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chances = [getattr(self, fault) for fault in Fault]
        if min(chances) < 0 or sum(chances) > 1:
            raise ValueError("probabilities are not negative, and their sum is at most 1")

    def decide(self, number: int, streams: Sequence[str]) -> Fault | None:
        """Return what happens to a frame. number: its place among the data frames, from 0."""
        if number in self.at:
            return self.at[number]
        if self.streams is not None and self.streams.isdisjoint(streams):
            return None
        chances = [(fault, getattr(self, fault)) for fault in Fault if getattr(self, fault)]
        if not chances:
            return None
        left = Random(f"{self.seed}:{number}").random()
        for fault, chance in chances:
            left -= chance
            if left < 0:
                return fault
        return None


def malformed(payload: bytes) -> bytes:
    """Return the first half of a frame, cut between two characters."""
    text = payload.decode(errors="replace")
    return text[: len(text) // 2].encode()
