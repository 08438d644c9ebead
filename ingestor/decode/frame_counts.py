"""Counts what became of the frames of one connection."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestor.adapter import (
    Control,
    Filtered,
)


@dataclass(slots=True)
class FrameCounts:
    """The frame side of the ledger of one (venue, market).

    frames = pending + control + decoded + rejected + duplicate + filtered. Every term is counted
    where it happens, so that the sum can fail: `unaccounted` is then not 0.
    pending: frames whose rows wait to be sealed, which is when they are decoded or refused.
    """

    frames: int = 0
    pending: int = 0
    decoded: int = 0
    control: int = 0
    rejected: int = 0
    duplicate: int = 0
    filtered: int = 0
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    filtered_by_rule: dict[str, int] = field(default_factory=dict)

    @property
    def data(self) -> int:
        return self.decoded + self.rejected + self.duplicate + self.filtered

    @property
    def unaccounted(self) -> int:
        return self.frames - self.pending - self.control - self.data

    def seal(self) -> None:
        """Count what is pending as decoded: its rows are sealed, and the refused ones counted."""
        self.decoded += self.pending
        self.pending = 0

    def refuse_pending(self, reason: str) -> None:
        """Count a pending frame as rejected."""
        self.pending -= 1
        self.reject(reason)

    def reject(self, reason: str) -> None:
        self.rejected += 1
        self.rejected_by_reason[reason] = self.rejected_by_reason.get(reason, 0) + 1

    def filter(self, rule: str) -> None:
        self.filtered += 1
        self.filtered_by_rule[rule] = self.filtered_by_rule.get(rule, 0) + 1

    def leave_out(self, control: Control) -> None:
        """Count a frame that was no data."""
        if not isinstance(control, Filtered):
            self.control += 1
        elif control.duplicate:
            self.duplicate += 1
        else:
            self.filter(control.rule)
