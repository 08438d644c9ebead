"""Our counters as Prometheus families and as text, without holding the loop.

The families are made at scrape time from the arrays of `ingestor.telemetry.metrics`;
prometheus-client writes them. Pages can have tens of thousands of lines: they are
written in slices of a few milliseconds, between which the loop runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import ingestor
from ingestor.decode.frame_counts import FrameCounts
from ingestor.native import native
from ingestor.telemetry.histogram import EDGES_NS, EXPORTED, Histogram
from ingestor.telemetry.metrics import Metrics
from ingestor.telemetry.row_lags import Stage
from ingestor.telemetry.status import Status

SLICE_S: Final = 0.004
SAMPLES_A_SLICE: Final = 200
STREAMS_MAX: Final = 10_000
NS: Final = 1e-9

Labels = TypeVar("Labels", bound=Sequence[str])
_FEED_LABELS: Final = ("venue", "market", "channel")
_MARKET_LABELS: Final = ("venue", "market")
_ROW_COUNTERS: Final = {
    "decoded": "Rows that decoders read: trades, quotes and price levels.",
    "duplicate": "Trades that the venue resent and we dropped.",
    "published": "Decoded rows handed to the sinks.",
    "marks": "Rows that we added: GAP, RESET and quotes taken from books.",
    "gaps": "GAP marks: declared holes.",
    "acked": "Rows that the sink acknowledged.",
    "conflated": "Quotes replaced by a later one before they were sent.",
    "shed": "Rows dropped because the byte budget was exhausted.",
    "dead_lettered": "Rows that Kafka refused for ever.",
    "fenced": "Rows dropped because another life had taken over.",
}
_STAGES: Final = {
    Stage.VENUE: ("venue", "Venue's event time to socket read, above the least of a minute."),
    Stage.SEAL: ("ingest", "Socket read to batch sealed."),
    Stage.PUBLISH: ("publish", "Batch sealed to acknowledged by the sink."),
    Stage.TOTAL: ("delivery", "Socket read to acknowledged by the sink."),
}

# Memory, CPU, file descriptors, garbage collection: under the names that all programs use.
_PROCESS: Final = CollectorRegistry()
for _collector in (ProcessCollector, GCCollector, PlatformCollector):
    _collector(registry=_PROCESS)


class MetricSource(Protocol):
    """Give the families of `/metrics`. A generator is best: the loop runs between two families."""

    def families(self) -> Iterable[Metric]: ...


@dataclass(frozen=True, slots=True)
class StreamState:
    """Hold the state of one stream for `/metrics/feeds` and `/streams.json`.

    lag_s: of its last message. last_message_ns: 0 = none. gaps: GAP marks since the start.
    """

    venue: str
    market: str
    channel: str
    symbol: str
    is_up: bool
    messages: int
    last_message_ns: int
    lag_s: float
    gaps: int = 0


class Exposition:
    """The one collector: families of the pipeline's metrics, the frames, the status, and more.

    frames: the live frame counts by (venue, market). more: further sources (Kafka, recorder).
    """

    def __init__(
        self,
        metrics: Metrics,
        frames: Mapping[tuple[str, str], FrameCounts],
        status: Callable[[], Status],
        more: Sequence[Callable[[], Iterable[Metric]]] = (),
    ) -> None:
        self._metrics = metrics
        self._frames = frames
        self._status = status
        self._more = tuple(more)

    def families(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "ingestor_build",
            "The version that runs, and the way in which frames with shapes are read.",
            {"version": ingestor.__version__, "way": native().way},
        )
        yield from _PROCESS.collect()
        yield from self._frame_families()
        yield from self._row_families()
        yield from self._lag_families()
        yield from status_families(self._status())
        for source in self._more:
            yield from source()

    def _frame_families(self) -> Iterator[Metric]:
        received = counter("frames_received", "Websocket messages.", _MARKET_LABELS)
        control = counter("frames_control", "Acks, heartbeats, errors.", _MARKET_LABELS)
        duplicate = counter("frames_duplicate", "Messages sent before.", _MARKET_LABELS)
        rejected = counter(
            "messages_rejected", "Messages sent to quarantine.", (*_MARKET_LABELS, "reason")
        )
        filtered = counter(
            "messages_filtered", "Messages left out by a rule.", (*_MARKET_LABELS, "rule")
        )
        read = counter(
            "messages_read",
            "Messages of channels with shapes, by the way in which they were read.",
            (*_FEED_LABELS, "way"),
        )
        for place, counts in list(self._frames.items()):
            for row_class, frames in counts.by_shape().items():
                feed = (*place, row_class.channel)
                read.add_metric((*feed, "compiled"), frames)
                read.add_metric((*feed, "python"), counts.in_python[row_class])
            received.add_metric(place, counts.frames)
            control.add_metric(place, counts.control)
            duplicate.add_metric(place, counts.duplicate)
            for family, by_name in (
                (rejected, counts.rejected_by_reason),
                (filtered, counts.filtered_by_rule),
            ):
                named = {(*place, name): count for name, count in by_name.items()}
                counted(family, named, [] if named else [(*place, "")])
        yield from (received, control, duplicate, rejected, filtered, read)

    def _row_families(self) -> Iterator[Metric]:
        for name, text in _ROW_COUNTERS.items():
            family = counter(f"rows_{name}", text, _FEED_LABELS)
            for labels, value in self._by_feed(self._metrics.counter(name)):
                family.add_metric(labels, value)
            yield family

    def _lag_families(self) -> Iterator[Metric]:
        for stage, (name, text) in _STAGES.items():
            yield histogram(
                f"{name}_latency_seconds", text, self._feeds(), self._metrics.lag[stage]
            )
        last = gauge("last_message_timestamp_seconds", "When a feed last spoke.", _FEED_LABELS)
        for labels, value in self._by_feed(self._metrics.last_recv_ns):
            if value:
                last.add_metric(labels, value * NS)
        yield last
        skew = gauge("venue_clock_skew_seconds", "Our clock less the venue's.", _FEED_LABELS)
        for number, labels in enumerate(self._feeds()):
            known_ns = self._metrics.skew.known(number)
            if known_ns is not None:
                skew.add_metric(labels, known_ns * NS)
        yield skew

    def _feeds(self) -> list[tuple[str, str, str]]:
        return [(feed.venue, feed.market, feed.channel) for feed in self._metrics.feeds.all]

    def _by_feed(self, values: NDArray[np.int64]) -> Iterator[tuple[tuple[str, str, str], int]]:
        yield from zip(self._feeds(), values.tolist(), strict=False)


def counter(name: str, text: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    """Make a counter.

    Args:
        name: Name of the family.
        text: Its help text.
        labels: Names of its labels.
    """
    return CounterMetricFamily(f"ingestor_{name}", text, labels=labels)


def gauge(name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """Make a gauge.

    Args:
        name: Name of the family.
        text: Its help text.
        labels: Names of its labels.
    """
    return GaugeMetricFamily(f"ingestor_{name}", text, labels=labels)


def counted(
    family: CounterMetricFamily | GaugeMetricFamily,
    counts: Mapping[Labels, float],
    known: Iterable[Sequence[str]] = (),
) -> Metric:
    """Add counts to a family, and return it.

    Args:
        family: A counter or gauge.
        counts: By label values.
        known: Label values that are shown from the start, with 0: `increase()` doesn't see the
            first event of a series that begins with it.
    """
    found = dict.fromkeys((tuple(labels) for labels in known), 0.0)
    found.update((tuple(labels), count) for labels, count in counts.items())
    for labels, count in found.items():
        family.add_metric(labels, count)
    return family


def histogram(
    name: str, text: str, feeds: Sequence[tuple[str, str, str]], values: Histogram
) -> HistogramMetricFamily:
    """Make a histogram of each feed that has values; the arrays' fine bins become coarser ones.

    Args:
        name: Name of the family.
        text: Its help text.
        feeds: Label values of each feed.
        values: The arrays.
    """
    family = HistogramMetricFamily(f"ingestor_{name}", text, labels=_FEED_LABELS)
    edges = [f"{edge * NS:g}" for edge in EDGES_NS[EXPORTED].tolist()]
    cumulative = np.cumsum(values.counts, axis=1)
    for number, labels in enumerate(feeds[: len(cumulative)]):
        total = int(cumulative[number, -1])
        if total:
            counts = [*cumulative[number, EXPORTED].tolist(), total]
            buckets = list(zip([*edges, "+Inf"], counts, strict=True))
            family.add_metric(labels, buckets, float(values.sums_ns[number]) * NS)
    return family


def status_families(status: Status) -> Iterator[Metric]:
    """Yield what the snapshot has and the arrays have not."""
    received = counter("received_bytes", "Payload of all websocket messages.")
    received.add_metric((), status.bytes_received)
    yield received
    for name, text, number in (
        ("buffer_bytes", "Memory of rows that are not acknowledged.", status.queue_bytes),
        ("buffer_limit_bytes", "The budget of these bytes.", status.queue_limit_bytes),
        ("rows_pending", "Rows read but not acknowledged.", status.pending),
        (
            "ledger_unaccounted",
            "Rows and frames that the ledger can't explain.",
            status.unaccounted,
        ),
        ("uptime_seconds", "Time since the start.", status.uptime_s),
        (
            "event_loop_lag_seconds",
            "How late the loop runs its callbacks, p99 of the last seconds.",
            (status.loop_delay_p99_ms or 0.0) / 1e3,
        ),
        (
            "loop_busy_ratio",
            "CPU time of the loop's thread in the last ten seconds, as part of that time.",
            status.loop_busy_ratio,
        ),
    ):
        one = gauge(name, text)
        one.add_metric((), number)
        yield one


class Slices:
    """Lets the loop run whenever a slice of work has taken its time."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    async def breathe(self) -> None:
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_S


