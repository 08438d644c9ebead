"""Find what is due by time on open connections: pings and their pongs, acks, age.

One timer for all connections looks at a tenth of them every 100 ms, oftener where patience is
short: whether something arrived since the last look, and whether something is due. A ping is sent
at the last look before its time, so that a dead peer is found a look after its own at the latest.
Durations are measured between looks by a clock that is never set: the time at which a frame arrived
is the wall clock's, and only tells that there was one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from ingestor.model.timestamps import SECOND
from ingestor.sources.live.connection import (
    NEVER,
    Connection,
    ConnectionSlot,
    PingTimeout,
    PlannedReconnect,
)
from ingestor.telemetry.bulkheads import bulkheads

if TYPE_CHECKING:
    from ingestor.sources.live.supervisor import Supervisor


_SLICES: Final = 10
_SLICE_S: Final = 0.1
_MATTERS: Final = 20  # a pause of a twentieth of the time that a pong may take, and more


@dataclass(frozen=True, slots=True)
class HealthTimeouts:
    """Set how long a connection may be silent, in seconds.

    ping_interval_s: after so much silence a websocket ping is sent. ping_timeout_s: after so much
    more the peer is dead. ack_timeout_s: for the answer to a subscription, once repeated.
    stable_s: a connection that lasted so long starts its backoff from the beginning.
    refused_s: until refused streams are asked for again; each later time waits twice as long, at
    most refused_max_s.
    """

    ping_interval_s: float = 10.0
    ping_timeout_s: float = 10.0
    ack_timeout_s: float = 10.0
    stable_s: float = 30.0
    refused_s: float = 60.0
    refused_max_s: float = 3_600.0


class HealthChecker:
    """The shared timer. Times of a connection are those of `clock_ns`; see `Connection`."""

    def __init__(
        self,
        patience: HealthTimeouts,
        remedies: Supervisor,
        random: Callable[[], float],
        clock_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._clock_ns = clock_ns
        shortest_s = min(patience.ping_interval_s, patience.ping_timeout_s)
        self._slice_s = min(_SLICE_S, shortest_s / (2 * _SLICES))
        self._interval_ns = round((patience.ping_interval_s - self._slice_s * _SLICES) * SECOND)
        self._timeout_ns = round(patience.ping_timeout_s * SECOND)
        self._ack_ns = round(patience.ack_timeout_s * SECOND)
        self._stable_ns = round(patience.stable_s * SECOND)
        self._refused_ns = round(patience.refused_s * SECOND)
        self._refused_max_ns = round(patience.refused_max_s * SECOND)
        self._remedies = remedies
        self._random = random

    async def run(
        self, slots: Callable[[], Iterable[ConnectionSlot]], paused: Callable[[], bool]
    ) -> None:
        """Run until cancelled. While reading is paused nothing is due.

        Args:
            slots: returns all slots; asked again for each round of looks.
            paused: tells whether sockets are not read now.
        """
        while True:
            round_of_slots = list(slots())
            size = -(-len(round_of_slots) // _SLICES)
            for slice_number in range(_SLICES):
                await asyncio.sleep(self._slice_s)
                if not paused():
                    place = slice_number * size
                    self.look(round_of_slots[place : place + size], self._clock_ns())

    def look(self, slots: Sequence[ConnectionSlot], now_ns: int) -> None:
        """Note which of these connections received something; act on what is due."""
        for slot in slots:
            connection = slot.connection
            if connection is None or connection.link is None:
                continue
            received_ns = connection.link.received_ns
            if received_ns != connection.seen_ns:
                connection.seen_ns, connection.heard_ns = received_ns, now_ns
            if connection.due_ns <= now_ns:
                try:
                    self._check(connection, now_ns)
                except Exception as failure:  # noqa: BLE001  # the boundary of a connection
                    connection.due_ns = now_ns + self._interval_ns
                    bulkheads.bug("connection", failure, venue=slot.planned.venue)

    def started(self, connection: Connection) -> None:
        """A connection opened: set what will be due."""
        now_ns = connection.started_ns = connection.heard_ns = self._clock_ns()
        limits = connection.slot.planned.limits
        if limits.ping_interval_s is not None and connection.session.adapter.ping() is not None:
            connection.app_ping_ns = now_ns + round(limits.ping_interval_s * SECOND)
        if limits.lifetime_s is not None:
            # Spread over a tenth of the lifetime, and never up to the venue's own cut.
            share = 0.85 + 0.1 * self._random()
            connection.expires_ns = now_ns + round(limits.lifetime_s * share * SECOND)
        connection.due_ns = self._next_due(connection)

    def subscribed(self, connection: Connection) -> None:
        """Subscriptions were sent: their acks are due."""
        connection.ack_due_ns = self._clock_ns() + self._ack_ns
        connection.due_ns = min(connection.due_ns, connection.ack_due_ns)

    def refused(self, connection: Connection) -> None:
        """The venue refuses streams. That may pass: they are asked for again, ever more rarely."""
        if connection.refused_ns != NEVER:
            return
        wait_ns = max(2 * connection.refused_wait_ns, self._refused_ns)
        connection.refused_wait_ns = min(wait_ns, self._refused_max_ns)
        jitter = 0.75 + 0.5 * self._random()
        connection.refused_ns = self._clock_ns() + round(connection.refused_wait_ns * jitter)
        connection.due_ns = min(connection.due_ns, connection.refused_ns)

    def resumed(self, connections: Iterable[Connection], paused_ns: int) -> None:
        """Reading goes on: what was not read is no silence of the peer.

        A short pause is no matter (the throttle's come often, and are soon over).
        """
        if paused_ns < self._timeout_ns // _MATTERS:
            return
        for connection in connections:
            if connection.link is None:
                continue
            connection.pinged_ns = 0
            connection.heard_ns = self._clock_ns()
            if connection.ack_due_ns != NEVER:
                connection.ack_due_ns += paused_ns
            connection.due_ns = self._next_due(connection)

    def _next_due(self, connection: Connection) -> int:
        link = connection.link
        if link is None:
            return NEVER
        if connection.pinged_ns:
            alive_ns = connection.pinged_ns + self._timeout_ns
        else:
            alive_ns = connection.heard_ns + self._interval_ns
        stable_ns = NEVER if connection.stable else connection.started_ns + self._stable_ns
        return min(
            alive_ns,
            stable_ns,
            connection.app_ping_ns,
            connection.ack_due_ns,
            connection.expires_ns,
            connection.refused_ns,
        )

    def _check(self, connection: Connection, now_ns: int) -> None:
        link = connection.link
        if link is None:
            connection.due_ns = NEVER
            return
        url = connection.slot.planned.url
        if connection.heard_ns > connection.pinged_ns:
            connection.pinged_ns = 0
        if connection.pinged_ns:
            if now_ns - connection.pinged_ns >= self._timeout_ns:
                silence_s = (now_ns - connection.heard_ns) / SECOND
                connection.fail(PingTimeout(url, f"no answer to a ping, {silence_s:.1f} s silent"))
                return
        elif now_ns - connection.heard_ns >= self._interval_ns:
            connection.pinged_ns = now_ns
            link.ping()
        if now_ns >= connection.app_ping_ns:
            self._app_ping(connection, now_ns)
        if now_ns >= connection.ack_due_ns:
            self._acks(connection, now_ns)
        if now_ns >= connection.refused_ns:
            connection.refused_ns = NEVER
            self._remedies.ask_refused(connection)
        if not connection.stable and now_ns - connection.started_ns >= self._stable_ns:
            connection.stable = True
            connection.slot.attempt = 0
        if now_ns >= connection.expires_ns:
            connection.expires_ns = NEVER
            self._remedies.replace(connection, PlannedReconnect(url, "lifetime"))
        connection.due_ns = self._next_due(connection)

    def _app_ping(self, connection: Connection, now_ns: int) -> None:
        payload = connection.session.adapter.ping()
        interval_s = connection.slot.planned.limits.ping_interval_s
        if payload is None or interval_s is None:
            connection.app_ping_ns = NEVER
            return
        connection.send(payload)
        connection.app_ping_ns = now_ns + round(interval_s * SECOND)

    def _acks(self, connection: Connection, now_ns: int) -> None:
        connection.ack_due_ns = NEVER
        streams = sorted(connection.session.pending)
        if not streams:
            return
        if connection.resubscribed:
            self._remedies.unacknowledged(connection, streams)
        else:
            connection.resubscribed = True
            self._remedies.ask_again(connection, streams)
