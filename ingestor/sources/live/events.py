"""The supervisor's vocabulary: its settings, what it counts, what it tells, why connections end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ingestor.decode.session import Session
from ingestor.model.backoff import Backoff
from ingestor.model.errors import FeedStale, HandshakeRejected, PeerClosed, TransportError
from ingestor.sources.live.connection import PingTimeout, PlannedReconnect
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.websocket.interface import (
    ConnectFailed,
    OpenTimeout,
    ProtocolViolated,
    TlsFailed,
)

_LASTING: Final = Backoff(base_s=30.0, cap_s=300.0, floor_s=5.0)
_CLOSE_CODES: Final = range(1000, 1016)


class SupervisorEvents:
    """What the application may want to publish or log. All are rare; the default does nothing."""

    def up(self, planned: PlannedConnection, session: Session) -> None:
        """A connection is open; its subscriptions are being sent."""

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        """A connection ended, or (session None) could not be opened."""

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        """The venue refuses these streams; their neighbours go on."""

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        """These streams were subscribed to twice and the venue said nothing."""


def cause_of(failure: TransportError) -> str:
    """Return a label of few values for why a connection ended."""
    match failure:
        case HandshakeRejected(status=status):
            return f"http_{status}"
        case PeerClosed(code=code):
            return f"close_{code}" if code in _CLOSE_CODES else "close_other"
    return _CAUSES.get(type(failure), "transport")


_CAUSES: Final[dict[type[TransportError], str]] = {
    ConnectFailed: "connect",
    OpenTimeout: "open_timeout",
    TlsFailed: "tls",
    ProtocolViolated: "violation",
    PingTimeout: "ping_timeout",
    PlannedReconnect: "planned",
    FeedStale: "stale",
}


class EventsOfAll(SupervisorEvents):
    """Tells several listeners, in order."""

    def __init__(self, listeners: Sequence[SupervisorEvents]) -> None:
        self._listeners = tuple(listeners)

    def up(self, planned: PlannedConnection, session: Session) -> None:
        for one in self._listeners:
            one.up(planned, session)

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        for one in self._listeners:
            one.down(planned, session, failure)

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        for one in self._listeners:
            one.refused(planned, streams, text)

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        for one in self._listeners:
            one.unacknowledged(planned, streams)
