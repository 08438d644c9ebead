"""Define what a recorder hears from the supervisor; None stands for no recorder."""

from __future__ import annotations

from typing import Any, Protocol


class FrameTap(Protocol):
    """Hears everything that a recording holds. Calls return at once and never raise.

    connection: the process-wide number of a connection. Times in ns since the epoch.
    """

    def connected(
        self, connection: int, ts_ns: int, venue: str, market: str, url: str, lines: int = 1
    ) -> None:
        """Hear that a socket is up.

        Args:
            connection: Number of the connection.
            ts_ns: Time of the handshake's end.
            venue: Name of the venue.
            market: Name of the market.
            url: Address that was connected to.
            lines: How many connections carry its streams.
        """

    def disconnected(self, connection: int, ts_ns: int, reason: str) -> None:
        """Take note that a connection has ended.

        Args:
            connection: The connection.
            ts_ns: Time in ns since the epoch.
            reason: Text for people.
        """

    def received(self, connection: int, ts_ns: int, payload: bytes) -> None:
        """Take a frame of the venue.

        Args:
            connection: The connection.
            ts_ns: Time in ns since the epoch.
            payload: The frame's bytes.
        """

    def sent(self, connection: int, ts_ns: int, payload: bytes) -> None:
        """Take a message to the venue.

        Args:
            connection: The connection.
            ts_ns: Time in ns since the epoch.
            payload: The frame's bytes.
        """

    def fetched(
        self, connection: int | None, ts_ns: int, venue: str, market: str, url: str, body: bytes
    ) -> None:
        """A REST answer; connection: whose session takes it (book snapshots), None = metadata.

        Args:
            connection: The connection.
            ts_ns: Time in ns since the epoch.
            venue: Name of the venue.
            market: Name of the market.
            url: The address.
            body: Body of the answer.
        """

    def record_decision(self, connection: int | None, ts_ns: int, decision: dict[str, Any]) -> None:
        """A decision that live took by timer or load (pause, shed, repair), for replay to take.

        Args:
            connection: The connection.
            ts_ns: Time in ns since the epoch.
            decision: The decision's members as JSON values.
        """
