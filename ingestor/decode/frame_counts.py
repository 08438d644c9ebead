"""Counts what became of the frames of one connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ingestor.adapter import (
    Control,
    Filtered,
)
from ingestor.model.row_classes import RowClass


@dataclass(slots=True)
class FrameCounts:
    """The frame side of the ledger of one (venue, market).

    frames = pending + control + decoded + rejected + duplicate + filtered. Every term is counted
    where it happens, so that the sum can fail: `unaccounted` is then not 0.
    pending: frames whose rows wait to be sealed, which is when they are decoded or refused.
    by_shape: returns how many frames each class's shapes took, where the compiled library reads
    them. in_python: events of these classes that were decoded in Python all the same.
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
    by_shape: Callable[[], Mapping[RowClass, int]] = field(default=dict, compare=False)
    in_python: Counter[RowClass] = field(default_factory=Counter, compare=False)

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
