"""Read the snapshot of the whole process (`ingestor.telemetry.status.Status`) off its parts."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

import ingestor
from ingestor.decode.frame_counts import FrameCounts
from ingestor.model.row_classes import ROW_CLASSES
from ingestor.pipeline.pipeline import Pipeline
from ingestor.recording.writer_thread import RecorderState
from ingestor.sinks.kafka.queue import QueueStatistics
from ingestor.sources.live.statistics import SupervisorStatistics
from ingestor.telemetry.histogram import percentile_ns
from ingestor.telemetry.loop_lag import LoopLag
from ingestor.telemetry.metrics import Metrics
from ingestor.telemetry.row_lags import Stage
from ingestor.telemetry.status import FeedStatus, Phase, RecentEvent, Status

WINDOW_S: Final = 5.0  # of the lags shown while running
_MS: Final = 1e-6


class StatusReporter:
    """Fills Status. `sample` is called about once a second; it bounds the window of recent lags."""

    def __init__(self, pipeline: Pipeline, frames: Mapping[tuple[str, str], FrameCounts]) -> None:
        self._pipeline = pipeline
        self._frames = frames
        self._started_s = time.monotonic()
        self._past: deque[tuple[float, dict[Stage, NDArray[np.int64]]]] = deque()

    def sample(self) -> None:
        now_s = time.monotonic()
        lag = self._pipeline.metrics.lag
        self._past.append((now_s, {stage: lag[stage].counts.copy() for stage in Stage}))
        while len(self._past) > 1 and now_s - self._past[0][0] > WINDOW_S:
            self._past.popleft()

    def status(
        self,
        phase: Phase,
        connections: SupervisorStatistics | None,
        channel: QueueStatistics | None,
        watch: LoopLag,
        *,
        kafka_up: bool | None = None,
        recorder: tuple[RecorderState, str] | None = None,
        events: Sequence[RecentEvent] = (),
        recent: bool = True,
    ) -> Status:
        """Return a snapshot.

        Args:
            phase: What the process does.
            connections: Counts of the supervisor, if there is one.
            channel: Counts of the queue, if there is one.
            watch: Lag of the event loop.
            kafka_up: As in `Status`.
            recorder: State of the recorder and its reason, if there is one.
            events: The newest events of connections.
            recent: Use the lags of the last seconds; else those of the whole run.
        """
        metrics, ledger = self._pipeline.metrics, self._pipeline.ledger()
        frames = list(self._frames.values())
        books = self._pipeline.books.statistics().values()
        status = Status(
            time_ns=time.time_ns(),
            uptime_s=time.monotonic() - self._started_s,
            phase=phase,
            kafka_up=kafka_up,
            frames=sum(frame.frames for frame in frames),
            bytes_received=self._pipeline.bytes_received,
            control=sum(frame.control for frame in frames),
            rejected=sum(frame.rejected for frame in frames),
            duplicate_frames=sum(frame.duplicate for frame in frames),
            filtered_frames=sum(frame.filtered for frame in frames),
            rows=self._rows(metrics),
            acked=metrics.total("acked"),
            conflated=metrics.total("conflated"),
            shed=metrics.total("shed"),
            dead_lettered=metrics.total("dead_lettered"),
            fenced=metrics.total("fenced"),
            duplicates=ledger.duplicate,
            filtered=ledger.filtered,
            gaps=metrics.total("gaps"),
            resets=sum(book.resets for book in books),
            feeds=self._feeds(metrics, recent=recent),
            loop_delay_p99_ms=_milliseconds(watch.delay.percentile_ns(0.99)),
            loop_busy_ratio=round(watch.busy_ratio, 3),
            version=ingestor.__version__,
            pids=[os.getpid()],
            books={
                "valid": sum(book.valid for book in books),
                "invalid": sum(book.books - book.valid for book in books),
            },
            events=list(events),
        )
        if recorder is not None:
            status.recorder, status.recorder_reason = recorder[0].value, recorder[1]
        _add_connections(status, connections)
        _add_queue(status, channel)
        self._lags(status, metrics, recent=recent)
        queued = channel.rows if channel is not None else metrics.unsettled
        status.pending = queued + ledger.held + self._pipeline.buffer.rows
        status.unaccounted = (
            abs(metrics.unsettled - queued)
            + abs(ledger.unaccounted)
            + sum(abs(frame.unaccounted) for frame in frames)
        )
        return status

    def _counts(self, stage: Stage, *, recent: bool) -> NDArray[np.int64]:
        counts = self._pipeline.metrics.lag[stage].counts
        if not recent or not self._past:
            return counts
        before = self._past[0][1][stage]
        since = counts.copy()
        since[: len(before)] -= before
        return since

    def _lags(self, status: Status, metrics: Metrics, *, recent: bool) -> None:
        total = self._counts(Stage.TOTAL, recent=recent).sum(axis=0)
        publish = self._counts(Stage.PUBLISH, recent=recent).sum(axis=0)
        status.lag_p50_ms = _milliseconds(percentile_ns(total, 0.5))
        status.lag_p99_ms = _milliseconds(percentile_ns(total, 0.99))
        status.publish_p50_ms = _milliseconds(percentile_ns(publish, 0.5))
        status.publish_p99_ms = _milliseconds(percentile_ns(publish, 0.99))

    def _rows(self, metrics: Metrics) -> dict[str, int]:
        """Decoded rows by class, and the marks that were added."""
        decoded = metrics.counter("decoded")
        by_class = {
            row_class.name.lower(): int(decoded[place :: len(ROW_CLASSES)].sum())
            for place, row_class in enumerate(ROW_CLASSES)
        }
        return {**by_class, "mark": metrics.total("marks") + metrics.total("declared")}

    def _feeds(self, metrics: Metrics, *, recent: bool) -> list[FeedStatus]:
        decoded = metrics.counter("decoded")
        total = self._counts(Stage.TOTAL, recent=recent)
        venue = self._counts(Stage.VENUE, recent=recent)
        feeds = []
        for number, feed in enumerate(metrics.feeds.all):
            skew_ns = metrics.skew.known(number)
            if not decoded[number] and not metrics.counter("marks")[number]:
                continue
            feeds.append(
                FeedStatus(
                    feed.venue,
                    feed.market,
                    feed.channel,
                    rows=int(decoded[number]),
                    lag_p50_ms=_milliseconds(percentile_ns(total[number], 0.5)),
                    lag_p99_ms=_milliseconds(percentile_ns(total[number], 0.99)),
                    venue_lag_p99_ms=_milliseconds(percentile_ns(venue[number], 0.99)),
                    skew_ms=None if skew_ns is None else skew_ns * _MS,
                )
            )
        return feeds


def _by_state(statistics: SupervisorStatistics) -> Counter[str]:
    states: Counter[str] = Counter()
    for (_, state), count in statistics.connections.items():
        states[state] += count
    return states


def _milliseconds(ns: float) -> float | None:
    return None if math.isnan(ns) else round(ns * _MS, 3)


def _add_connections(status: Status, connections: SupervisorStatistics | None) -> None:
    if connections is None:
        return
    status.connections = dict(_by_state(connections))
    for (venue, state), count in connections.connections.items():
        status.venues.setdefault(venue, {})[state] = count
    status.reconnects = sum(connections.reconnects.values())


def _add_queue(status: Status, channel: QueueStatistics | None) -> None:
    if channel is None:
        return
    status.queue_bytes, status.queue_limit_bytes = channel.bytes, channel.bytes_max
    status.queue_fill = dict(channel.fill)
    status.held = list(channel.held)
    for (_, outcome), count in channel.side.items():
        status.auxiliary[outcome] = status.auxiliary.get(outcome, 0) + count
