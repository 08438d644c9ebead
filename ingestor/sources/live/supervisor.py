"""Owns every connection of the process: opens, subscribes, watches, repairs, opens again.

            schedule           limiter, slot            handshake
    WAITING ────────> CONNECTING ──────────> (subscribe) ────────> CONNECTED
       ^                   │ refused, timeout                          │ closed, silent, old
       └───────────────────┴──────── backoff, full jitter ─────────────┘

For ever: no number of failures ends a connection. Tasks exist while something is opened, repaired
or fetched; what an open connection needs by time comes from one check for all (`health`).
Connections and streams are added, removed and changed while it runs (`apply`).
"""

from __future__ import annotations

import asyncio
import random as random_module
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from ingestor.adapter.contract import Subscription
from ingestor.decode.frame_queue import FrameQueue, FrameQueues, take_reads
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.clocks import Clocks
from ingestor.model.errors import FeedStale, HandshakeRejected, TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.recording.format import streams_changed
from ingestor.sources.live.connection import (
    Connection,
    ConnectionSlot,
    PlannedReconnect,
    State,
    TappedConnection,
)
from ingestor.sources.live.dialer import Dialer, Dialers
from ingestor.sources.live.events import Listeners, SupervisorEvents, cause_of
from ingestor.sources.live.handshakes import Handshakes
from ingestor.sources.live.health import HealthChecker
from ingestor.sources.live.plan import Plan
from ingestor.sources.live.repair_worker import RepairWorker
from ingestor.sources.live.replan import PlanChange
from ingestor.sources.live.request_pace import RequestPace, SharedPaces
from ingestor.sources.live.settings import SupervisorSettings
from ingestor.sources.live.slots import ConnectionSlots
from ingestor.sources.live.statistics import SupervisorStatistics
from ingestor.sources.live.tap import FrameTap
from ingestor.sources.rest.pool import RestPools
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.interface import Connect, ConnectFailed
from ingestor.telemetry.bulkheads import bulkheads

log = structlog.get_logger(__name__)

TRANSPORTS: Final[dict[str, Connect]] = {
    "picows": picows.connect,
    "websockets": websockets.connect,
}
# Answers that no quick repetition changes: wrong address, no permission, legal reasons.
_LASTING: Final = frozenset({400, 401, 403, 404, 405, 410, 451})
_TOO_MANY: Final = frozenset({418, 429})
_FULL_S: Final = 5.0  # until a connection for which there is no descriptor is tried again
_STOP_S: Final = 1.0  # for closing handshakes at the end


