"""Give operators a view of the process: metrics, readiness and the state of every stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import Metric

from ingestor.admin.exposition import Exposition, StreamState
from ingestor.admin.families import (
    book_families,
    bug_families,
    connection_families,
    kafka_families,
    last_value_families,
    list_families,
    output_families,
    recorder_families,
    reload_families,
    trace_families,
    trade_families,
)
from ingestor.admin.streams import StreamPage, StreamQuery, page_of
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.pipeline.pipeline import Pipeline
from ingestor.recording.recorder import Recorder
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sources.live.supervisor import Supervisor
from ingestor.sources.rate_limiter import holds
from ingestor.sources.rest.statistics import lists
from ingestor.telemetry import output
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.status import Health, Status, readiness
from ingestor.telemetry.tracing import tracing


class OperatorView:
    """The source of the admin server; all calls return at once."""

    def __init__(
        self,
        status: Callable[[], Status],
        pipeline: Pipeline,
        supervisor: Supervisor,
        sink: KafkaSink | None,
        recorder: Recorder | None,
        startup_grace_s: float,
        backfill_counts: Mapping[tuple[str, str, str], int],
        reload_counts: Mapping[str, int],
        last_counts: Callable[[], Mapping[tuple[str, str], int]],
    ) -> None:
        """Create the operator view.

        Args:
            status: returns a snapshot of the process.
            pipeline: whose books and metrics are shown.
            supervisor: whose connections and streams are shown.
            sink: None where nothing is published.
            recorder: None where nothing is recorded.
            startup_grace_s: how long after the start connections may be missing.
            backfill_counts: requests for lost trades, by venue, market and outcome; live.
            reload_counts: reloads by outcome; live.
            last_counts: returns the writes of last values, by place and outcome.
        """
        self.status = status
        self._pipeline = pipeline
        self._supervisor = supervisor
        self._sink = sink
        self._recorder = recorder
        self._startup_grace_s = startup_grace_s
        self._backfill_counts = backfill_counts
        self._more: list[Callable[[], Iterable[Metric]]] = []
        self._reload_counts = reload_counts
        self._last_counts = last_counts
        self._exposition = Exposition(pipeline.metrics, supervisor.counts, status, [self._parts])

    def families(self) -> Iterable[Metric]:
        """Return everything that `/metrics` shows."""
        return self._exposition.families()

    def show(self, families: Callable[[], Iterable[Metric]]) -> None:
        """Show the families of one more part on `/metrics`."""
        self._more.append(families)

    def _parts(self) -> Iterable[Metric]:
        """Yield the families of the parts that count for themselves."""
        places = list(self._supervisor.counts)
        yield from bug_families(bulkheads.bugs)
        yield from reload_families(self._reload_counts)
        yield from last_value_families(self._last_counts())
        yield from list_families(lists, holds.longest_s(), places)
        yield from output_families(output.lines_dropped())
        yield from trace_families(tracing.exports)
        yield from connection_families(self._supervisor.statistics())
        yield from book_families(self._pipeline.books.statistics(), places)
        yield from trade_families(self._pipeline.trade_gaps, self._backfill_counts, places)
        if self._sink is not None:
            yield from kafka_families(
                self._sink.statistics(),
                self._sink.producer_resets,
                connected=self._sink.is_up,
                refused=self._sink.refused,
            )
        if self._recorder is not None:
            yield from recorder_families(self._recorder.statistics())
        for families in self._more:
            yield from families()

    def ready(self) -> Health:
        """Return whether the process does its work, and what keeps it from that."""
        health = readiness(
            self.status(),
            kafka_seen=self._sink is None or self._sink.is_up,
            startup_grace_s=self._startup_grace_s,
        )
        if self._recorder is not None:  # shown, but no reason to be unready: publishing goes on
            recorder = self._recorder.statistics()
            health.checks["recorder"] = recorder.state.value
            if recorder.reason:
                health.checks["recorder_failure"] = recorder.reason
        return health

    async def worst_streams(self, query: StreamQuery) -> StreamPage:
        """Return the streams that a query asks for, without holding the loop for long."""
        return await page_of(self.streams(), query)

    def streams(self) -> Iterable[StreamState]:
        """Yield every subscription's state, for /metrics/feeds and /streams.json."""
        last = self._pipeline.metrics.last_seen
        for slot in self._supervisor.slots:
            planned = slot.planned
            if planned.line:
                continue  # the first line shows the streams of both
            for subscription in planned.subscriptions:
                row_class = ROW_CLASSES.of_channel(subscription.channel)
                messages, last_ns, lag_ns = last.of(row_class, subscription.instrument)
                yield StreamState(
                    planned.venue,
                    planned.market,
                    subscription.channel,
                    subscription.symbol,
                    is_up=self._supervisor.connection_of(
                        subscription.instrument, subscription.channel
                    )
                    is not None,
                    messages=messages,
                    last_message_ns=last_ns,
                    lag_s=lag_ns / 1e9,
                    gaps=last.gaps(row_class, subscription.instrument),
                )
