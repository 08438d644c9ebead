"""Owns every connection of the process: opens, subscribes, watches, repairs, opens again.

            schedule           limiter, slot            handshake
    WAITING ────────> CONNECTING ──────────> (subscribe) ────────> CONNECTED
       ^                   │ refused, timeout                          │ closed, silent, old
       └───────────────────┴──────── backoff, full jitter ─────────────┘

For ever: no number of failures ends a line. Tasks exist while something is opened, repaired or
fetched; what an open connection needs by time comes from one sweep for all (`sweep`).
"""

from __future__ import annotations

import asyncio
import random as random_module
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time_ns
from typing import Final

from ingestor.adapter.contract import Subscription
from ingestor.books.repair_planner import Repair
from ingestor.decode.frame_queue import FrameQueue, FrameQueues
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.errors import FeedStale, HandshakeRejected, TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.sources.live.connection import (
    Connection,
    ConnectionSlot,
    PlannedReconnect,
    State,
    TappedConnection,
)
from ingestor.sources.live.dialer import Dialer
from ingestor.sources.live.events import SupervisorEvents, cause_of
from ingestor.sources.live.health import HealthChecker
from ingestor.sources.live.plan import Plan, PlannedConnection
from ingestor.sources.live.repair_worker import RepairWorker
from ingestor.sources.live.settings import SupervisorSettings
from ingestor.sources.live.statistics import SupervisorStatistics
from ingestor.sources.live.tap import FrameTap
from ingestor.sources.rate_limiter import RateLimiter
from ingestor.sources.websocket import picows, websockets
from ingestor.sources.websocket.interface import Connect, ConnectOptions

TRANSPORTS: Final[dict[str, Connect]] = {
    "picows": picows.connect,
    "websockets": websockets.connect,
}
# Answers that no quick repetition changes: wrong address, no permission, legal reasons.
_LASTING: Final = frozenset({400, 401, 403, 404, 405, 410, 451})
_TOO_MANY: Final = frozenset({418, 429})
_STOP_S: Final = 1.0  # for closing handshakes at the end


