"""One process of the ingestor: built from a plan, run until told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import structlog
from msgspec import to_builtins

from ingestor.adapter.contract import Subscription
from ingestor.app import settings, wiring
from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.app.descriptors import descriptor_budget
from ingestor.app.difference import Difference, difference_of
from ingestor.app.event_log import EventLog
from ingestor.app.instrument_changes import InstrumentChanges, PlanInForce
from ingestor.app.invalid_books import InvalidBooks
from ingestor.app.operator_view import OperatorView
from ingestor.app.planning import Planned, report_waiting
from ingestor.app.recent_events import RecentEvents
from ingestor.app.rejection_log import RejectionLog
from ingestor.app.reload import Configuration, Proposal, Reloads, propose
from ingestor.app.session_history import RestartMarks, SessionHistory
from ingestor.app.status_report import StatusReporter
from ingestor.config.model import Config
from ingestor.model.clocks import Clocks
from ingestor.sinks.backpressure import Backpressure
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sources.live.connection import State
from ingestor.sources.live.events import SupervisorEvents
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.loop_lag import LoopLag
from ingestor.telemetry.status import Phase, Status
from ingestor.telemetry.tracing import tracing

CONNECT_KAFKA_S: Final = 15.0
REPORT_S: Final = 1.0  # also a flush of nothing, for books to ask again for what is overdue
DERIVE_S: Final = 0.1
# Parsing makes no cycles; the default thresholds would walk the young generation 1,000 times a
# second. See docs/adr/0003.
GC_THRESHOLDS: Final = (50_000, 20, 100)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drained:
    """Say how a run ended. lost: rows that were read and could not be delivered in time."""

    status: Status
    lost: int


class Ingestor:
    """All parts of one process. `run` owns their tasks; `stop` ends it in order."""

    def __init__(
        self,
        config: Config,
        planned: Planned,
        *,
        publish: bool = True,
        session: bytes = b"",
        life: str | None = None,
        history: SessionHistory | None = None,
        clocks: Clocks | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        """Create the ingestor.

        Args:
            config: of the process.
            planned: instruments and connections.
            publish: False records without Kafka.
            session: 16 bytes; the history's, or random, by default.
            life: transactional id of this run, by which others can fence it. Once they have, `run`
                ends by itself; whoever runs several lives may set `sink.on_fenced` instead.
            history: knows the session before this one. Without it there was none.
            clocks: those of the machine by default.
            configuration: what a reload reads; without it there is none.
        """
        self.clocks = clocks = clocks or Clocks()
        self.config, self.history = config, history
        self._in_force = PlanInForce(planned)
        self.session = session or (history.session if history is not None else os.urandom(16))
        self.phase, self._stop = Phase.STARTING, asyncio.Event()
        self.reloads = Reloads(self, configuration)
        self.loop_lag = LoopLag()
        self._event_log, self._recent_events = EventLog(), RecentEvents(clocks)
        table = planned.table
        self.pipeline = pipeline = wiring.make_pipeline(config, self._in_force)
        backpressure = Backpressure()
        self.sink = (
            wiring.make_sink(config, pipeline, self.session, backpressure, self.stop, life)
            if publish
            else None
        )
        self.gate = wiring.make_gate(self.sink, pipeline) if life is not None else None
        self.publishing = AuxiliaryRecords(self.sink) if self.sink is not None else None
        self.recorder = wiring.make_recorder(config, self.session, table, self._subscriptions_of)
        self.staleness_monitor = wiring.make_staleness_monitor(config, pipeline, clocks)
        self.flusher = wiring.make_flusher(config, pipeline, self.gate or self.sink, clocks)
        self.rest = wiring.make_rest_pools(config, planned.plan, clocks)
        self.supervisor = wiring.make_supervisor(
            config,
            planned.plan,
            pipeline,
            self.flusher,
            self.recorder,
            self._listeners(),
            backpressure,
            clocks,
            self.rest,
        )
        self._wire_beside(backpressure)
        self._observe_flushes()
        self._follow_revisions()

    def _wire_beside(self, backpressure: Backpressure) -> None:
        """Build what stands beside the data's way: it repairs, fetches, keeps and shows."""
        config, clocks, table, pipeline = (
            self.config,
            self.clocks,
            self.planned.table,
            self.pipeline,
        )
        self.invalid_books = InvalidBooks(
            pipeline.books, table, self.flusher.flush, self.recorder, clocks
        )
        backpressure.observe_shed(self.invalid_books.shed)
        self.book_snapshots = wiring.make_book_snapshots(
            config, pipeline.books, table, self.sink, self.publishing, clocks
        )
        self.backfill = wiring.make_backfill(
            config, self.supervisor, pipeline, self.flusher, self.recorder, self.rest, clocks
        )
        self.auditor = wiring.make_auditor(
            config, self.supervisor, pipeline, self.invalid_books.contradicted, self.rest
        )
        self.changes = InstrumentChanges(
            config,
            self._in_force,
            pipeline,
            self.flusher,
            self.supervisor,
            self.recorder,
            self.publishing,
            clocks,
            self.rest,
        )
        self.last = wiring.make_last_values(config, table, self.sink)
        self.reporter = StatusReporter(pipeline, self.supervisor.counts)
        self.view = self._make_view()
        self.refill = wiring.make_refill(config, self.sink, pipeline)
        if self.refill is not None:
            self.view.show(self.refill.families)
        self.http = wiring.make_http(config, self.view, self.reloads.reload, self.last)

    def _observe_flushes(self) -> None:
        """Let each part take from a flush what concerns it."""
        flusher = self.flusher
        flusher.observe(RejectionLog().observe, "quarantine", "rejected")
        if self.publishing is not None:
            flusher.observe(self.publishing.observe, "quarantine", "rejected")
        flusher.observe(self.changes.observe_rejected, "quarantine", "rejected")
        flusher.observe(self.supervisor.repair_worker.observe, "repair", "repairs")
        if self.backfill is not None:
            flusher.observe(self.backfill.observe, "backfill", "lost")
        flusher.observe(self._event_log.observe, concern="errors")
        flusher.observe(self.changes.observe_broken, concern="errors")
        if self.book_snapshots is not None:
            flusher.observe(self.book_snapshots.observe)
        if self.last is not None:
            flusher.observe(self.last.values.observe)

    def _follow_revisions(self) -> None:
        """Let each part that keeps numbers of instruments follow their new revisions."""
        followers = (
            self.invalid_books,
            self.staleness_monitor,
            self.backfill,
            self.book_snapshots,
        )
        for follower in followers:
            if follower is not None:
                self.changes.revisions.subscribe(follower.replace_instruments)

    def _make_view(self) -> OperatorView:
        return OperatorView(
            self.status,
            self.pipeline,
            self.supervisor,
            self.sink,
            self.recorder,
            self.config.limits.startup_grace_s,
            wiring.backfill_counts(self.backfill),
            self.reloads.counts,
            self.last.counts if self.last is not None else dict,
        )

    @property
    def planned(self) -> Planned:
        """The instruments and connections that are in force."""
        return self._in_force.planned

    # ------------------------------------------------------------------ life

    def stop(self) -> None:
        """End `run` in order: no more sockets, a last flush, the sink's drain."""
        self._stop.set()
        self.reloads.stop()

    # ------------------------------------------------------------------ reloads

    def request_reload(self) -> None:
        """Follow the configuration as soon as the process runs; the log says what came of it."""
        self.reloads.request()

    @property
    def is_running(self) -> bool:
        return self.phase is Phase.RUNNING and not self._stop.is_set()

    async def propose(self, configuration: Configuration) -> Proposal:
        """Read a configuration and plan it. Raises ConfigError."""
        planner = self.planned.planner
        return await propose(configuration, self.config, planner, self.changes.source)

    async def follow(self, proposal: Proposal, *, dry_run: bool) -> dict[str, Any]:
        """Make a proposal the configuration in force, whole; return the difference as JSON.

        Args:
            proposal: a checked configuration and its plan.
            dry_run: only return it.
        """
        return self._follow(proposal, dry_run=dry_run).to_json()

    def _follow(self, proposal: Proposal, *, dry_run: bool) -> Difference:
        change = self.changes.change_to(proposal)
        difference = difference_of(change, proposal.settings, proposal.planner.waiting)
        if dry_run:
            return difference
        connected = self.supervisor.statistics().connections
        now_open = sum(count for (_, state), count in connected.items() if state == State.CONNECTED)
        config = self.config = proposal.config
        self.supervisor.connections_max = descriptor_budget(len(change.plan), now_open)
        proposal.source.set_up_logs(config)
        if self.sink is not None:
            wiring.want_topics(self.sink, config)
        wiring.derive(self.pipeline, config)
        self.changes.adopt(proposal)
        report_waiting(proposal.planner.waiting)
        if self.history is not None:
            self.history.move(settings.session_file(config, publish=self.sink is not None))
        return difference

    async def run(self, on_ready: Callable[[], None] | None = None) -> Drained:
        """Run until `stop`. on_ready: called once Kafka has accepted us and sockets may open; not
        at all when `stop` comes before that.

        Raises SinkUnavailable when Kafka can't be reached at the start, ListenFailed when the
        HTTP port is taken.
        """
        self.supervisor.connections_max = descriptor_budget(len(self.planned.plan))
        async with AsyncExitStack() as stack:
            wiring.begin_tracing(self.config, stack)
            stack.push_async_callback(self.rest.aclose)
            if self.http is not None:
                await stack.enter_async_context(self.http)
            if self.recorder is not None:
                self.recorder.start()
                stack.push_async_callback(self.recorder.stop)
            async with asyncio.TaskGroup() as group:
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
                self._begin_history(stack)
                self._announce("session_start")
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                self.phase = Phase.RUNNING
                if on_ready is not None:
                    on_ready()
                supervising = group.create_task(self.supervisor.run(), name="supervisor")
                keep("report", self._report)
                keep("instrument list", self.changes.run)
                keep("reload", self.reloads.run)
                for unit, part in self._tasks():
                    keep(unit, part)
                await stopping
                drained = await self._drain(supervising)
                _cancel(tasks)
        self.phase = Phase.STOPPED
        return drained

    def _tasks(self) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
        """Yield unit and task of each part that is configured."""
        if self.book_snapshots is not None:
            yield "book snapshots", self.book_snapshots.run
        yield "derived rows", self._derive
        if self.last is not None:
            yield from self.last.tasks()
        if self.refill is not None:
            yield "refill", self.refill.run
        if self.auditor is not None:
            yield "book audit", self.auditor.run
        if self.backfill is not None:
            yield "backfill", self.backfill.run
        if self.staleness_monitor is not None:
            yield "staleness", partial(self.staleness_monitor.run, self.supervisor)

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
            with tracing.span("drain") as span:
                lost = await self.sink.drain(self.config.limits.drain_s)
                span.note(rows_lost=lost)
        if self.history is not None:
            self.history.save(self._sequences(), ended=not lost)
        status = self._status(recent=False)
        return Drained(status, lost)

    def _begin_history(self, stack: AsyncExitStack) -> None:
        if self.history is not None:
            self.history.begin()
            stack.callback(self.history.close)

    def _announce(self, event: str) -> None:
        if self.publishing is None:
            return
        about: dict[str, object] = {"connections": len(self.planned.plan)}
        if event == "session_start":
            self.publishing.instruments(self.planned.table)
            if self.history is not None and self.history.previous is not None:
                about["previous"] = to_builtins(self.history.previous)
        self.publishing.status(event, "session", **about)

    def _sequences(self) -> dict[str, dict[str, int]]:
        return self.sink.sequences() if self.sink is not None else {}

    async def _report(self) -> None:
        while True:
            self.reporter.sample()
            if self.history is not None:
                self.history.save(self._sequences())
            await asyncio.sleep(REPORT_S)
            if self.pipeline.is_empty:
                self.flusher.idle()

    async def _derive(self) -> None:
        """Let candles close, and tops of books be taken, while nothing arrives."""
        while True:
            await asyncio.sleep(DERIVE_S)
            if self.pipeline.derived is not None and self.pipeline.is_empty:
                self.flusher.idle()

    def _listeners(self) -> list[SupervisorEvents]:
        marks = (
            RestartMarks(
                self.history, self.planned.table, self.pipeline.buffer, self.recorder, self.clocks
            )
            if self.history is not None
            else None
        )
        listeners = (
            self._event_log,
            self._recent_events,
            self.publishing,
            self.staleness_monitor,
            marks,
        )
        return [listener for listener in listeners if listener is not None]

    def _subscriptions_of(self, connection: int) -> Sequence[Subscription]:
        """Ask the supervisor, which is built after the recorder that wants to know."""
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
        if channel is not None and self.gate is not None:
            channel = replace(channel, rows=channel.rows + self.gate.rows)
        connections = self.supervisor.statistics()
        kafka_up = self.sink.is_up if self.sink is not None else None
        return self.reporter.status(
            phase,
            connections,
            channel,
            self.loop_lag,
            kafka_up=kafka_up,
            recorder=self.recorder.condition if self.recorder is not None else None,
            events=self._recent_events.newest(),
            recent=recent,
        )


def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
