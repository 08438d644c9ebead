"""Brings broken books their snapshots: by subscribing again, or over REST.

Books decide what and when (`Repair.due_ns` holds rate and backoff) and ask again when nothing
came; so a repair that can't be done now, its connection being down, is dropped here.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from ingestor.adapter import RestRequest, SnapshotSource
from ingestor.adapter.contract import Subscription
from ingestor.books.repair_planner import Repair
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.model.rows import Cause
from ingestor.model.timestamps import SECOND
from ingestor.pipeline.pipeline import FlushResult
from ingestor.recording.format import RESUBSCRIBE
from ingestor.sources.live.connection import Connection, PlannedReconnect
from ingestor.sources.live.tap import FrameTap
from ingestor.sources.rest.client import RestSettings, address
from ingestor.sources.rest.pool import RestPools
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.tracing import tracing

if TYPE_CHECKING:
    from ingestor.sources.live.supervisor import Supervisor


_NEVER_BROKE: Final = frozenset({None, Cause.DISCONNECT})
_AT_ONCE: Final = 32  # REST requests and resubscriptions under way
_REST: Final = RestSettings(timeout_s=20.0)


class RepairWorker:
    """A schedule of repairs and the few tasks that do them.

    counts: resubscribed, asked_again, fetched, failed (REST), dropped (no connection), needless (a
    snapshot came before).
    """

    def __init__(
        self,
        connections: Supervisor,
        tap: FrameTap | None,
        request_flush: Callable[[], None],
        pools: RestPools,
        clocks: Clocks,
    ) -> None:
        """pools: ask the venues for snapshots."""
        self._clocks = clocks
        self._pools = pools
        self.counts: Counter[str] = Counter()
        self._connections = connections
        self._tap = tap
        self._request_flush = request_flush
        self._schedule: list[tuple[int, int, Repair]] = []  # due_ns, a number that orders, what
        self._submitted = 0
        self._waiting: dict[int, Repair] = {}  # by instrument
        self._fetched: dict[int, bool] = {}  # how it was repaired last, where there are two ways
        self._work: list[Callable[[], Coroutine[None, None, None]]] = []
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._wake = asyncio.Event()

    def observe(self, result: FlushResult, _now_ns: int) -> None:
        """Do each repair when it is due; an instrument that waits already keeps its place."""
        for repair in result.repairs:
            waiting = self._waiting.get(repair.instrument)
            if waiting is None or not waiting.is_needed:
                self._waiting[repair.instrument] = repair
                self._submitted += 1
                heapq.heappush(self._schedule, (repair.due_ns, self._submitted, repair))
        self._wake.set()

    def resubscribe(self, connection: Connection, streams: Sequence[str]) -> None:
        """Unsubscribe and subscribe again, at the venue's pace."""
        self._work.append(partial(self._resubscribe, connection, list(streams)))
        self._wake.set()

    def subscribe_singly(self, connection: Connection, streams: Sequence[str]) -> None:
        """Ask for each in a request of its own: the venue refused them together, or was silent."""
        self._work.append(partial(self._subscribe_singly, connection, list(streams)))
        self._wake.set()

    def change_streams(
        self, connection: Connection, subscribe: Sequence[str], unsubscribe: Sequence[str]
    ) -> None:
        """Unsubscribe from streams and subscribe to others, at the venue's pace.

        Args:
            connection: The connection.
            subscribe: Names of new streams.
            unsubscribe: Names of streams that end.
        """
        work = partial(self._change_streams, connection, list(subscribe), list(unsubscribe))
        self._work.append(work)
        self._wake.set()

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._waiting = {numbers.get(one, one): repair for one, repair in self._waiting.items()}
        self._fetched = {numbers.get(one, one): was for one, was in self._fetched.items()}

    async def run(self) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                while self._work:
                    await self._slots.acquire()
                    self._start(group, _bounded(self._work.pop()))
                now_ns = self._clocks.steady_ns()
                while self._schedule and self._schedule[0][0] <= now_ns:
                    await self._slots.acquire()
                    *_, repair = heapq.heappop(self._schedule)
                    if self._waiting.get(repair.instrument) is repair:
                        del self._waiting[repair.instrument]
                    self._start(group, self._repair(repair))
                timer: asyncio.TimerHandle | None = None
                if self._schedule:
                    delay_s = max(0, self._schedule[0][0] - self._clocks.steady_ns()) / SECOND
                    timer = loop.call_later(delay_s, self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
        task = group.create_task(work)
        task.add_done_callback(lambda _task: self._slots.release())

    def _is_fetched(self, instrument: int, source: SnapshotSource, cause: Cause | None) -> bool:
        """Say whether a book gets its snapshot over REST.

        Where either way may do, they are tried in turn. A book that never had one was subscribed
        to a while ago, so that it begins with REST.
        """
        if source is SnapshotSource.EITHER:
            was_fetched = self._fetched.get(instrument, cause not in _NEVER_BROKE)
            self._fetched[instrument] = not was_fetched
            return not was_fetched
        return source is SnapshotSource.REST

    async def _repair(self, repair: Repair) -> None:
        """Do one repair; an error that is ours costs that repair, which the book asks for again."""
        try:
            if not repair.is_needed:
                self.counts["needless"] += 1
                return
            connection, subscription = self._carrier(repair.instrument)
            if connection is None or subscription is None:
                self.counts["dropped"] += 1
                return
            request = self._request(connection, subscription, repair.cause)
            planned = connection.slot.planned
            why = repair.cause.name.lower() if repair.cause else "new"
            about = {"venue": planned.venue, "market": planned.market, "cause": why}
            with tracing.span("repair", symbol=subscription.symbol, **about):
                if request is None:
                    await self._resubscribe(connection, [subscription.stream])
                else:
                    await self._fetch(connection, subscription.symbol, request)
        except Exception as failure:  # noqa: BLE001  # the boundary of a repair
            bulkheads.bug("repair", failure)

    def _request(
        self, connection: Connection, subscription: Subscription, cause: Cause | None
    ) -> RestRequest | None:
        """Decide how a book is repaired: return the request for a snapshot, None to resubscribe.

        Args:
            connection: It carries the book.
            subscription: That of the book.
            cause: Why the book broke, None where it never had a snapshot.
        """
        planned, instrument = connection.slot.planned, subscription.instrument
        request = None
        if self._is_fetched(instrument, planned.book.snapshot, cause):
            request = connection.session.adapter.snapshot_request(subscription.symbol)
        if self._tap is not None:
            self._tap.record_decision(
                connection.session.connection,
                self._clocks.wall_ns(),
                {
                    "action": "repair",
                    "instrument": instrument,
                    "symbol": subscription.symbol,
                    "by": "subscribe" if request is None else "rest",
                },
            )
        return request

    def _carrier(self, instrument: int) -> tuple[Connection | None, Subscription | None]:
        """Return what brings an instrument's book: the connection and the subscription."""
        for channel in ("book", "quotes"):
            connection = self._connections.connection_of(instrument, channel)
            if connection is None or channel not in connection.slot.planned.book.channels:
                continue
            for subscription in connection.session.subscriptions:
                if (subscription.instrument, subscription.channel) == (instrument, channel):
                    return connection, subscription
        return None, None

    async def _resubscribe(self, connection: Connection, streams: list[str]) -> None:
        session, adapter = connection.session, connection.session.adapter
        unsubscribe = list(adapter.unsubscribe(streams))
        subscribe = list(adapter.subscribe(streams))
        if not connection.requests.has_room(len(unsubscribe) + len(subscribe)):
            url = connection.slot.planned.url
            reason = PlannedReconnect(url, "its requests of this hour are used up")
            self._connections.replace(connection, reason)
            return
        if connection.is_open:
            now_ns = self._clocks.wall_ns()
            session.interrupt(streams, now_ns)
            if self._tap is not None:
                decision = {"action": RESUBSCRIBE, "streams": streams}
                self._tap.record_decision(session.connection, now_ns, decision)
        await connection.send_paced(unsubscribe)
        await connection.send_paced(subscribe)
        if connection.is_open:
            self.counts["resubscribed"] += 1
            self._connections.sent_again(connection, streams)

    async def _change_streams(
        self, connection: Connection, subscribe: list[str], unsubscribe: list[str]
    ) -> None:
        adapter = connection.session.adapter
        if unsubscribe:
            await connection.send_paced(adapter.unsubscribe(unsubscribe))
        if subscribe:
            await connection.send_paced(adapter.subscribe(subscribe))
            if connection.is_open:
                self._connections.sent_again(connection, subscribe)

    async def _subscribe_singly(self, connection: Connection, streams: list[str]) -> None:
        for stream in streams:
            await connection.send_paced(connection.session.adapter.subscribe([stream]))
        if connection.is_open:
            self.counts["asked_again"] += 1
            self._connections.sent_again(connection, connection.session.pending)

    async def _fetch(self, connection: Connection, symbol: str, request: RestRequest) -> None:
        planned = connection.slot.planned
        try:
            with tracing.span("snapshot", venue=planned.venue, symbol=symbol):
                client = await self._pools.client(planned.adapter, planned.market, planned.rest_url)
                body = await client.get(planned.rest_url, request, _REST)
        except TransportError:
            self.counts["failed"] += 1
            return
        if not connection.is_open:
            self.counts["dropped"] += 1
            return
        now_ns = self._clocks.wall_ns()
        session = connection.session
        if self._tap is not None:
            url = address(planned.rest_url, request)
            self._tap.fetched(session.connection, now_ns, planned.venue, planned.market, url, body)
        session.snapshot(symbol, body, now_ns)
        self.counts["fetched"] += 1
        self._request_flush()


async def _bounded(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run what was asked for; an error that is ours costs that alone."""
    try:
        await work()
    except Exception as failure:  # noqa: BLE001  # the boundary of a repair
        bulkheads.bug("repair", failure)
