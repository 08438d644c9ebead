"""Feeds `ingestor.sources.live.staleness` and acts on what it suspects, for all streams at once.

Nothing is done per message or per flush: what changed since the last look is read off the arrays
that the metrics keep anyway, so a stream counts as heard at most once a look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from ingestor.decode.session import Session
from ingestor.model.errors import TransportError
from ingestor.model.rows import CHANNEL_OF, RowClass
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.staleness import Action, Staleness
from ingestor.telemetry.metrics import LastSeen

LOOK_S: Final = 0.25
CHECK_S: Final = 1.0

log = structlog.get_logger(__name__)


class Remedies(Protocol):
    """Who acts on a silent stream; `Supervisor` does."""

    @property
    def is_paused(self) -> bool: ...

    def stale(self, instrument: int, channel: str, silence_s: float, *, probed: bool) -> None: ...


class StalenessMonitor(SupervisorEvents):
    """Hears of connections, looks at the streams, asks for probes and reconnects."""

    def __init__(self, staleness: Staleness, last_seen: LastSeen) -> None:
        self._staleness = staleness
        self._last_seen = last_seen
        self._known = {one: np.zeros(0, np.int64) for one in RowClass}
        self._paused_ns = 0
        self.probes = 0
        self.reconnects = 0

    def up(self, planned: PlannedConnection, session: Session) -> None:
        now_ns = time.time_ns()
        for row_class in RowClass:
            self._staleness.watch(planned.number, row_class, session.instruments(row_class), now_ns)

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        self._staleness.unwatch(planned.number)

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        refused = set(streams)
        gone = [one for one in planned.subscriptions if one.stream in refused]
        for row_class in RowClass:
            channel = CHANNEL_OF[row_class]
            self._staleness.forget(
                row_class, [one.instrument for one in gone if one.channel == channel]
            )

    def paused(self) -> None:
        """We stopped reading: from here silence is our own."""
        self._paused_ns = time.time_ns()

    def resumed(self) -> None:
        if self._paused_ns:
            self._staleness.paused(time.time_ns() - self._paused_ns)
            self._paused_ns = 0

    async def run(self, remedies: Remedies) -> None:
        """Look and check until cancelled."""
        check_s = time.monotonic() + CHECK_S
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
            if time.monotonic() >= check_s and not remedies.is_paused:
                check_s = time.monotonic() + CHECK_S
                self.check(remedies, time.time_ns())

    def look(self) -> None:
        """Tell the statistics which streams spoke since the last look."""
        for row_class in RowClass:
            now = self._last_seen.times(row_class)
            before = self._known[row_class]
            if len(before) < len(now):
                before = np.concatenate([before, np.zeros(len(now) - len(before), np.int64)])
            heard: NDArray[np.int64] = np.flatnonzero(now != before)
            self._staleness.heard(row_class, heard, now[heard])
            self._known[row_class] = now.copy()

    def check(self, remedies: Remedies, now_ns: int) -> None:
        for suspect in self._staleness.check(now_ns):
            probed = suspect.action is Action.RECONNECT
            if probed:
                self.reconnects += 1
            else:
                self.probes += 1
            channel = CHANNEL_OF[suspect.row_class]
            log.warning(
                "stream.silent",
                cause=suspect.action.value,
                channel=channel,
                instrument=suspect.instrument,
                silence_s=round(suspect.silence_s, 1),
            )
            remedies.stale(suspect.instrument, channel, suspect.silence_s, probed=probed)
