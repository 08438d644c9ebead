"""Decide what happens to rows when they come faster than Kafka takes them.

The steps, in the order in which a growing backlog meets them:

| level | step | undone |
|---|---|---|
| `low` | CONFLATE: of each instrument's queued quotes only the latest stays | |
| `high` | PAUSE: stop reading the sockets | RESUME at `low`, or after `pause_max_s` |
| 1, or `high` once the pause is used up | SHED: quotes first, then whole instruments' trades and
book rows, the largest first, down to `shed_to` | |

`level` is the fullest of the three bounds: bytes, rows, age of the oldest queued row. Whatever is
shed leaves a GAP mark in its place. After RESUME by time, sockets are paused again only when the
backlog has been at `low` in between: a venue closes a reader that stops too often.

Before all that, `Throttle` keeps reading from outrunning our own sending (docs/adr/0013).

Pure: no clocks, no queues. `ingestor.sinks.kafka.queue` applies it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows

EVENTS_MAX: Final = 1_000
THROTTLE_BYTES: Final = 2 << 20  # a tenth of a second or two of rows
THROTTLE_MAX_S: Final = 1.0  # a busy machine may leave us half a core
_NS: Final = 1_000_000_000
_INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Budget:
    """The bounds of everything that waits for Kafka, rows in flight included.

    low, high: fractions of the bounds. pause_max_s: below the transport's ping timeout and the
    venues' slow-consumer rules. A budget can't hold less than one row for each instrument and
    class: that is what remains when everything was shed.
    """

    bytes_max: int = 256 << 20
    rows_max: int = 8_000_000
    age_max_s: float = 300.0
    low: float = 0.25
    high: float = 0.75
    pause_max_s: float = 15.0

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high <= 1 and self.bytes_max > 0 and self.rows_max > 0):
            raise ValueError("a budget needs 0 < low < high <= 1, and bounds above 0")

    @property
    def shed_to(self) -> float:
        """The level at which shedding stops: between low and high, so that it isn't constant."""
        return (self.low + self.high) / 2

    def level(self, size_bytes: int, rows: int, age_ns: int = 0) -> float:
        """Return the fullest bound as a fraction; 1 = full.

        Args:
            size_bytes: Bytes that wait.
            rows: Rows that wait.
            age_ns: Age of the oldest.
        """
        age = age_ns / (self.age_max_s * _NS)
        return max(size_bytes / self.bytes_max, rows / self.rows_max, age)


class Step(Enum):
    CONFLATE = "conflate"
    PAUSE = "pause"
    RESUME = "resume"
    SHED = "shed"


