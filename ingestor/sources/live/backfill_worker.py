"""Fetches lost trades over REST, one request at a time for each server.

`ingestor.pipeline.backfill` decides what is asked for and when; the rows come the same way as a
book's snapshot does, and are put in their place by `ingestor.pipeline.trade_gaps`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from ingestor.adapter import HasTradeHistory, RestRequest
from ingestor.model.clocks import Clocks
from ingestor.model.errors import RequestRefused, TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.timestamps import SECOND
from ingestor.pipeline.backfill import DEFAULTS, BackfillPlanner, BackfillSettings, Wanted
from ingestor.pipeline.pipeline import FlushResult
from ingestor.pipeline.trade_gaps import Lost, TradeGaps
from ingestor.recording.format import unfilled
from ingestor.sources.live.connection import Connection
from ingestor.sources.live.tap import FrameTap
from ingestor.sources.rest.client import RestSettings, address
from ingestor.sources.rest.pool import RestPools
from ingestor.telemetry.bulkheads import bulkheads

if TYPE_CHECKING:
    from ingestor.sources.live.supervisor import Supervisor


_REST: Final = RestSettings(timeout_s=20.0, body_bytes_max=8 << 20, attempts_max=1)
_LASTING: Final = frozenset({400, 401, 403, 404, 405, 410, 451})  # another request can't help

log: Final = structlog.get_logger(__name__)


class BackfillWorker:
    """One task for each server that is asked.

    counts: requests by (venue, market, outcome): answered, failed, refused, unreadable.
    """

    def __init__(
        self,
        connections: Supervisor,
        gaps: TradeGaps,
        table: InstrumentTable,
        flush: Callable[[], None],
        pools: RestPools,
        tap: FrameTap | None = None,
        *,
        settings: BackfillSettings = DEFAULTS,
        clocks: Clocks | None = None,
    ) -> None:
        """Create the backfill worker.

        Args:
            connections: find who carries an instrument.
            gaps: knows what is missing.
            table: the instruments.
            flush: takes what was fetched to the sinks, now.
            pools: ask the venues.
            tap: records what is fetched and decided.
            settings: when to ask, and when to stop asking.
            clocks: those of the machine by default.
        """
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._connections = connections
        self._gaps = gaps
        self._table = table
        self._flush = flush
        self._tap = tap
        self._pools = pools
        self._settings = settings
        self._clocks = clocks or Clocks()
        self._planners: dict[str, BackfillPlanner] = {}  # by REST origin
        self._renumbered: dict[int, int] = {}  # old revision of an instrument -> new
        self._wake: dict[str, asyncio.Event] = {}
        self._fresh = asyncio.Event()

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Fetch the trades that a flush missed, where the venue gives past trades."""
        for hole in result.lost:
            connection = self._connections.connection_of(hole.instrument, "trades")
            if connection is None or not _has_history(connection):
                continue
            origin = connection.slot.planned.rest_url
            if origin not in self._planners:
                self._planners[origin] = BackfillPlanner(self._settings)
                self._wake[origin] = asyncio.Event()
                self._fresh.set()
            refused = self._planners[origin].submit([hole], self._clocks.steady_ns())
            if refused:
                asyncio.get_running_loop().call_soon(
                    bulkheads.guard("backfill", self._give_up), refused
                )
            self._wake[origin].set()

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._renumbered.update(numbers)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            served: set[str] = set()
            while True:
                self._fresh.clear()
                for origin in self._planners.keys() - served:
                    served.add(origin)
                    serve = partial(self._serve, origin)
                    group.create_task(bulkheads.keep("backfill", serve, origin=origin))
                await self._fresh.wait()

    async def _serve(self, origin: str) -> None:
        """Ask one server for what is due, until cancelled."""
        planner, wake = self._planners[origin], self._wake[origin]
        while True:
            wake.clear()
            wanted = planner.take(self._clocks.steady_ns())
            if wanted is not None:
                await self._ask(planner, self._current(wanted))
                continue
            wait_s = None
            if planner.due_ns is not None:
                wait_s = max(0.0, (planner.due_ns - self._clocks.steady_ns()) / SECOND)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await wake.wait()

    def _current(self, wanted: Wanted) -> Wanted:
        """Return a range with the number that its instrument has by now."""
        number = wanted.lost.instrument
        while number in self._renumbered:
            number = self._renumbered[number]
        return replace(wanted, lost=replace(wanted.lost, instrument=number))

    async def _ask(self, planner: BackfillPlanner, wanted: Wanted) -> None:
        """Send one request for a range, unless it came meanwhile."""
        lost = wanted.lost
        left = self._gaps.left(lost)
        if left != [lost]:
            planner.answered(wanted, left, self._clocks.steady_ns())
            return
        connection = self._connections.connection_of(lost.instrument, "trades")
        if connection is None or not connection.is_open:
            self._give_up(planner.missed(wanted, self._clocks.steady_ns()))
            return
        adapter = connection.session.adapter
        symbol = _symbol(connection, lost.instrument)
        assert isinstance(adapter, HasTradeHistory)
        request = adapter.history_request(symbol, lost.trades)
        if request is None:
            self._give_up([lost])
            return
        try:
            body = await self._fetched(connection, request)
        except TransportError as failure:
            self._failed(planner, wanted, connection, failure)
            return
        outcome = self._taken(connection, symbol, request, body)
        self._count(connection, outcome)
        left = self._gaps.left(lost)
        self._give_up(planner.answered(wanted, left, self._clocks.steady_ns()))

    async def _fetched(self, connection: Connection, request: RestRequest) -> bytes:
        planned = connection.slot.planned
        client = await self._pools.client(planned.adapter, planned.market, planned.rest_url)
        return await client.get(planned.rest_url, request, _REST)

    def _taken(self, connection: Connection, symbol: str, request: RestRequest, body: bytes) -> str:
        """Hand an answer on; return its outcome."""
        now_ns = self._clocks.wall_ns()
        session, planned = connection.session, connection.slot.planned
        if self._tap is not None:
            url = address(planned.rest_url, request)
            self._tap.fetched(session.connection, now_ns, planned.venue, planned.market, url, body)
        is_read = session.history(symbol, body, now_ns)
        self._flush()
        return "answered" if is_read else "unreadable"

    def _failed(
        self,
        planner: BackfillPlanner,
        wanted: Wanted,
        connection: Connection,
        failure: TransportError,
    ) -> None:
        is_lasting = isinstance(failure, RequestRefused) and failure.status in _LASTING
        self._count(connection, "refused" if is_lasting else "failed")
        log.warning("trades.backfill.failed", detail=str(failure))
        if is_lasting:
            self._give_up([wanted.lost])
        else:
            self._give_up(planner.missed(wanted, self._clocks.steady_ns()))

    def _count(self, connection: Connection, outcome: str) -> None:
        planned = connection.slot.planned
        self.counts[planned.venue, planned.market, outcome] += 1

    def _give_up(self, lost: Iterable[Lost]) -> None:
        """Declare ranges as not to be had: between two flushes, so that a replay does it there."""
        for hole in lost:
            self._flush()
            now_ns = self._clocks.wall_ns()
            key = self._table[hole.instrument].key
            if self._tap is not None:
                self._tap.record_decision(None, now_ns, unfilled(key, hole.trades))
            log.warning("trades.unfilled", key=key, first=hole.trades.first, last=hole.trades.last)
            self._gaps.give_up(hole, now_ns)
            self._flush()


def _has_history(connection: Connection) -> bool:
    return isinstance(connection.session.adapter, HasTradeHistory)


def _symbol(connection: Connection, instrument: int) -> str:
    return next(
        subscription.symbol
        for subscription in connection.session.subscriptions
        if (subscription.instrument, subscription.channel) == (instrument, "trades")
    )
