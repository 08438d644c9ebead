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

    frames = control + decoded + rejected + duplicate + filtered. Every term is counted where it
    happens, so that the sum can fail: `unaccounted` is then not 0.
    """

    frames: int = 0
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
        return self.frames - self.control - self.data

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
