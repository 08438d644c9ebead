"""What a recorder hears. The supervisor calls it beside the way; None stands for no recorder."""

from __future__ import annotations

from typing import Any, Protocol


class FrameTap(Protocol):
    """Hears everything that a recording holds. Calls return at once and never raise.

    connection: the process-wide number of a connection. Times in ns since the epoch.
    """

    def connected(
        self, connection: int, ts_ns: int, venue: str, market: str, url: str, lines: int = 1
    ) -> None:
        """A socket is up. lines: how many connections carry its streams."""

    def disconnected(self, connection: int, ts_ns: int, reason: str) -> None: ...
    def received(self, connection: int, ts_ns: int, payload: bytes) -> None: ...
    def sent(self, connection: int, ts_ns: int, payload: bytes) -> None: ...

    def fetched(
        self, connection: int | None, ts_ns: int, venue: str, market: str, url: str, body: bytes
    ) -> None:
        """A REST answer; connection: whose session takes it (book snapshots), None = metadata."""

    def record_decision(self, connection: int | None, ts_ns: int, decision: dict[str, Any]) -> None:
        """A decision that live took by timer or load (pause, shed, repair), for replay to take."""
