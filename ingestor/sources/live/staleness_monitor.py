"""Feeds `ingestor.sources.live.staleness` and acts on what it suspects, for all streams at once.

Nothing is done per message or per flush: what changed since the last look is read off the arrays
that the metrics keep anyway, so a stream counts as heard at most once a look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from ingestor.adapter.contract import Subscription
from ingestor.decode.session import Session, instruments_of
from ingestor.model.errors import TransportError
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.staleness import Action, Staleness
from ingestor.telemetry.last_seen import LastSeen

if TYPE_CHECKING:
    from ingestor.sources.live.supervisor import Supervisor


LOOK_S: Final = 0.25
_LOOK_NS: Final = round(LOOK_S * 1e9)
CHECK_S: Final = 1.0
_CHECK_NS: Final = round(CHECK_S * 1e9)

log = structlog.get_logger(__name__)


class StalenessMonitor(SupervisorEvents):
    """Follows the connections, looks at the streams, asks for probes and reconnects."""

    def __init__(
        self,
        staleness: Staleness,
        last_seen: LastSeen,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """clock_ns: a clock that is never set."""
        self._staleness = staleness
        self._last_seen = last_seen
        self._clock_ns = clock_ns
        nothing = np.zeros(0, np.int64)
        # By class: when each instrument last spoke; what came of it and was not published.
        self._known = dict.fromkeys(ROW_CLASSES, (nothing, nothing))
        self._paused_ns: int | None = None
        self.probes = 0
        self.reconnects = 0

    def up(self, planned: PlannedConnection, session: Session) -> None:
        now_ns = self._clock_ns()
        for row_class in ROW_CLASSES:
            self._staleness.watch(planned.number, row_class, session.instruments(row_class), now_ns)

    def carries_on(self, planned: PlannedConnection, session: Session) -> None:
        self.up(planned, session)

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
        now_ns = self._clock_ns()
        for row_class in ROW_CLASSES:
            self._staleness.forget(row_class, instruments_of(removed, row_class))
            instruments = instruments_of(added, row_class)
            self._staleness.watch(planned.number, row_class, instruments, now_ns)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._staleness.replace_instruments(numbers)

    @property
    def silent_streams(self) -> list[tuple[int, RowClass]]:
        """Instrument and class of each stream that is marked silent."""
        return self._staleness.silent()

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        """Take note that a connection ended or could not be opened.

        Args:
            planned: The planned connection.
            session: Its session, None before there is one.
            failure: Why.
        """
        self._staleness.unwatch(planned.number)

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        """Take note that the venue refuses streams.

        Args:
            planned: The planned connection.
            streams: Names of the streams.
            text: The venue's words.
        """
        refused = set(streams)
        gone = [
            subscription for subscription in planned.subscriptions if subscription.stream in refused
        ]
        for row_class in ROW_CLASSES:
            self._staleness.forget(row_class, instruments_of(gone, row_class))

    def paused(self) -> None:
        """We stopped reading: from here silence is our own."""
        self._paused_ns = self._clock_ns()

    def resumed(self) -> None:
        if self._paused_ns is not None:
            self._staleness.paused(self._clock_ns() - self._paused_ns)
            self._paused_ns = None

    async def run(self, remedies: Supervisor) -> None:
        """Look and check until cancelled."""
        check_ns = self._clock_ns() + _CHECK_NS
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(remedies)
            now_ns = self._clock_ns()
            if now_ns >= check_ns and not remedies.is_paused:
                check_ns = now_ns + _CHECK_NS
                self.check(remedies, now_ns)

    def look(self, remedies: Supervisor) -> None:
        """Find the streams that spoke since the last look.

        Times of receipt are the wall clock's. Only how long ago they are counts, and no more than
        the time since the last look, so that a clock that is set makes no stream silent.
        """
        wall_ns, now_ns = time.time_ns(), self._clock_ns()
        for row_class in ROW_CLASSES:
            now = self._last_seen.times(row_class)
            held = self._last_seen.unpublished(row_class)
            size = max(len(now), len(held))
            now, held = _grown(now, size), _grown(held, size)
            before, held_before = (_grown(known, size) for known in self._known[row_class])
            heard: NDArray[np.int64] = np.flatnonzero((now != before) | (held != held_before))
            age_ns = np.clip(wall_ns - now[heard], 0, _LOOK_NS)
            age_ns[held[heard] != held_before[heard]] = 0
            for instrument in self._staleness.heard(row_class, heard, now_ns - age_ns):
                remedies.spoke_again(instrument, row_class.channel)
            self._known[row_class] = now.copy(), held.copy()

    def check(self, remedies: Supervisor, now_ns: int) -> None:
        for suspect in self._staleness.check(now_ns):
            channel = suspect.row_class.channel
            if suspect.action is Action.SILENT:
                remedies.silent(suspect.instrument, channel, suspect.silence_s)
                continue
            probed = suspect.action is Action.RECONNECT
            self.reconnects += probed
            self.probes += not probed
            log.warning(
                "stream.silent",
                cause=suspect.action.value,
                channel=channel,
                instrument=suspect.instrument,
                silence_s=round(suspect.silence_s, 1),
            )
            remedies.stale(suspect.instrument, channel, suspect.silence_s, probed=probed)


def _grown(values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return an array of at least this size, with zeros at its end."""
    missing = size - len(values)
    return np.concatenate([values, np.zeros(missing, np.int64)]) if missing > 0 else values