class OverloadPolicy:
    """Level and time in, steps to take out, in their order."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.paused = False
        self.taken: Counter[Step] = Counter()
        self.events: deque[tuple[int, Step, float]] = deque(maxlen=EVENTS_MAX)
        self._paused_at_ns = 0
        self._pause_used_up = False

    def decide(self, level: float, now_ns: int) -> list[Step]:
        """Return the steps to take now; `took` is to be called for each that was taken.

        CONFLATE and SHED are wanted until the level falls, PAUSE and RESUME once.
        """
        budget = self.budget
        if level <= budget.low:
            self._pause_used_up = False
            return [Step.RESUME] if self.paused else []
        steps = [Step.CONFLATE]
        if self.paused:
            if now_ns - self._paused_at_ns >= budget.pause_max_s * _NS:
                self._pause_used_up = True
                steps.append(Step.RESUME)
        elif level >= budget.high and not self._pause_used_up:
            steps.append(Step.PAUSE)
        if level >= 1 or (level >= budget.high and self._pause_used_up):
            steps.append(Step.SHED)
        return steps

    def took(self, step: Step, level: float, now_ns: int) -> None:
        """Remember that a step was taken.

        Args:
            step: The step.
            level: The fullest bound at that time.
            now_ns: Monotonic time in ns.
        """
        self.taken[step] += 1
        self.events.append((now_ns, step, level))
        if step is Step.PAUSE:
            self.paused, self._paused_at_ns = True, now_ns
        elif step is Step.RESUME:
            self.paused = False


class Throttle:
    """Stops reading for a moment when rows pile up that were not even sent.

    A loop that is busy reading leaves its sender no time, and conflating what piles up would cost
    rows that Kafka would have taken. With reading stopped the pile is worked off in a moment; if it
    isn't within THROTTLE_MAX_S, then it is Kafka that is slow: reading goes on, and the policy
    decides. Its marks lie below the policy's first step.
    """

    def __init__(self, budget: Budget) -> None:
        self.is_on = False
        self.taken = 0
        self._mark_bytes = min(THROTTLE_BYTES, int(budget.bytes_max * budget.low / 2))
        self._since_ns = 0
        self._is_used_up = False

    def decide(self, unsent_bytes: int, now_ns: int) -> bool:
        """Return whether reading has to wait. unsent_bytes: queued and not in flight."""
        if unsent_bytes <= self._mark_bytes // 4:
            self.is_on = self._is_used_up = False
        elif self.is_on:
            if now_ns - self._since_ns >= THROTTLE_MAX_S * _NS:
                self.is_on, self._is_used_up = False, True
        elif unsent_bytes >= self._mark_bytes and not self._is_used_up:
            self.is_on, self._since_ns = True, now_ns
            self.taken += 1
        return self.is_on


def conflate(row_class: RowClass, rows: Rows) -> tuple[Rows, Rows]:
    """Split rows into (kept, dropped), in their order.

    Of each key the latest row and the latest control row stay.
    """
    identity = rows["instrument"].astype(np.int64) * 2 + (rows["kind"] != row_class.id)
    for name in row_class.key_fields:
        values, places = np.unique(rows[name], return_inverse=True)
        identity = identity * len(values) + places
    _, from_the_end = np.unique(identity[::-1], return_index=True)
    keep = np.zeros(len(rows), np.bool_)
    keep[len(rows) - 1 - from_the_end] = True
    return rows[keep], rows[~keep]


def shed(row_class: RowClass, rows: Rows, victims: NDArray[np.int64]) -> tuple[Rows, Rows, Rows]:
    """Drop all rows of some instruments, leaving a GAP mark where the first one was.

    Args:
        row_class: Class of the rows.
        rows: Rows in order.
        victims: int64[n], the instruments.

    Returns:
        The rows that stay with the marks in place, the dropped rows, and the marks, one for each
        victim that had rows. An earlier mark of a victim is dropped like a row: the new one covers
        its hole.
    """
    doomed = np.isin(rows["instrument"], victims)
    at = np.flatnonzero(doomed)
    dropped = rows[at]
    _, first = np.unique(dropped["instrument"], return_index=True)
    _, from_the_end = np.unique(dropped["instrument"][::-1], return_index=True)
    marks = _gaps(row_class, dropped[first], dropped[len(dropped) - 1 - from_the_end])
    kept = rows.copy()
    kept[at[first]] = marks
    stay = ~doomed
    stay[at[first]] = True
    return kept[stay], dropped, marks


def _gaps(row_class: RowClass, first: Rows, last: Rows) -> Rows:
    """Return the GAP marks of holes that begin and end with these rows, both dropped."""
    gaps = np.zeros(len(first), first.dtype)
    marks = gaps.view(row_class.control)
    marks["ts_event"] = marks["ts_recv"] = first["ts_recv"]
    marks["instrument"] = first["instrument"]
    marks["flags"] = Flag.LAST | Flag.NO_VENUE_TIME
    marks["kind"] = Kind.GAP
    marks["cause"] = Cause.SHED
    for name, rows in (("first", first), ("last", last)):
        # A mark at either end, or no number, leaves that end unknown (0).
        known = (rows["kind"] == row_class.id) & (rows["sequence"] <= _INT64_MAX)
        marks[name] = np.where(known, rows["sequence"], 0)
    return gaps


def largest(size_of: NDArray[np.int64], excess: int, unit: int) -> NDArray[np.int64]:
    """Return the instruments to shed, largest first, until `excess` is freed.

    Args:
        size_of: int64[n], what each instrument holds, in the unit of `excess`.
        excess: How much to free.
        unit: What each leaves behind (its mark). An instrument that holds no more than that frees
            nothing and is left alone.
    """
    order = np.argsort(-size_of, kind="stable")
    gains = size_of[order] - unit
    order, gains = order[gains > 0], gains[gains > 0]
    enough = int(np.searchsorted(np.cumsum(gains), excess)) + 1
    return order[:enough]
