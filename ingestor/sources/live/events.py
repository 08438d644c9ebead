"""The supervisor's vocabulary: its settings, what it counts, what it tells, why connections end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Concatenate, Final, ParamSpec

from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session
from ingestor.model.errors import FeedStale, HandshakeRejected, PeerClosed, TransportError
from ingestor.sources.live.connection import PingTimeout, PlannedReconnect
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.websocket.interface import (
    CallbackFailed,
    ConnectFailed,
    OpenTimeout,
    ProtocolViolated,
    TlsFailed,
)
from ingestor.telemetry.bulkheads import bulkheads

Parameters = ParamSpec("Parameters")

_CLOSE_CODES: Final = range(1000, 1016)


class SupervisorEvents:
    """Receive the supervisor's events, to publish or log them.

    All are rare; the default does nothing.
    """

    def up(self, planned: PlannedConnection, session: Session) -> None:
        """A connection is open; its subscriptions are being sent."""

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        """A connection ended, or (session None) could not be opened.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            failure: Why.
        """

    def changed(
        self,
        planned: PlannedConnection,
        session: Session,
        added: Sequence[Subscription],
        removed: Sequence[Subscription],
    ) -> None:
        """An open connection carries other streams from now on.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            added: Streams that are new.
            removed: Streams that ended.
        """

    def carries_on(self, planned: PlannedConnection, session: Session) -> None:
        """Another line of the streams of this connection ended."""

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        """The venue refuses these streams; their neighbours go on.

        Args:
            planned: The planned connection.
            streams: Names of the streams.
            text: The venue's words.
        """

    def silent(
        self, planned: PlannedConnection, subscription: Subscription, silence_s: float
    ) -> None:
        """A stream says nothing, whatever was tried: a halt, a delisting. Its neighbors go on.

        Args:
            planned: The planned connection.
            subscription: The stream.
            silence_s: How long it has been silent.
        """

    def spoke_again(self, planned: PlannedConnection, subscription: Subscription) -> None:
        """A stream that was reported silent spoke."""

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        """These streams were subscribed to twice and the venue said nothing."""

    def paused(self) -> None:
        """No socket is read from now on."""

    def resumed(self) -> None:
        """All sockets are read again."""


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
    CallbackFailed: "bug",
}
CAUSES: Final = (*_CAUSES.values(), "transport")  # besides those of HTTP and of close frames


class Listeners:
    """Notifies several listeners, in order; one that raises costs itself alone."""

    def __init__(self, listeners: Iterable[SupervisorEvents] = ()) -> None:
        self._listeners = list(listeners)

    def add(self, listener: SupervisorEvents) -> None:
        """Notify another one from now on."""
        self._listeners.append(listener)

    def notify(
        self,
        event: Callable[Concatenate[SupervisorEvents, Parameters], None],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> None:
        """Call a method of each listener.

        Args:
            event: the method as `SupervisorEvents` has it.
            args: what it is called with.
            kwargs: the same, by name.
        """
        for listener in self._listeners:
            try:
                getattr(listener, event.__name__)(*args, **kwargs)
            except Exception as failure:  # noqa: BLE001  # the boundary of a listener
                bulkheads.bug("listener", failure)
