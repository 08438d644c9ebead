"""Builds the parts of one process from its configuration, in the order of the data's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from ingestor.adapter.contract import Subscription
from ingestor.admin.server import AdminServer, AdminSource, Reload
from ingestor.app import settings
from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.app.book_snapshots import BookSnapshotPublisher
from ingestor.app.instrument_changes import PlanInForce
from ingestor.app.last_values import LastValueParts, LastValuePublisher, LastValues
from ingestor.app.refill_worker import RefillWorker
from ingestor.books.manager import BookManager
from ingestor.config.model import Config
from ingestor.kafka.settings import CLAIMS
from ingestor.model.clocks import Clocks
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.pipeline.flusher import Flusher
from ingestor.pipeline.linger import Linger
from ingestor.pipeline.pipeline import Pipeline
from ingestor.recording.recorder import Recorder
from ingestor.sinks.backpressure import Backpressure
from ingestor.sinks.interface import Sink
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sinks.row_gate import RowGate
from ingestor.sources.live.backfill_worker import BackfillWorker
from ingestor.sources.live.book_audit import AuditSettings, BookAuditor
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import Plan
from ingestor.sources.live.settings import SupervisorSettings
from ingestor.sources.live.staleness import Staleness, StalenessSettings
from ingestor.sources.live.staleness_monitor import StalenessMonitor
from ingestor.sources.live.supervisor import Supervisor
from ingestor.sources.rest.pool import RestPools
from ingestor.telemetry.tracing import tracing


def make_pipeline(config: Config, in_force: PlanInForce) -> Pipeline:
    """Build what turns frames into rows, by the rules of the plan in force."""
    pipeline = Pipeline(
        in_force.planned.table,
        in_force.rule_of,
        settings.book_settings(config.books),
        in_force.trade_numbers_of,
    )
    pipeline.buffer.carried_only = True
    derive(pipeline, config)
    return pipeline


def begin_tracing(config: Config, stack: AsyncExitStack) -> None:
    """Send spans to the collector, where there is one, until the stack unwinds.

    Args:
        config: of the process.
        stack: ends it.
    """
    traced = settings.tracing_settings(config)
    if traced is not None and tracing.begin(traced):
        stack.push_async_callback(asyncio.to_thread, tracing.end)


def derive(pipeline: Pipeline, config: Config) -> None:
    """Have a pipeline make the derived rows of a configuration."""
    pipeline.derive(settings.derived_settings_of(config, pipeline.table))


def make_sink(
    config: Config,
    pipeline: Pipeline,
    session: bytes,
    backpressure: Backpressure,
    on_fenced: Callable[[], None],
    life: str | None = None,
) -> KafkaSink:
    """Build the sink of the process.

    Args:
        config: of the process.
        pipeline: whose rows it takes.
        session: 16 bytes.
        backpressure: stops reading while Kafka is slow.
        on_fenced: called once another process has fenced this life.
        life: transactional id of this run, None where nothing may fence it.
    """
    kafka = settings.kafka_settings(config.kafka)
    sink = KafkaSink(
        kafka if life is None else replace(kafka, more_topics=(CLAIMS,)),
        pipeline.table,
        pipeline.metrics,
        session=session,
        life=life,
        budget=settings.budget(config.budget),
        backpressure=backpressure,
        on_fenced=on_fenced,
    )
    want_topics(sink, config)
    return sink


def want_topics(sink: KafkaSink, config: Config) -> None:
    """Have the topics there of all classes of rows that a configuration brings."""
    for feed in config.feeds:
        for channel in (*feed.channels, *feed.derived_channels):
            sink.want(ROW_CLASSES.of_channel(channel))


def make_gate(sink: KafkaSink | None, pipeline: Pipeline) -> RowGate | None:
    """Build what holds back rows that another worker still publishes."""
    return None if sink is None else RowGate(sink, pipeline.metrics.fenced)


def make_rest_pools(config: Config, plan: Plan, clocks: Clocks) -> RestPools:
    """Build the clients that ask venues over REST.

    Args:
        config: The configuration.
        plan: Says how many processes share the venues' limits.
        clocks: Those of the process.
    """
    rate = config.limits.rest_weight_per_s
    return RestPools(workers=plan.workers, clocks=clocks, weight_per_s=rate)


def make_recorder(
    config: Config,
    session: bytes,
    table: InstrumentTable,
    subscriptions_of: Callable[[int], Sequence[Subscription]],
) -> Recorder | None:
    """Build the recorder, None where nothing is recorded.

    Args:
        config: of the process.
        session: 16 bytes.
        table: the instruments of all plans.
        subscriptions_of: returns what an open connection carries, by its session's number.
    """
    if config.recorder is None:
        return None
    recorder = settings.recorder_settings(config.recorder)
    return Recorder(recorder, session.hex(), table, subscriptions_of)


def make_staleness_monitor(
    config: Config, pipeline: Pipeline, clocks: Clocks
) -> StalenessMonitor | None:
    """Build the watch over silent streams, None where it is switched off.

    Args:
        config: The configuration.
        pipeline: Gives the rows.
        clocks: Those of the process.
    """
    if not config.staleness.enabled:
        return None
    limits = StalenessSettings(config.staleness.floor_s, config.staleness.ceiling_s)
    return StalenessMonitor(Staleness(limits), pipeline.metrics.last_seen, clocks.steady_ns)


def make_supervisor(
    config: Config,
    plan: Plan,
    pipeline: Pipeline,
    flusher: Flusher,
    recorder: Recorder | None,
    listeners: Sequence[SupervisorEvents],
    backpressure: Backpressure,
    clocks: Clocks,
    pools: RestPools,
) -> Supervisor:
    """Build what owns the connections.

    Args:
        config: of the process.
        plan: the connections to begin with.
        pipeline: whose frame queues the connections fill.
        flusher: told of each read.
        recorder: keeps what is sent and received.
        listeners: told of what happens to connections and streams.
        backpressure: says when reading must stop and may go on.
        clocks: of the process.
        pools: ask the venues over REST.
    """
    supervisor = Supervisor(
        plan,
        pipeline.table,
        pipeline.frame_queues,
        flusher.read_complete_of,
        flusher.request_flush,
        tap=recorder,
        settings=SupervisorSettings(
            open_timeout_s=config.limits.connect_timeout_s,
            receive_buffer_bytes=config.limits.receive_buffer_bytes,
            backoff=settings.backoff(config.limits),
            connects=settings.connects(config.limits),
        ),
        listeners=listeners,
        clocks=clocks,
        pools=pools,
    )
    backpressure.add_reader(supervisor.pause, supervisor.resume)
    return supervisor


def make_flusher(config: Config, pipeline: Pipeline, sink: Sink | None, clocks: Clocks) -> Flusher:
    """Build what takes the rows to the sink.

    Args:
        config: of the process.
        pipeline: whose rows they are.
        sink: takes them; None where nothing is published.
        clocks: of the process.
    """
    return Flusher(
        pipeline,
        [] if sink is None else [sink],
        rows_max=config.batch.rows_max,
        linger=Linger(config.batch.linger_min_ms / 1e3, config.batch.linger_ms / 1e3),
        clocks=clocks,
    )


def make_http(
    config: Config, view: AdminSource, reload: Reload, last: LastValueParts | None
) -> AdminServer | None:
    """Build the status port, None where there is none.

    Args:
        config: of the process.
        view: what is shown.
        reload: follows the configuration.
        last: the last values, None where they are not kept.
    """
    if not config.http.enabled:
        return None
    record = last.record if last is not None else None
    return AdminServer(config.http, view, reload=reload, last=record)


def make_last_values(
    config: Config, table: InstrumentTable, sink: KafkaSink | None
) -> LastValueParts | None:
    """Build what keeps and publishes last values, None where that is switched off.

    Args:
        config: of the process.
        table: the instruments of all plans.
        sink: takes the records of the topic.

    Raises:
        ModuleNotFoundError: Redis is configured and the extra is not installed.
    """
    last = config.last
    if not last.enabled or sink is None:
        return None
    values = LastValues(table)
    topic = LastValuePublisher(values, sink, last.interval_s)
    if last.redis_url is None:
        return LastValueParts(values, topic)
    from ingestor.sinks.redis import RedisSettings, RedisWriter  # noqa: PLC0415  # an extra

    url = last.redis_url.get_secret_value()
    redis = RedisSettings(url, last.redis_prefix, last.interval_s)
    return LastValueParts(values, topic, RedisWriter(redis, values.record, values.changes()))


def make_book_snapshots(
    config: Config,
    books: BookManager,
    table: InstrumentTable,
    sink: KafkaSink | None,
    records: AuxiliaryRecords | None,
    clocks: Clocks,
) -> BookSnapshotPublisher | None:
    """Build what publishes the tops of books, None where nothing is published.

    Args:
        config: of the process.
        books: all books.
        table: the instruments of all plans.
        sink: tells where a reader of a snapshot goes on.
        records: publishes the snapshots.
        clocks: of the process.
    """
    if sink is None or records is None:
        return None
    interval_s = config.books.snapshot_interval_s
    return BookSnapshotPublisher(books, table, sink, records, interval_s, clocks)


def make_backfill(
    config: Config,
    supervisor: Supervisor,
    pipeline: Pipeline,
    flusher: Flusher,
    recorder: Recorder | None,
    pools: RestPools,
    clocks: Clocks,
) -> BackfillWorker | None:
    """Build what fetches lost trades, None where that is switched off.

    Args:
        config: of the process.
        supervisor: whose connections carry the instruments.
        pipeline: knows what is missing.
        flusher: takes what was fetched to the sinks.
        recorder: keeps what is fetched and decided.
        pools: ask the venues.
        clocks: of the process.
    """
    if not config.trades.backfill:
        return None
    return BackfillWorker(
        supervisor,
        pipeline.trade_gaps,
        pipeline.table,
        flusher.flush,
        pools,
        recorder,
        settings=settings.backfill_settings(config.trades),
        clocks=clocks,
    )


def backfill_counts(worker: BackfillWorker | None) -> Mapping[tuple[str, str, str], int]:
    """Return the requests of what fetches lost trades, if there is one."""
    return worker.counts if worker is not None else {}


def make_refill(config: Config, sink: KafkaSink | None, pipeline: Pipeline) -> RefillWorker | None:
    """Build what publishes shed rows from the recording, None where that is switched off.

    Args:
        config: of the process.
        sink: sheds rows.
        pipeline: counts them.
    """
    if sink is None or config.recorder is None or not config.recorder.refill:
        return None
    return RefillWorker(
        config,
        config.recorder.path.expanduser(),
        lambda: pipeline.metrics.total("shed"),
        lambda: sink.is_up and not sink.queue.pressed,
    )


def make_auditor(
    config: Config,
    supervisor: Supervisor,
    pipeline: Pipeline,
    on_mismatch: Callable[[int], None],
    pools: RestPools,
) -> BookAuditor | None:
    """Build what compares books with REST images, None where that is switched off.

    Args:
        config: of the process.
        supervisor: whose connections carry the books.
        pipeline: whose books are compared.
        on_mismatch: called with the instrument of a book that is proved wrong.
        pools: ask the venues over REST.
    """
    interval_s = config.books.audit_interval_s
    if not interval_s or not config.books.verify:
        return None
    audit = AuditSettings(interval_s)
    return BookAuditor(supervisor, pipeline.books, pipeline.table, audit, on_mismatch, pools)
