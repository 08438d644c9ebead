"""Tells new rows of a partition from repeated and missing ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_SESSIONS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class MissingRange:
    """Sequence numbers first..last of a session that a partition doesn't hold."""

    topic: str
    partition: int
    session: str
    first: int
    last: int


@dataclass(slots=True)
class Progress:
    """Remember what was seen of one (topic, partition), to tell new rows from repeated and missing
    ones.

    A session that is met for the first time in mid-stream begins with what was met.
    """

    topic: str
    partition: int
    holes: list[MissingRange] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0
    _next: dict[bytes, int] = field(default_factory=dict)

    def see(self, session: bytes, first: int, rows: int) -> int:
        """Take note of a record.

        Args:
            session: 16 bytes of its session.
            first: Number of its first row.
            rows: How many rows it has.

        Returns:
            How many of its rows, from its first, were seen before.
        """
        expected = self._next.get(session)
        if expected is None:
            expected = first
            if len(self._next) >= _SESSIONS_MAX:
                del self._next[next(iter(self._next))]
        if first > expected:
            self.holes.append(
                MissingRange(self.topic, self.partition, session.hex(), expected, first - 1)
            )
        known = min(max(expected - first, 0), rows)
        self.duplicates += known
        self.rows += rows - known
        self._next[session] = max(expected, first + rows)
        return known

    def expected(self, session: bytes) -> int | None:
        """Return a session's next sequence number, None where nothing of it was seen."""
        return self._next.get(session)

    def sessions(self) -> dict[str, int]:
        """Return each session's next sequence number."""
        return {session.hex(): expected for session, expected in self._next.items()}

    def forget(self) -> None:
        """Take the next record of each session for its first, as when reading begins elsewhere."""
        self._next.clear()