class Supervisor(SessionEvents):
    """All connections of a plan. Make it and `run` it on one loop."""

    def __init__(
        self,
        plan: Plan,
        table: InstrumentTable,
        frame_queues: FrameQueues,
        read_complete_of: Callable[[FrameQueue], Callable[[], None]],
        request_flush: Callable[[], None],
        *,
        tap: FrameTap | None = None,
        settings: SupervisorSettings | None = None,
        listeners: Iterable[SupervisorEvents] = (),
        ssl_context: ssl.SSLContext | None = None,
        pools: RestPools | None = None,
        random: Callable[[], float] = random_module.random,
        clocks: Clocks | None = None,
    ) -> None:
        """Create the supervisor.

        Args:
            plan: the connections to begin with.
            table: the instruments of all plans.
            frame_queues: where frames wait to be decoded, by venue and market.
            read_complete_of: returns what is called after each read of a queue's frames.
            request_flush: called after what is put into the buffer out of turn.
            tap: records what is sent and received.
            settings: limits and pace of connecting.
            listeners: told of what happens to connections and streams.
            ssl_context: None means the system's trusted certificates.
            pools: ask venues over REST; whoever gives them closes them.
            random: returns numbers uniform in [0, 1).
            clocks: those of the machine by default.
        """
        self.slots = ConnectionSlots(plan)
        self._plan = plan
        self._table = table
        self.counts = frame_queues.counts
        self._frame_queues = frame_queues
        self._read_complete_of = read_complete_of
        self._request_flush = request_flush
        self._tap = tap
        self._settings = settings or SupervisorSettings()
        self.listeners = Listeners(listeners)
        self._ssl_context = ssl_context
        self._random = random
        self._sessions = 0
        self._by_session: dict[int, Connection] = {}
        self._statistics = SupervisorStatistics()
        self.clocks = clocks or Clocks()
        self._health = HealthChecker(self._settings.patience, self, random, self.clocks.steady_ns)
        rest = pools or RestPools(ssl_context=ssl_context, workers=plan.workers, clocks=self.clocks)
        self._owned = rest if pools is None else None
        self.repair_worker = RepairWorker(self, tap, request_flush, rest, self.clocks)
        self._handshakes = Handshakes(rest, self.clocks)
        for planned in plan:
            frame_queues.of(planned.adapter, planned.market)
        self._group: asyncio.TaskGroup | None = None  # while `run` runs
        self._paces = SharedPaces(plan.workers, self.clocks.steady_s)
        self._dialers = Dialers(self._attempt, self._settings, plan.workers, self.clocks.steady_s)
        self._paused_ns: int | None = None  # since when; None = reading
        self._stopping = False
        self.connections_max = 1 << 30  # how many may be open at a time
        self._opening = 0

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Keep everything connected until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    for slot in self.slots:
                        self._schedule(slot, 0.0)
                    group.create_task(bulkheads.keep("health", self._check_health))
                    await bulkheads.keep("repair", self.repair_worker.run)
                finally:  # before attempts under way are cancelled: a socket they drop is no loss
                    self._stopping = True
                    self._group = None
        finally:
            await self._stop()
            if self._owned is not None:
                await self._owned.aclose()

    async def _check_health(self) -> None:
        await self._health.run(lambda: self.slots, lambda: self.is_paused)

    def _dialer(self, slot: ConnectionSlot) -> Dialer:
        assert self._group is not None  # it is asked for while `run` runs
        return self._dialers.of(slot, self.slots, self._group)

    async def _stop(self) -> None:
        for slot in self.slots:
            slot.state = State.STOPPED
            if slot.connection is not None and slot.connection.link is not None:
                slot.connection.link.close()
        deadline_s = asyncio.get_running_loop().time() + _STOP_S
        while self._by_session and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(self._by_session.values()):
            if connection.link is not None:
                connection.link.abort()

    def _schedule(self, slot: ConnectionSlot, delay_s: float) -> None:
        self._dialer(slot).schedule(slot, delay_s)

    # ------------------------------------------------------------------ opening

    async def _attempt(self, slot: ConnectionSlot) -> None:
        """Open a slot's connection, or replace it; whatever fails is scheduled again."""
        served = slot.connection is not None and slot.connection.verdict is None
        if slot.busy or served or slot.state is State.STOPPED:
            return
        if self._is_full(slot):
            return
        slot.busy = True
        self._opening += 1
        slot.started_s = asyncio.get_running_loop().time()
        if slot.connection is None:
            slot.state = State.CONNECTING
        url = slot.planned.url
        try:
            with slot.traced("connect"):
                connection = self._make_connection(slot)
                told = await self._handshakes.of(slot.planned)
                options = self._settings.connect_options(
                    slot.planned, self._ssl_context, self.clocks, told
                )
                await TRANSPORTS[slot.planned.route.transport](options, connection)
        except TransportError as failure:
            if isinstance(failure, HandshakeRejected):
                self._handshakes.forget(slot.planned)
            self._not_opened(slot, failure)
            return
        except Exception as failure:  # noqa: BLE001  # the boundary of a connection
            bulkheads.bug("connection", failure, venue=slot.planned.venue)
            self._not_opened(slot, ConnectFailed(url, type(failure).__name__))
            return
        finally:
            slot.busy = False
            self._opening -= 1
        try:
            await connection.subscribe()
            self._health.subscribed(connection)
            self._follow(connection)
        except Exception as failure:  # noqa: BLE001  # the boundary of a connection
            bulkheads.bug("connection", failure, venue=slot.planned.venue)
            connection.fail(ConnectFailed(url, f"subscribing failed: {type(failure).__name__}"))

    def _is_full(self, slot: ConnectionSlot) -> bool:
        """Let a slot wait while as many connections are open as there are descriptors for."""
        if len(self._by_session) + self._opening < self.connections_max:
            return False
        slot.state = State.WAITING if slot.connection is None else slot.state
        log.warning("connections.held_back", cause="descriptors", limit=self.connections_max)
        self._schedule(slot, _FULL_S * (1 + self._random()))
        return True

    def _not_opened(self, slot: ConnectionSlot, failure: TransportError) -> None:
        if slot.state is State.STOPPED:
            return
        if slot.connection is None:  # else the one to be replaced goes on
            slot.state = State.WAITING
            self.listeners.notify(SupervisorEvents.down, slot.planned, None, failure)
        self._again(slot, failure)

    def _make_connection(self, slot: ConnectionSlot) -> Connection:
        planned, market = slot.planned, slot.planned.market
        frame_queue = self._frame_queues.of(planned.adapter, market, planned.offer)
        self._sessions += 1
        session = Session(
            self._sessions,
            planned.make_adapter(self._table.symbols(planned.venue, market)),
            () if slot.is_new else planned.subscriptions,  # `_follow` subscribes, behind GAPs
            frame_queue.buffer,
            *(frame_queue.counts, self, market, frame_queue.decode),
            self._frame_queues.lines if planned.route.lines > 1 else None,
        )
        on_read_complete = self._read_complete_of(frame_queue)
        pace = RequestPace(planned.limits, self._paces.of(planned), self.clocks.steady_s)
        parts = (self, slot, session, frame_queue.arrive, on_read_complete, pace)
        if self._tap is not None:
            return TappedConnection(*parts, self._tap)
        return Connection(*parts, take_reads(frame_queue, on_read_complete))

    def opened(self, connection: Connection) -> None:
        """The transport's callback: before any frame."""
        slot = connection.slot
        number = connection.session.connection
        self._by_session[number] = connection
        if slot.state is State.STOPPED:  # it was taken out of the plan meanwhile
            connection.retire(PlannedReconnect(slot.planned.url, "removed"))
            return
        before, slot.connection = slot.connection, connection
        slot.state = State.CONNECTED
        if before is not None:
            # Its successor stands: the gap is one subscription long.
            verdict = before.verdict or PlannedReconnect(slot.planned.url, "replaced")
            self._end(before, verdict)
            before.retire(verdict)
        if self._tap is not None:
            self._tap.connected(number, connection.opened_ns, *slot.planned.about)
        self._health.started(connection)
        if connection.link is not None and (self.is_paused or self._stopping):
            connection.link.pause_reading()
        self.listeners.notify(SupervisorEvents.up, slot.planned, connection.session)

    # ------------------------------------------------------------------ ending

    def closed(self, connection: Connection, failure: TransportError) -> None:
        """The transport's callback: the socket is gone."""
        slot = connection.slot
        self._end(connection, failure)
        if slot.connection is not connection:
            return  # it was replaced
        slot.connection = None
        if self._stopping or slot.state is State.STOPPED:
            return
        slot.state = State.WAITING
        self._again(slot, failure)

    def _end(self, connection: Connection, failure: TransportError, *, hole: bool = True) -> None:
        """Everything on it has a hole from here, unless another goes on. The first call counts."""
        planned, session = connection.slot.planned, connection.session
        if self._by_session.pop(session.connection, None) is None:
            return
        if self._stopping:
            return  # nothing follows: a recording ends as the rows do, without a hole
        now_ns = self.clocks.wall_ns()
        if self._tap is not None:
            self._tap.disconnected(session.connection, now_ns, str(failure))
        if hole:
            session.closed(now_ns)
        self._request_flush()
        self.listeners.notify(SupervisorEvents.down, planned, session, failure)
        for other in self.slots.other_lines(planned):
            self.listeners.notify(SupervisorEvents.carries_on, other.slot.planned, other.session)

    def _again(self, slot: ConnectionSlot, failure: TransportError) -> None:
        """Schedule a line after a failure."""
        self._statistics.reconnects[slot.planned.venue, cause_of(failure)] += 1
        backoff = self._settings.backoff
        if isinstance(failure, HandshakeRejected):
            if failure.status in _LASTING:
                backoff = self._settings.lasting
            elif failure.status in _TOO_MANY:
                # The limit is the address's, not this line's.
                wait_s = failure.retry_after_s
                self._dialer(slot).hold(self._settings.too_many_s if wait_s is None else wait_s)
        delay_s = backoff.delay_s(slot.attempt, self._random, failure.retry_after_s)
        since_s = asyncio.get_running_loop().time() - slot.started_s
        slot.attempt += 1
        self._schedule(slot, max(delay_s, self._settings.attempt_interval_s - since_s))

    # ------------------------------------------------------------------ changing

    def apply(self, change: PlanChange) -> None:
        """Add, remove and change connections; every other stream goes on untouched."""
        for planned in change.removed:
            slot = self.slots.remove(planned.number)
            if slot is not None:
                self._give_up(slot, continues=change.continues)
        for stream_change in change.changed:
            slot = self.slots.change(stream_change.planned)
            if slot is not None and slot.connection is not None:
                self._follow(slot.connection)
        self._plan = change.plan
        for planned in change.added:
            self._frame_queues.of(planned.adapter, planned.market)
            slot = self.slots.add(planned, is_new=self._group is not None and not change.continues)
            if self._group is not None:
                self._schedule(slot, 0.0)

    def _give_up(self, slot: ConnectionSlot, *, continues: bool) -> None:
        slot.state = State.STOPPED
        if (connection := slot.connection) is not None:
            verdict = PlannedReconnect(slot.planned.url, "removed")
            self._end(connection, verdict, hole=not continues)
            connection.retire(verdict)

    def _follow(self, connection: Connection) -> None:
        """Subscribe an open connection to what its slot carries now, and to nothing else."""
        planned, session = connection.slot.planned, connection.session
        connection.slot.is_new = False
        refused = session.refused_streams
        wanted = [wish for wish in planned.subscriptions if wish.stream not in refused]
        added = [wish for wish in wanted if wish not in session.subscriptions]
        removed = [wish for wish in session.subscriptions if wish not in wanted]
        if not added and not removed:
            return
        now_ns = self.clocks.wall_ns()
        before = set(session.streams)
        session.change(wanted, now_ns)
        after = set(session.streams)
        subscribe, unsubscribe = sorted(after - before), sorted(before - after)
        self.repair_worker.change_streams(connection, subscribe, unsubscribe)
        if self._tap is not None:
            instruments = [self._table[number] for number in {wish.instrument for wish in added}]
            decision = streams_changed(session.subscriptions, instruments)
            self._tap.record_decision(session.connection, now_ns, decision)
        self._request_flush()
        self.listeners.notify(SupervisorEvents.changed, planned, session, added, removed)

    # ------------------------------------------------------------------ remedies

    def replace(self, connection: Connection, reason: TransportError) -> None:
        """Open a successor first, then end `connection` for `reason`."""
        slot = connection.slot
        if slot.connection is connection and connection.verdict is None and not self._stopping:
            connection.verdict = reason
            self._statistics.reconnects[slot.planned.venue, cause_of(reason)] += 1
            self._schedule(slot, self._random())

    def resubscribe(self, connection: Connection, streams: Sequence[str]) -> None:
        """Unsubscribe and subscribe again, at the venue's pace."""
        self.repair_worker.resubscribe(connection, streams)

    def ask_again(self, connection: Connection, streams: Sequence[str]) -> None:
        """Subscribe one by one to what the venue did not confirm."""
        self.repair_worker.subscribe_singly(connection, streams)

    def ask_refused(self, connection: Connection) -> None:
        """Subscribe again to the streams that the venue refused, as far as they are in the plan."""
        connection.session.refused_streams.clear()
        self._follow(connection)

    def sent_again(self, connection: Connection, streams: Iterable[str]) -> None:
        """A subscription was repeated: its acks are due."""
        connection.session.expect_acks(streams)
        self._health.subscribed(connection)

    def unacknowledged(self, connection: Connection, streams: Sequence[str]) -> None:
        """The venue answered neither of two subscriptions."""
        planned = connection.slot.planned
        self._statistics.unacknowledged[planned.venue] += len(streams)
        self.listeners.notify(SupervisorEvents.unacknowledged, planned, streams)

    def stale(self, instrument: int, channel: str, silence_s: float, *, probed: bool) -> None:
        """Act on a stream that should have spoken.

        It is probed by subscribing again. When that was done before, a new connection is opened in
        the
        place of its own: first the new one, then the old one ends.

        Args:
            instrument: Number of the instrument.
            channel: Its channel.
            silence_s: How long it has been silent.
            probed: It was probed before.
        """
        connection = self.slots.connection_of(instrument, channel)
        found = self.slots.stream_of(instrument, channel)
        if connection is None or found is None or self.is_paused:
            return
        _, subscription = found
        if probed:
            url = connection.slot.planned.url
            self.replace(connection, FeedStale(url, subscription.stream, silence_s))
        else:
            self.resubscribe(connection, [subscription.stream])

    def silent(self, instrument: int, channel: str, silence_s: float) -> None:
        """A stream stays silent whatever is done: it is reported, and looked at rarely.

        Args:
            instrument: Number of the instrument.
            channel: Its channel.
            silence_s: How long it has been silent.
        """
        if (found := self.slots.stream_of(instrument, channel)) is not None:
            planned, subscription = found
            self.listeners.notify(SupervisorEvents.silent, planned, subscription, silence_s)

    def spoke_again(self, instrument: int, channel: str) -> None:
        """A stream that was marked silent spoke."""
        if (found := self.slots.stream_of(instrument, channel)) is not None:
            planned, subscription = found
            self.listeners.notify(SupervisorEvents.spoke_again, planned, subscription)

    def connection_of(self, instrument: int, channel: str = "book") -> Connection | None:
        """Return the open connection that carries a channel of an instrument."""
        return self.slots.connection_of(instrument, channel)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self.slots.replace_instruments(numbers)
        self.repair_worker.replace_instruments(numbers)
        for connection in self._by_session.values():
            connection.session.replace_instruments(numbers)

    def subscriptions_of(self, connection: int) -> Sequence[Subscription]:
        """Return what is subscribed to on an open connection, by its session's number."""
        found = self._by_session.get(connection)
        return () if found is None else found.session.subscriptions

    # ------------------------------------------------------------------ what sessions say

    def refused(self, session: Session, streams: Sequence[str], text: str) -> None:
        """Session's callback; the session has dropped the streams already.

        Args:
            session: Its session, None before there is one.
            streams: Names of the streams.
            text: The venue's words.
        """
        connection = self._by_session.get(session.connection)
        if connection is not None:
            planned = connection.slot.planned
            self._statistics.refused[planned.venue] += max(1, len(streams))
            self.listeners.notify(SupervisorEvents.refused, planned, streams, text)
            self._health.refused(connection)

    def refused_together(self, session: Session, streams: Sequence[str]) -> None:
        """Session's callback: one of them is bad, its neighbours must not pay for it."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            self.repair_worker.subscribe_singly(connection, streams)

    def reconnect(self, session: Session, reason: str) -> None:
        """Session's callback: the venue will close this connection."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            self.replace(connection, PlannedReconnect(connection.slot.planned.url, reason))

    def reply(self, session: Session, payload: bytes) -> None:
        """Session's callback: the venue wants an answer."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            connection.send(payload)

    # ------------------------------------------------------------------ pausing

    @property
    def is_paused(self) -> bool:
        return self._paused_ns is not None

    def pause(self) -> None:
        """Stop reading every socket, also those that are being opened."""
        if self.is_paused:
            return
        self._paused_ns = self.clocks.steady_ns()
        for connection in self._by_session.values():
            if connection.link is not None:
                connection.link.pause_reading()
        if self._tap is not None:
            self._tap.record_decision(None, self.clocks.wall_ns(), {"action": "pause"})
        self.listeners.notify(SupervisorEvents.paused)

    def resume(self) -> None:
        """Read on."""
        if self._paused_ns is None:
            return
        paused_ns, self._paused_ns = self.clocks.steady_ns() - self._paused_ns, None
        self._health.resumed(self._by_session.values(), paused_ns)
        for connection in self._by_session.values():
            if connection.link is not None:
                connection.link.resume_reading()
        if self._tap is not None:
            self._tap.record_decision(None, self.clocks.wall_ns(), {"action": "resume"})
        self.listeners.notify(SupervisorEvents.resumed)

    # ------------------------------------------------------------------ numbers

    def statistics(self) -> SupervisorStatistics:
        """Return the counts; `connections` and `pending` are taken now."""
        statistics = self._statistics
        statistics.connections = Counter(
            (slot.planned.venue, slot.state.value) for slot in self.slots
        )
        statistics.pending = sum(
            len(connection.session.pending) for connection in self._by_session.values()
        )
        statistics.repairs = self.repair_worker.counts
        return statistics
