"""Log the events of connections for operators: up, down, refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session
from ingestor.model.errors import TransportError
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sources.live.events import SupervisorEvents, cause_of
from ingestor.sources.live.plan import PlannedConnection

_NAMED: Final = 10  # streams in one line

log = structlog.get_logger(__name__)


class EventLog(SupervisorEvents):
    """Logs what the supervisor reports; `ingestor.telemetry.logs` limits the lines of one cause."""

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Log the books that broke in a flush."""
        for error in result.errors:
            log.warning("book.broken", cause=error.cause, detail=str(error))

    def up(self, planned: PlannedConnection, session: Session) -> None:
        log.info("connection.up", **_where(planned), streams=len(session.streams))

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        """Take note that a connection ended or could not be opened.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            failure: Why.
        """
        event = "connection.refused" if session is None else "connection.down"
        log.warning(event, **_where(planned), cause=cause_of(failure), detail=str(failure))

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        """Take note that the venue refuses streams.

        Args:
            planned: The planned connection.
            streams: Names of the streams.
            text: The venue's words.
        """
        log.warning("streams.refused", **_where(planned), **_named(streams), reason=text)

    def changed(
        self,
        planned: PlannedConnection,
        session: Session,
        added: Sequence[Subscription],
        removed: Sequence[Subscription],
    ) -> None:
        """Take note that an open connection carries other streams.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            added: Streams that are new.
            removed: Streams that ended.
        """
        log.info("streams.changed", **_where(planned), added=len(added), removed=len(removed))

    def silent(
        self, planned: PlannedConnection, subscription: Subscription, silence_s: float
    ) -> None:
        """Take note that a stream stays silent.

        Args:
            planned: The planned connection.
            subscription: The stream.
            silence_s: How long it has been silent.
        """
        log.warning(
            "stream.marked_silent",
            **_where(planned),
            stream=subscription.stream,
            silence_s=round(silence_s, 1),
        )

    def spoke_again(self, planned: PlannedConnection, subscription: Subscription) -> None:
        log.info("stream.spoke_again", **_where(planned), stream=subscription.stream)

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        log.warning("streams.unacknowledged", **_where(planned), **_named(streams))


def _where(planned: PlannedConnection) -> dict[str, object]:
    return {"venue": planned.venue, "market": planned.market, "connection": planned.number}


def _named(streams: Sequence[str]) -> dict[str, object]:
    more = len(streams) - _NAMED
    return {"streams": list(streams[:_NAMED])} | ({"more": more} if more > 0 else {})
