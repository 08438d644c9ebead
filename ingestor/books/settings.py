"""Settings of the books."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BookSettings:
    """Set how books are verified, bounded and repaired. Rates and waits are in seconds.

    verify: check checksums and quotes against the books.
    repairs_per_s: repairs that may start, per venue; first synchronisations don't count, the
    venue's own REST limits govern them. held_updates_max: updates held per instrument.
    levels_max: levels kept per side; deeper ones are removed, and consumers told so. (Beyond 1,024,
    a side may exceed it by a few hundred until it is looked at again.)
    healthy_s: after so long without a break the back-off starts anew.
    """

    verify: bool = True
    repairs_per_s: float = 2.0
    repair_backoff_s: float = 1.0
    repair_backoff_max_s: float = 60.0
    snapshot_timeout_s: float = 10.0
    healthy_s: float = 60.0
    held_updates_max: int = 10_000
    levels_max: int = 100_000
    snapshot_depth: int = 1_000
    oracle_memory: int = 512  # quotes remembered per instrument
