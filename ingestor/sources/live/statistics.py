"""Counters of the live connections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class SupervisorStatistics:
    """Sums since the start; `connections` and `pending` as of now.

    connections: by (venue, state). reconnects: connections lost and attempts failed, by (venue,
    cause). refused, unacknowledged: streams by venue. pending: streams that wait for their ack.
    """

    connections: Counter[tuple[str, str]] = field(default_factory=Counter)
    reconnects: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    unacknowledged: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    pending: int = 0
