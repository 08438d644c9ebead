"""One process of the ingestor: built from a plan, run until told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import structlog
from prometheus_client.core import Metric

from ingestor.adapter import BookRule, FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.adapter.instrument_list import InstrumentList, ListChange
from ingestor.admin.exposition import Exposition, StreamState
from ingestor.admin.families import (
    book_families,
    bug_families,
    connection_families,
    kafka_families,
    list_families,
    recorder_families,
)
from ingestor.admin.server import AdminServer
from ingestor.app import settings
from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.app.book_snapshots import BookSnapshotPublisher
from ingestor.app.descriptors import descriptor_budget
from ingestor.app.event_log import EventLog
from ingestor.app.instrument_revisions import Revisions
from ingestor.app.instrument_watch import InstrumentWatch, WatchPace
from ingestor.app.planning import ListSource, Planned
from ingestor.app.status_report import StatusReporter
from ingestor.books.repair_planner import Repair
from ingestor.columns.sealed import Rejected
from ingestor.config.model import Config
from ingestor.model.rows import CLASS_OF, Cause, RowClass
from ingestor.pipeline.flusher import Flusher
from ingestor.pipeline.pipeline import FlushResult, Pipeline
from ingestor.recording.format import revision
from ingestor.recording.recorder import Recorder
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sources.live.book_audit import AuditSettings, BookAuditor
from ingestor.sources.live.events import EventsOfAll, SupervisorEvents
from ingestor.sources.live.plan import make_plan
from ingestor.sources.live.replan import PlanChange, replan, together, without
from ingestor.sources.live.settings import SupervisorSettings
from ingestor.sources.live.staleness import Staleness, StalenessSettings
from ingestor.sources.live.staleness_monitor import StalenessMonitor
from ingestor.sources.live.supervisor import Supervisor
from ingestor.sources.rate_limiter import holds
from ingestor.sources.rest.catalog import Catalog
from ingestor.sources.rest.client import RestClient
from ingestor.sources.rest.statistics import lists
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.loop_lag import LoopLag
from ingestor.telemetry.status import Health, Phase, Status, readiness

CONNECT_KAFKA_S: Final = 15.0
REPORT_S: Final = 1.0  # also a flush of nothing, for books to ask again for what is overdue
# Parsing makes no cycles; the default thresholds would walk the young generation 1,000 times a
# second. See docs/adr/0003.
GC_THRESHOLDS: Final = (50_000, 20, 100)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drained:
    """How a run ended. lost: rows that were read and could not be delivered in time."""

    status: Status
    lost: int


class Ingestor:
    """All parts of one process. `run` owns their tasks; `stop` ends it in order.

    connections_max: how many venue connections the descriptors allow, known when `run` begins.
    """

    connections_max: int

    def __init__(
        self, config: Config, planned: Planned, *, publish: bool = True, session: bytes = b""
    ) -> None:
        """publish: False records without Kafka. session: 16 bytes, random by default."""
        self.config = config
        self.planned = planned
        self.session = session or os.urandom(16)
        self.phase = Phase.STARTING
        self._stop = asyncio.Event()
        self.loop_lag = LoopLag()
        table = planned.table
        self._rules = planned.plan.book_rules()
        self.pipeline = Pipeline(table, self._rule_of, settings.book_settings(config.books))
        metrics = self.pipeline.metrics
        self.sink = (
            KafkaSink(
                settings.kafka_settings(config.kafka),
                table,
                metrics,
                session=self.session,
                budget=settings.budget(config.budget),
            )
            if publish
            else None
        )
        self.publishing = AuxiliaryRecords(self.sink) if self.sink is not None else None
        self.recorder = (
            Recorder(
                settings.recorder_settings(config.recorder),
                self.session.hex(),
                table,
                self._subscriptions_of,
            )
            if config.recorder is not None
            else None
        )
        self.staleness_monitor = (
            StalenessMonitor(
                Staleness(StalenessSettings(config.staleness.floor_s, config.staleness.ceiling_s)),
                metrics.last_seen,
            )
            if config.staleness.enabled
            else None
        )
        self.flusher = Flusher(
            self.pipeline,
            [self.sink] if self.sink is not None else [],
            rows_max=config.batch.rows_max,
            linger_s=config.batch.linger_ms / 1e3,
            on_repairs=self._repair,
            on_rejected=self._quarantine,
        )
        self.supervisor = Supervisor(
            planned.plan,
            table,
            self.pipeline.frame_queues,
            self.flusher.read_complete_of,
            self.flusher.request_flush,
            tap=self.recorder,
            settings=SupervisorSettings(
                open_timeout_s=config.limits.connect_timeout_s,
                receive_buffer_bytes=config.limits.receive_buffer_bytes,
                backoff=settings.backoff(config.limits),
                connects=settings.connects(config.limits),
            ),
            events=EventsOfAll(self._listeners()),
        )
        self.reporter = StatusReporter(self.pipeline, self.supervisor.counts)
        self.http = AdminServer(config.http, self) if config.http.enabled else None
        self._exposition = Exposition(metrics, self.supervisor.counts, self.status, [self._parts])
        self._revisions = Revisions(
            table,
            settings.rest_settings(config.catalogue),
            settings.catalogue_settings(config.catalogue),
            {(feed.venue, feed.market): feed.rest_url for feed in config.feeds},
        )
        self._lists = (
            InstrumentWatch(planned.planner, WatchPace(config.catalogue.ttl_s), self._follow_list)
            if planned.planner is not None
            else None
        )
        self._group: asyncio.TaskGroup | None = None
        self._refreshing: set[asyncio.Task[None]] = set()  # of instrument lists
        self.book_snapshots = (
            BookSnapshotPublisher(
                self.pipeline.books,
                table,
                self.sink,
                self.publishing,
                config.books.snapshot_interval_s,
            )
            if self.sink is not None and self.publishing is not None
            else None
        )
        audit_s = config.books.audit_interval_s
        self.auditor = (
            BookAuditor(
                self.supervisor,
                self.pipeline.books,
                table,
                AuditSettings(audit_s),
                lambda instrument: self._invalidate([instrument], Cause.CHECKSUM),
            )
            if audit_s and config.books.verify
            else None
        )
        self._shed_books: set[int] = set()
        self.flusher.observe(self._observe)
        self._revisions.subscribe(self.supervisor.replace_instruments)
        self._revisions.subscribe(self._revise)
        if self.staleness_monitor is not None:
            self._revisions.subscribe(self.staleness_monitor.replace_instruments)
        if self.book_snapshots is not None:
            self._revisions.subscribe(self.book_snapshots.replace_instruments)
        if self.sink is not None:
            self.sink.on_pause = self._pause
            self.sink.on_resume = self._resume
            self.sink.on_shed = self._shed

    def _rule_of(self, number: int) -> BookRule:
        instrument = self.planned.table[number]
        return self._rules[instrument.venue, instrument.market]

    # ------------------------------------------------------------------ life

    def stop(self) -> None:
        """End `run` in order: no more sockets, a last flush, the sink's drain."""
        self._stop.set()

    async def run(self, on_ready: Callable[[], None] | None = None) -> Drained:
        """Run until `stop`. on_ready: called once Kafka has accepted us and sockets may open; not
        at all when `stop` comes before that.

        Raises SinkUnavailable when Kafka can't be reached at the start, ListenFailed when the
        HTTP port is taken.
        """
        self.connections_max = descriptor_budget(len(self.planned.plan))
        async with AsyncExitStack() as stack:
            if self.http is not None:
                await stack.enter_async_context(self.http)
            if self.recorder is not None:
                self.recorder.start()
                stack.push_async_callback(self.recorder.stop)
            async with asyncio.TaskGroup() as group:
                self._group = group
                tasks: list[asyncio.Task[Any]] = []

                def keep(unit: str, run: Callable[[], Awaitable[object]]) -> None:
                    tasks.append(group.create_task(bulkheads.keep(unit, run), name=unit))

                keep("loop lag", self.loop_lag.run)
                stopping = group.create_task(self._stop.wait(), name="stop")
                tasks.append(stopping)
                if self.sink is not None:
                    tasks.append(group.create_task(self.sink.run(), name="kafka"))
                    try:
                        await self._until_connected(self.sink, stopping)
                    except BaseException:
                        _cancel(tasks)
                        raise
                if stopping.done():
                    _cancel(tasks)
                    return Drained(self._status(recent=False), 0)
                self._announce("session_start")
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                self.phase = Phase.RUNNING
                if on_ready is not None:
                    on_ready()
                supervising = group.create_task(self.supervisor.run(), name="supervisor")
                keep("report", self._report)
                if self.book_snapshots is not None:
                    keep("book snapshots", self.book_snapshots.run)
                if self.auditor is not None:
                    keep("book audit", self.auditor.run)
                if self.staleness_monitor is not None:
                    keep("staleness", partial(self.staleness_monitor.run, self.supervisor))
                if self._lists is not None:
                    keep("instrument list", partial(self._watch_lists, self._lists))
                await stopping
                drained = await self._drain(supervising)
                _cancel([*tasks, *self._refreshing])
        self.phase = Phase.STOPPED
        return drained

    async def _until_connected(self, sink: KafkaSink, stopping: asyncio.Task[bool]) -> None:
        """Wait until Kafka has accepted us, or we are to stop. Raises SinkUnavailable."""
        connecting = asyncio.create_task(sink.wait_connected(CONNECT_KAFKA_S))
        try:
            await asyncio.wait({connecting, stopping}, return_when="FIRST_COMPLETED")
            if connecting.done():
                connecting.result()
        finally:
            connecting.cancel()

    async def _drain(self, supervising: asyncio.Task[None]) -> Drained:
        self.phase = Phase.DRAINING
        supervising.cancel()
        await asyncio.wait({supervising})
        self.flusher.flush()
        self._announce("session_end")
        lost = 0
        if self.sink is not None:
            lost = await self.sink.drain(self.config.limits.drain_s)
        status = self._status(recent=False)
        return Drained(status, lost)

    def _announce(self, event: str) -> None:
        if self.publishing is None:
            return
        if event == "session_start":
            self.publishing.instruments(self.planned.table)
        self.publishing.status(event, "session", connections=len(self.planned.plan))

    async def _report(self) -> None:
        while True:
            self.reporter.sample()
            await asyncio.sleep(REPORT_S)
            if self.pipeline.is_empty:
                self.flusher.idle()

    # ------------------------------------------------------------------ what flushes bring

    def _observe(self, result: FlushResult, _now_ns: int) -> None:
        for error in result.errors:
            log.warning("book.broken", cause=error.cause, detail=str(error))
            if error.cause == "checksum" and self._lists is not None:
                venue, market, _ = error.instrument.split(":", 2)
                self._lists.request(venue, market)  # metadata may have changed unannounced
        if self.book_snapshots is not None:
            for batch in result.batches:
                self.book_snapshots.observe(batch)

    def _listeners(self) -> list[SupervisorEvents]:
        return [
            one for one in (EventLog(), self.publishing, self.staleness_monitor) if one is not None
        ]

    def _pause(self) -> None:
        self.supervisor.pause()
        if self.staleness_monitor is not None:
            self.staleness_monitor.paused()

    def _resume(self) -> None:
        self.supervisor.resume()
        if self.staleness_monitor is not None:
            self.staleness_monitor.resumed()

    def _repair(self, repairs: Sequence[Repair]) -> None:
        self.supervisor.repair(repairs)

    def _quarantine(self, rejected: Sequence[Rejected]) -> None:
        for one in rejected:
            log.warning("frame.rejected", reason=one.reason, detail=one.detail)
        if self.publishing is not None:
            self.publishing.quarantine(rejected)
        for adapter, market in self._revisions.suspects(rejected):
            assert self._group is not None  # frames come while `run` runs
            refresh = bulkheads.once("instrument list", partial(self._refresh, adapter, market))
            task = self._group.create_task(refresh, name="instruments")
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    async def _watch_lists(self, lists: InstrumentWatch) -> None:
        async with RestClient(settings.rest_settings(self.config.catalogue)) as client:
            await lists.run(Catalog(settings.catalogue_settings(self.config.catalogue), client))

    def _follow_list(self, source: ListSource, _listed: InstrumentList, change: ListChange) -> None:
        """Take what changed in an instrument list: metadata, symbols that begin, and that end."""
        planner = self.planned.planner
        assert planner is not None  # who watches lists has one
        numbers = self._revisions.revise(after for _, after in change.changed)
        if numbers:
            self.flusher.flush()
            self._revisions.announce(numbers)
        running = self.planned.plan
        gone = {instrument.symbol for instrument in change.gone}
        planner.retire(source.venue, source.market, gone)
        table = self.planned.table
        wanted = [wish.of(running.is_mine, table) for wish in planner.wanted(source)]
        rest = without(running, source.venue, source.market, gone)
        plan_change = replan(running, together(rest, make_plan(wanted, table)))
        if len(plan_change.plan) > self.config.limits.connections_max:
            log.error("plan.too_large", connections=len(plan_change.plan), venue=source.venue)
            return
        if not plan_change.is_empty:
            self.apply(plan_change)

    async def _refresh(self, adapter: type[FeedAdapter], market: str) -> None:
        """A number was finer than its instrument allows: take the venue's new metadata."""
        fresh = await self._revisions.refresh(adapter, market)
        self.flusher.flush()  # from here on no frame comes between, so that a replay can follow
        numbers = self._revisions.revise(fresh)
        if numbers:
            self._revisions.announce(numbers)

    def _revise(self, numbers: Mapping[int, int]) -> None:
        """Let pipeline, recording and topics follow new revisions. numbers: old -> new."""
        now_ns = time.time_ns()
        self.planned = replace(self.planned, plan=self.planned.plan.renumbered(numbers))
        self.pipeline.replace_instruments(numbers, now_ns)
        self._shed_books = {numbers.get(instrument, instrument) for instrument in self._shed_books}
        revised = [self.planned.table[new] for new in numbers.values()]
        if self.recorder is not None:
            self.recorder.record_decision(None, now_ns, revision(revised))
        if self.publishing is not None:
            self.publishing.instruments(revised)

    def apply(self, change: PlanChange) -> None:
        """Follow a new plan: add, remove and change connections and streams while running."""
        self.flusher.flush()
        self._rules.update(change.plan.book_rules())
        self.supervisor.apply(change)
        self.planned = replace(self.planned, plan=change.plan)
        for subscription in change.unsubscribed:
            if subscription.channel == "book":
                self.pipeline.books.forget(subscription.instrument)
        if self.publishing is not None:
            fresh = {subscription.instrument for subscription in change.subscribed}
            self.publishing.instruments(self.planned.table[number] for number in sorted(fresh))

    def _shed(self, row_class: RowClass, instrument: int) -> None:
        """The sink dropped rows of an instrument: its book is of no use to consumers now."""
        if row_class is RowClass.LEVEL:
            if not self._shed_books:
                asyncio.get_running_loop().call_soon(self._invalidate_shed)
            self._shed_books.add(instrument)

    def _invalidate_shed(self) -> None:
        shed, self._shed_books = self._shed_books, set()  # the flush may shed more: next time
        self._invalidate(sorted(shed), Cause.SHED)

    def _invalidate(self, instruments: Sequence[int], cause: Cause) -> None:
        """Between two flushes, so that a replay, which reads the decision, takes it there too."""
        self.flusher.flush()
        now_ns = time.time_ns()
        for instrument in instruments:
            if self.recorder is not None:
                key, why = self.planned.table[instrument].key, cause.name.lower()
                decision = {"action": "invalidate", "key": key, "cause": why}
                self.recorder.record_decision(None, now_ns, decision)
            self.pipeline.books.invalidate(instrument, cause, now_ns)

    def _subscriptions_of(self, connection: int) -> Sequence[Subscription]:
        return self.supervisor.subscriptions_of(connection)

    # ------------------------------------------------------------------ what is shown

    def status(self) -> Status:
        """Return a snapshot; lags are those of the last seconds."""
        return self._status(recent=True)

    def _status(self, *, recent: bool) -> Status:
        phase = self.phase
        if phase is Phase.RUNNING and self.supervisor.is_paused:
            phase = Phase.PAUSED
        channel = self.sink.statistics() if self.sink is not None else None
        connections = self.supervisor.statistics()
        return self.reporter.status(phase, connections, channel, self.loop_lag, recent=recent)

    def families(self) -> Iterable[Metric]:
        return self._exposition.families()

    def _parts(self) -> Iterable[Metric]:
        """Yield the families of the parts that count for themselves."""
        yield from bug_families(bulkheads.bugs)
        yield from list_families(lists, holds.longest_s())
        yield from connection_families(self.supervisor.statistics())
        yield from book_families(self.pipeline.books.statistics())
        if self.sink is not None:
            yield from kafka_families(
                self.sink.statistics(),
                self.sink.producer_resets,
                connected=self.sink.is_up,
                refused=self.sink.refused,
            )
        if self.recorder is not None:
            yield from recorder_families(self.recorder.statistics())

    def ready(self) -> Health:
        health = readiness(
            self.status(),
            kafka_seen=self.sink is None or self.sink.is_up,
            startup_grace_s=self.config.limits.startup_grace_s,
        )
        if self.recorder is not None:  # told, but no reason to send nobody here: publishing goes on
            recorder = self.recorder.statistics()
            health.checks["recorder"] = recorder.state.value
            if recorder.reason:
                health.checks["recorder_failure"] = recorder.reason
        return health

    def streams(self) -> Iterable[StreamState]:
        """Yield every subscription's state, for /metrics/feeds."""
        last = self.pipeline.metrics.last_seen
        for slot in self.supervisor.slots:
            for one in slot.planned.subscriptions:
                row_class = CLASS_OF[one.channel]
                messages, last_ns, lag_ns = last.of(row_class, one.instrument)
                yield StreamState(
                    slot.planned.venue,
                    slot.planned.market,
                    one.channel,
                    one.symbol,
                    is_up=slot.connection is not None,
                    messages=messages,
                    last_message_ns=last_ns,
                    lag_s=lag_ns / 1e9,
                )


def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