class _Part(Collector):
    """Some of a family's samples, as `generate_latest` wants them."""

    def __init__(self, family: Metric, start: int) -> None:
        self._part = Metric(family.name, family.documentation, family.type)
        self._part.samples = family.samples[start : start + SAMPLES_A_SLICE]

    def collect(self) -> Iterator[Metric]:
        yield self._part


async def metrics_text(source: MetricSource) -> bytes:
    """Return the page of all families (text format 0.0.4)."""
    slices = Slices()
    parts: list[bytes] = []
    for family in source.families():
        for start in range(0, max(len(family.samples), 1), SAMPLES_A_SLICE):
            text = generate_latest(_Part(family, start))
            parts.append(text.split(b"\n", 2)[2] if start else text)  # HELP and TYPE once
            await slices.breathe()
    return b"".join(parts)


STREAM_FAMILIES: Final = (
    ("ingestor_feed_up", "gauge", "1 while the stream's connection is up."),
    ("ingestor_feed_messages_total", "counter", "Messages of the stream."),
    ("ingestor_feed_last_message_timestamp_seconds", "gauge", "When the stream last spoke."),
    ("ingestor_feed_lag_seconds", "gauge", "Lag of its last message."),
)
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


async def streams_text(streams: Iterable[StreamState]) -> bytes:
    """Return the page of all streams, at most STREAMS_MAX of them."""
    slices = Slices()
    lines = [
        [f"# HELP {name} {text}", f"# TYPE {name} {kind}"] for name, kind, text in STREAM_FAMILIES
    ]
    for number, one in enumerate(streams):
        if number >= STREAMS_MAX:
            break
        labels = (
            f'{{venue="{one.venue}",market="{one.market}",channel="{one.channel}",'
            f'symbol="{one.symbol.translate(_ESCAPES)}"}}'
        )
        values = (int(one.is_up), one.messages, one.last_message_ns * NS, one.lag_s)
        for family, (name, _, _), value in zip(lines, STREAM_FAMILIES, values, strict=True):
            family.append(f"{name}{labels} {value}")
        if number % SAMPLES_A_SLICE == 0:
            await slices.breathe()
    return "".join(f"{line}\n" for family in lines for line in family).encode()
