"""One planned connection, and each socket that serves it in turn.

A `ConnectionSlot` is a place in the plan and lives as long as the process; a `Connection` is one
socket's life on it, with a session and an adapter of its own. An idle connection is these objects
and the transport's: no task, no timer. What is due by time is found by the supervisor's sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from ingestor.decode.frame_queue import Arrival, Arrive
from ingestor.decode.session import Session
from ingestor.model.errors import TransportError
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.request_pace import RequestPace
from ingestor.sources.live.tap import FrameTap
from ingestor.sources.websocket.interface import Link, Take
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.tracing import Span, tracing

if TYPE_CHECKING:
    from ingestor.sources.live.supervisor import Supervisor


class State(StrEnum):
    """Name the states of a line."""

    WAITING = "waiting"  # for its turn under the venue's connect limit, or for its backoff
    CONNECTING = "connecting"
    CONNECTED = "connected"
    STOPPED = "stopped"


class PingTimeout(TransportError):
    """The peer answered no ping: a half-open connection."""


class PlannedReconnect(TransportError):
    """We replaced the connection: it grew old, or the venue asked for it."""


class ConnectionSlot:
    """A planned connection. attempt: failures since it last was stable; the backoff's argument."""

    __slots__ = (
        "attempt",
        "busy",
        "connection",
        "is_new",
        "planned",
        "started_s",
        "state",
        "ticket",
    )

    def __init__(self, planned: PlannedConnection, *, is_new: bool = False) -> None:
        """is_new: its streams are not carried yet, and may have been carried elsewhere before."""
        self.planned = planned
        self.is_new = is_new
        self.state = State.WAITING
        self.connection: Connection | None = None
        self.attempt = 0
        self.started_s = -float("inf")  # when the last attempt began; the loop's clock
        self.busy = False  # an attempt is under way
        self.ticket = 0  # which entry of the connector's schedule is in force

    def traced(self, name: str, **attributes: int) -> Span:
        """Return the span of something that is done with it."""
        venue, market = self.planned.venue, self.planned.market
        return tracing.span(name, venue=venue, market=market, **attributes)


NEVER: Final = 2**63 - 1  # ns


class Connection:
    """The handler of one socket. Frames pass it by: the transport calls `arrive`."""

    __slots__ = (
        "_owner",
        "ack_due_ns",
        "app_ping_ns",
        "arrive",
        "due_ns",
        "expires_ns",
        "heard_ns",
        "link",
        "on_read_complete",
        "opened_ns",
        "pinged_ns",
        "refused_ns",
        "refused_wait_ns",
        "requests",
        "resubscribed",
        "seen_ns",
        "session",
        "slot",
        "stable",
        "started_ns",
        "take",
        "verdict",
    )

    def __init__(
        self,
        owner: Supervisor,
        slot: ConnectionSlot,
        session: Session,
        arrive: Arrive,
        on_read_complete: Callable[[], None],
        requests: RequestPace,
        take: Take | None = None,
    ) -> None:
        """Create the connection.

        Args:
            owner: told what becomes of the connection.
            slot: its place in the plan.
            session: its protocol.
            arrive: called with each frame.
            on_read_complete: called after each read.
            requests: how fast it may send requests.
            take: takes the frames of a read that holds several.
        """
        self._owner = owner
        self.arrive = arrive
        self.take = take
        self.on_read_complete = on_read_complete
        self.slot = slot
        self.session = session
        self.link: Link | None = None
        self.requests = requests
        self.verdict: TransportError | None = None  # why we end it, where it is us
        self.opened_ns = 0  # ns since the epoch
        self.seen_ns = 0  # `link.received_ns` at the last look of the health check
        # The clock of the health check, which is never set, in ns:
        self.started_ns = 0
        self.heard_ns = 0  # the look that found that something had arrived
        self.due_ns = NEVER  # when it is looked at next
        self.pinged_ns = 0  # a ping that no byte has followed; 0 = none
        self.app_ping_ns = NEVER
        self.ack_due_ns = NEVER
        self.expires_ns = NEVER
        self.refused_ns = NEVER  # when refused streams are asked for again
        self.refused_wait_ns = 0  # how long that is put off; it doubles
        self.resubscribed = False
        self.stable = False

    @property
    def is_open(self) -> bool:
        return self.link is not None

    # Handler

    def opened(self, link: Link) -> None:
        self.link = link
        self.opened_ns = self._owner.clocks.wall_ns()
        self._owner.opened(self)

    def closed(self, failure: TransportError) -> None:
        self.link = None
        self.due_ns = NEVER
        try:
            self._owner.closed(self, self.verdict or failure)
        except Exception as bug:  # noqa: BLE001  # the boundary of a connection
            bulkheads.bug("connection", bug, venue=self.slot.planned.venue)

    # What the supervisor does with it

    def send(self, payload: bytes) -> None:
        if self.link is not None:
            self.link.send(payload)

    async def subscribe(self) -> None:
        """Send what a new connection has to say, at the venue's pace."""
        with self.slot.traced("subscribe", streams=len(self.session.subscriptions)):
            await self.send_paced(self.session.opened())

    async def send_paced(self, payloads: Iterable[bytes]) -> None:
        """Send text frames no faster than the venue allows; stops when the connection ends."""
        for payload in payloads:
            await self.requests.acquire()
            if self.link is None:
                return
            self.send(payload)

    def fail(self, verdict: TransportError) -> None:
        """End it for this reason, at once."""
        if self.verdict is None:
            self.verdict = verdict
        if self.link is not None:
            self.link.abort()

    def retire(self, verdict: TransportError) -> None:
        """End it with a closing handshake; what still arrives is counted and left out, since its
        successor brings the same.
        """
        self.verdict = verdict
        if self.link is not None:
            self.link.deliver_to(self._leave_out)
            self.link.close()

    def _leave_out(self, _arrival: Arrival) -> None:
        counts = self.session.counts
        counts.frames += 1
        counts.filter("retired")


class TappedConnection(Connection):
    """The same, heard by a recorder.

    A class of its own, so that no frame asks whether there is one.
    """

    __slots__ = ("_arrive", "_number", "_tap")

    def __init__(
        self,
        owner: Supervisor,
        slot: ConnectionSlot,
        session: Session,
        arrive: Arrive,
        on_read_complete: Callable[[], None],
        requests: RequestPace,
        tap: FrameTap,
    ) -> None:
        super().__init__(owner, slot, session, self._heard, on_read_complete, requests)
        self._arrive = arrive
        self._tap = tap
        self._number = session.connection

    def _heard(self, arrival: Arrival) -> None:
        _, payload, ts_recv = arrival
        self._tap.received(self._number, ts_recv, payload)
        self._arrive(arrival)

    def send(self, payload: bytes) -> None:
        if self.link is not None:
            self._tap.sent(self._number, self._owner.clocks.wall_ns(), payload)
        super().send(payload)