class Supervisor(SessionEvents):
    """All connections of a plan. Make it and `run` it on one loop."""

    def __init__(
        self,
        plan: Plan,
        table: InstrumentTable,
        intakes: FrameQueues,
        burst_end_of: Callable[[FrameQueue], Callable[[], None]],
        request_flush: Callable[[], None],
        *,
        tap: FrameTap | None = None,
        settings: SupervisorSettings | None = None,
        events: SupervisorEvents | None = None,
        ssl_context: ssl.SSLContext | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """burst_end_of: gives what is called after each burst of frames. touch: called after what
        is put into the buffer out of turn.
        ssl_context: None = the system's trusted certificates. random: uniform in [0, 1)."""
        self.lines = [ConnectionSlot(planned) for planned in plan]
        self._plan = plan
        self._table = table
        self.counts = intakes.counts
        self._intakes = intakes
        self._burst_end_of = burst_end_of
        self._touch = request_flush
        self._tap = tap
        self._settings = settings or SupervisorSettings()
        self._events = events or SupervisorEvents()
        self._ssl_context = ssl_context
        self._random = random
        self._sessions = 0
        self._by_session: dict[int, Connection] = {}
        self._statistics = SupervisorStatistics()
        self._sweep = HealthChecker(self._settings.patience, self, random)
        self._repairs = RepairWorker(self, tap, request_flush, ssl_context, plan.workers)
        self._line_of: dict[tuple[int, str], ConnectionSlot] = {}
        for line in self.lines:
            intakes.of(line.planned.adapter, line.planned.market)
            for one in line.planned.subscriptions:
                self._line_of[one.instrument, one.channel] = line
        self._connectors: dict[tuple[str, str | None], Dialer] = {}
        self._paused_ns = 0  # since when; 0 = reading
        self._stopping = False
        self._bug: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Keep everything connected until cancelled. Raises what was our own bug."""
        self._bug = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    self._make_connectors()
                    for connector in self._connectors.values():
                        group.create_task(connector.run())
                    for line in self.lines:
                        self._schedule(line, 0.0)
                    group.create_task(self._sweep.run(self.lines, lambda: self._paused_ns != 0))
                    group.create_task(self._repairs.run())
                    await self._bug
                finally:  # before attempts under way are cancelled: a socket they drop is no loss
                    self._stopping = True
        finally:
            await self._stop()

    def _make_connectors(self) -> None:
        limits: dict[tuple[str, str | None], tuple[float, int]] = {}
        for line in self.lines:
            own = line.planned.limits
            rate, burst = limits.get(_at(line), (own.connects_per_s, own.connects_burst))
            limits[_at(line)] = min(rate, own.connects_per_s), min(burst, own.connects_burst)
        for at, (rate, burst) in limits.items():
            rate, burst = self._settings.connects or (rate, burst)  # noqa: PLW2901
            workers = self._plan.workers
            limiter = RateLimiter(rate / workers, max(1, burst // workers))
            self._connectors[at] = Dialer(self._attempt, limiter, self._settings.attempts_max)

    async def _stop(self) -> None:
        for line in self.lines:
            line.state = State.STOPPED
            if line.connection is not None and line.connection.link is not None:
                line.connection.link.close()
        deadline_s = asyncio.get_running_loop().time() + _STOP_S
        while self._by_session and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(self._by_session.values()):
            if connection.link is not None:
                connection.link.abort()

    def _schedule(self, line: ConnectionSlot, delay_s: float) -> None:
        self._connectors[_at(line)].schedule(line, delay_s)

    # ------------------------------------------------------------------ opening

    async def _attempt(self, line: ConnectionSlot) -> None:
        """Open a line, or replace its connection; whatever fails is scheduled again."""
        served = line.connection is not None and line.connection.verdict is None
        if line.busy or served:
            return
        line.busy = True
        line.started_s = asyncio.get_running_loop().time()
        if line.connection is None:
            line.state = State.CONNECTING
        connection = self._make_connection(line)
        try:
            await TRANSPORTS[line.planned.route.transport](self._options(line.planned), connection)
        except TransportError as failure:
            if line.connection is None:  # else the one to be replaced goes on
                line.state = State.WAITING
                self._events.down(line.planned, None, failure)
            self._again(line, failure)
            return
        finally:
            line.busy = False
        await connection.send_paced(connection.session.opened())
        self._sweep.subscribed(connection, time_ns())

    def _make_connection(self, line: ConnectionSlot) -> Connection:
        planned = line.planned
        venue, market = planned.venue, planned.market
        intake = self._intakes.of(planned.adapter, market)
        self._sessions += 1
        session = Session(
            self._sessions,
            planned.adapter(market, self._table.symbols(venue, market)),
            planned.subscriptions,
            intake.buffer,
            intake.counts,
            self,
            market,
            intake.decode,
        )
        on_read_complete = self._burst_end_of(intake)
        if self._tap is None:
            return Connection(self, line, session, intake.arrive, on_read_complete)
        return TappedConnection(self, line, session, intake.arrive, on_read_complete, self._tap)

    def _options(self, planned: PlannedConnection) -> ConnectOptions:
        return ConnectOptions(
            url=planned.url,
            ssl_context=self._ssl_context,
            frame_bytes_max=planned.limits.frame_bytes_max,
            open_timeout_s=self._settings.open_timeout_s,
            receive_buffer_bytes=self._settings.receive_buffer_bytes,
            source_address=planned.source_address,
            proxy=planned.route.proxy,
            permessage_deflate=planned.route.permessage_deflate,
        )

    def opened(self, connection: Connection) -> None:
        """The transport's callback: before any frame."""
        line = connection.line
        before, line.connection = line.connection, connection
        line.state = State.CONNECTED
        number = connection.session.connection
        self._by_session[number] = connection
        if before is not None:
            # Its successor stands: the gap is one subscription long.
            verdict = before.verdict or PlannedReconnect(line.planned.url, "replaced")
            self._end(before, verdict)
            before.retire(verdict)
        if self._tap is not None:
            planned = line.planned
            self._tap.connected(
                number, connection.opened_ns, planned.venue, planned.market, planned.url
            )
        self._sweep.started(connection)
        if connection.link is not None and (self._paused_ns or self._stopping):
            connection.link.pause_reading()
        self._events.up(line.planned, connection.session)

    # ------------------------------------------------------------------ ending

    def closed(self, connection: Connection, failure: TransportError) -> None:
        """The transport's callback: the socket is gone."""
        line = connection.line
        self._end(connection, failure)
        if line.connection is not connection:
            return  # it was replaced
        line.connection = None
        if self._stopping:
            return
        line.state = State.WAITING
        self._again(line, failure)

    def _end(self, connection: Connection, failure: TransportError) -> None:
        """Everything on it has a hole from here. The first call counts."""
        number = connection.session.connection
        if self._by_session.pop(number, None) is None:
            return
        if self._stopping:
            return  # nothing follows: a recording ends as the rows do, without a hole
        now_ns = time_ns()
        if self._tap is not None:
            self._tap.disconnected(number, now_ns, str(failure))
        connection.session.closed(now_ns)
        self._touch()
        self._events.down(connection.line.planned, connection.session, failure)

    def _again(self, line: ConnectionSlot, failure: TransportError) -> None:
        """Schedule a line after a failure."""
        self._statistics.reconnects[line.planned.venue, cause_of(failure)] += 1
        backoff = self._settings.backoff
        if isinstance(failure, HandshakeRejected):
            if failure.status in _LASTING:
                backoff = self._settings.lasting
            elif failure.status in _TOO_MANY:
                # The limit is the address's, not this line's.
                wait_s = failure.retry_after_s
                self._connectors[_at(line)].hold(
                    self._settings.too_many_s if wait_s is None else wait_s
                )
        delay_s = backoff.delay_s(line.attempt, self._random, failure.retry_after_s)
        since_s = asyncio.get_running_loop().time() - line.started_s
        line.attempt += 1
        self._schedule(line, max(delay_s, self._settings.attempt_interval_s - since_s))

    def bug(self, failure: BaseException) -> None:
        """An error that is ours: `run` raises it."""
        if self._bug is not None and not self._bug.done():
            self._bug.set_exception(failure)

    # ------------------------------------------------------------------ remedies

    def replace(self, connection: Connection, reason: TransportError) -> None:
        """Open a successor first, then end `connection` for `reason`."""
        line = connection.line
        if line.connection is connection and connection.verdict is None and not self._stopping:
            connection.verdict = reason
            self._statistics.reconnects[line.planned.venue, cause_of(reason)] += 1
            self._schedule(line, self._random())

    def resubscribe(self, connection: Connection, streams: Sequence[str]) -> None:
        """Unsubscribe and subscribe again, at the venue's pace."""
        self._repairs.resubscribe(connection, streams)

    def ask_again(self, connection: Connection, streams: Sequence[str]) -> None:
        """Subscribe one by one to what the venue did not confirm."""
        self._repairs.subscribe_singly(connection, streams)

    def sent_again(self, connection: Connection, streams: Iterable[str]) -> None:
        """A subscription was repeated: its acks are due."""
        connection.session.pending.update(streams)
        self._sweep.subscribed(connection, time_ns())

    def unacknowledged(self, connection: Connection, streams: Sequence[str]) -> None:
        """The venue answered neither of two subscriptions."""
        planned = connection.line.planned
        self._statistics.unacknowledged[planned.venue] += len(streams)
        self._events.unacknowledged(planned, streams)

    def stale(self, instrument: int, channel: str, silence_s: float, *, probed: bool) -> None:
        """A stream that should have spoken is silent: probe it by subscribing again; when that was
        done before (`probed`), open its connection anew."""
        line = self._line_of.get((instrument, channel))
        connection = line.connection if line is not None else None
        if connection is None or self._paused_ns:
            return
        stream = next(
            one.stream
            for one in connection.line.planned.subscriptions
            if (one.instrument, one.channel) == (instrument, channel)
        )
        if probed:
            connection.fail(FeedStale(connection.line.planned.url, stream, silence_s))
        else:
            self.resubscribe(connection, [stream])

    def repair(self, repairs: Iterable[Repair]) -> None:
        """Bring books their snapshots: by subscribing again or over REST, as the venue has it."""
        self._repairs.submit(repairs)

    def connection_of(self, instrument: int, channel: str = "book") -> Connection | None:
        """Return the open connection that carries a channel of an instrument."""
        line = self._line_of.get((instrument, channel))
        return line.connection if line is not None else None

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Some instruments have a new revision. numbers: old -> new."""
        for (instrument, channel), line in list(self._line_of.items()):
            if instrument in numbers:
                self._line_of[numbers[instrument], channel] = line
        for line in self.lines:
            line.planned = line.planned.renumbered(numbers)
        for connection in self._by_session.values():
            connection.session.replace_instruments(numbers)

    def subscriptions_of(self, connection: int) -> Sequence[Subscription]:
        """Return what is subscribed to on an open connection, by its session's number."""
        found = self._by_session.get(connection)
        return () if found is None else found.session.subscriptions

    # ------------------------------------------------------------------ what sessions say

    def refused(self, session: Session, streams: Sequence[str], text: str) -> None:
        """Session's callback; the session has dropped the streams already."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            planned = connection.line.planned
            self._statistics.refused[planned.venue] += max(1, len(streams))
            self._events.refused(planned, streams, text)

    def refused_together(self, session: Session, streams: Sequence[str]) -> None:
        """Session's callback: one of them is bad, its neighbours must not pay for it."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            self._repairs.subscribe_singly(connection, streams)

    def reconnect(self, session: Session, reason: str) -> None:
        """Session's callback: the venue will close this connection."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            self.replace(connection, PlannedReconnect(connection.line.planned.url, reason))

    def reply(self, session: Session, payload: bytes) -> None:
        """Session's callback: the venue wants an answer."""
        connection = self._by_session.get(session.connection)
        if connection is not None:
            connection.send(payload)

    # ------------------------------------------------------------------ pausing

    @property
    def is_paused(self) -> bool:
        return self._paused_ns != 0

    def pause(self) -> None:
        """Stop reading every socket, also those that are being opened."""
        if self._paused_ns:
            return
        self._paused_ns = time_ns()
        for connection in self._by_session.values():
            if connection.link is not None:
                connection.link.pause_reading()
        if self._tap is not None:
            self._tap.record_decision(None, self._paused_ns, {"action": "pause"})

    def resume(self) -> None:
        """Read on."""
        if not self._paused_ns:
            return
        now_ns = time_ns()
        paused_ns, self._paused_ns = now_ns - self._paused_ns, 0
        self._sweep.resumed(self._by_session.values(), now_ns, paused_ns)
        for connection in self._by_session.values():
            if connection.link is not None:
                connection.link.resume_reading()
        if self._tap is not None:
            self._tap.record_decision(None, now_ns, {"action": "resume"})

    # ------------------------------------------------------------------ numbers

    def statistics(self) -> SupervisorStatistics:
        """Return the counts; `connections` and `pending` are taken now."""
        statistics = self._statistics
        statistics.connections = Counter(
            (line.planned.venue, line.state.value) for line in self.lines
        )
        statistics.pending = sum(
            len(connection.session.pending) for connection in self._by_session.values()
        )
        statistics.repairs = self._repairs.counts
        return statistics


def _at(line: ConnectionSlot) -> tuple[str, str | None]:
    return line.planned.venue, line.planned.source_address
