"""Keep the newest events of connections and streams, for the status page."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.sources.live.events import SupervisorEvents, cause_of
from ingestor.sources.live.plan import PlannedConnection
from ingestor.telemetry.status import EVENTS_MAX, RecentEvent

_TEXT_MAX = 200  # characters: a venue's words have no bound of their own


class RecentEvents(SupervisorEvents):
    """Remember what befell connections, the newest EVENTS_MAX of it."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._events: deque[RecentEvent] = deque(maxlen=EVENTS_MAX)

    def newest(self) -> list[RecentEvent]:
        """Return the events, oldest first."""
        return list(self._events)

    def up(self, planned: PlannedConnection, session: Session) -> None:
        self._note(planned, f"up with {len(session.streams)} streams", is_bad=False)

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        """Note the end of a connection, or an attempt that failed.

        Args:
            planned: The connection.
            session: None where it could not be opened.
            failure: Why.
        """
        what = "could not be opened" if session is None else "down"
        self._note(planned, f"{what}: {cause_of(failure)}, {failure}", is_bad=True)

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        """Note streams that the venue refuses.

        Args:
            planned: Their connection.
            streams: Their names.
            text: The venue's words.
        """
        self._note(planned, f"the venue refuses {_named(streams)}: {text}", is_bad=True)

    def changed(
        self,
        planned: PlannedConnection,
        session: Session,
        added: Sequence[Subscription],
        removed: Sequence[Subscription],
    ) -> None:
        """Note that an open connection carries other streams.

        Args:
            planned: The connection.
            session: Its session.
            added: Streams that are new.
            removed: Streams that ended.
        """
        self._note(planned, f"{len(added)} streams more, {len(removed)} less", is_bad=False)

    def silent(
        self, planned: PlannedConnection, subscription: Subscription, silence_s: float
    ) -> None:
        """Note a stream that stays silent.

        Args:
            planned: Its connection.
            subscription: The stream.
            silence_s: How long it has been silent.
        """
        self._note(planned, f"{subscription.stream} is silent for {silence_s:.0f} s", is_bad=True)

    def spoke_again(self, planned: PlannedConnection, subscription: Subscription) -> None:
        self._note(planned, f"{subscription.stream} spoke again", is_bad=False)

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        self._note(planned, f"the venue does not answer for {_named(streams)}", is_bad=True)

    def _note(self, planned: PlannedConnection, text: str, *, is_bad: bool) -> None:
        where = f"{planned.venue} {planned.market} connection {planned.number}"
        event = RecentEvent(self._clocks.wall_ns(), f"{where}: {text}"[:_TEXT_MAX], is_bad)
        self._events.append(event)


def _named(streams: Sequence[str]) -> str:
    more = f" and {len(streams) - 1} more" if len(streams) > 1 else ""
    return (streams[0] if streams else "streams") + more
