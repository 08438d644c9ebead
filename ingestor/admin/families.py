"""Families of the parts that count for themselves: connections, lists, Kafka, books, recorder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric

from ingestor.admin.exposition import counter, gauge
from ingestor.books.statistics import BookStatistics
from ingestor.pipeline.trade_gaps import TradeGaps
from ingestor.recording.recorder import RecorderStatistics
from ingestor.sinks.kafka.queue import QueueStatistics
from ingestor.sources.live.statistics import SupervisorStatistics
from ingestor.sources.rest.statistics import ListStatistics

_MARKET: Final = ("venue", "market")
_BOOK_COUNTERS: Final = {
    "updates": "Book updates applied.",
    "verified": "Updates that a checksum, a quote or a REST image proved right.",
    "mismatched": "Updates that a checksum, a quote or a REST image proved wrong.",
    "crossed": "Updates that left the book crossed.",
    "resets": "Times that a book began anew.",
}


def connection_families(found: SupervisorStatistics) -> Iterator[Metric]:
    """Yield connections by state, reconnects by cause, streams that the venues don't serve."""
    connections = gauge("connections", "Connections by state.", ("venue", "state"))
    for labels, count in found.connections.items():
        connections.add_metric(labels, count)
    yield connections
    reconnects = counter("reconnects", "Connections lost, attempts failed.", ("venue", "cause"))
    for labels, count in found.reconnects.items():
        reconnects.add_metric(labels, count)
    yield reconnects
    for name, text, by_venue in (
        ("streams_refused", "Streams that the venue refused.", found.refused),
        ("streams_unacknowledged", "Streams never confirmed.", found.unacknowledged),
    ):
        family = counter(name, text, ("venue",))
        for venue, count in by_venue.items():
            family.add_metric((venue,), count)
        yield family


def bug_families(bugs: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the exceptions that boundaries stopped. bugs: counts by unit (docs/bulkheads.md)."""
    family = counter("bugs", "Exceptions that nothing foresaw, stopped at a boundary.", ("unit",))
    for unit, count in bugs.items():
        family.add_metric((unit,), count)
    yield family


def reload_families(counts: Mapping[str, int]) -> Iterator[Metric]:
    """Yield how reloads ended. counts: by outcome."""
    family = counter("reloads", "Reloads of the configuration by outcome.", ("outcome",))
    for outcome, count in counts.items():
        family.add_metric((outcome,), count)
    yield family


def last_value_families(counts: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    """Yield what became of changes of last values. counts: by place (topic, redis) and outcome."""
    text = "Changes of last values by place and outcome."
    family = counter("last_values", text, ("place", "outcome"))
    for labels, count in counts.items():
        family.add_metric(labels, count)
    yield family


def list_families(found: ListStatistics, held: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    """Yield what happened to instrument lists. held: seconds by venue and kind of request."""
    reads = counter("instrument_lists", "Instrument lists by outcome.", (*_MARKET, "outcome"))
    for labels, count in found.reads.items():
        reads.add_metric(labels, count)
    yield reads
    text = "List entries that can't be read, each symbol once."
    unreadable = counter("instrument_entries_unreadable", text, _MARKET)
    for place, count in found.unreadable.items():
        unreadable.add_metric(place, count)
    yield unreadable
    waiting = gauge("symbols_waiting", "Configured names that don't run.", (*_MARKET, "reason"))
    for labels, count in found.waiting.items():
        waiting.add_metric(labels, count)
    yield waiting
    holds = gauge("venue_held_seconds", "How long a venue still holds us off.", ("venue", "kind"))
    for server, remaining_s in held.items():
        holds.add_metric(server, remaining_s)
    yield holds


def output_families(lines_dropped: int) -> Iterator[Metric]:
    """Yield what became of the process's own output."""
    family = counter(
        "log_lines_dropped", "Lines for standard output or error that nobody read in time."
    )
    family.add_metric((), lines_dropped)
    yield family


def kafka_families(
    found: QueueStatistics,
    resets: Mapping[str, int],
    *,
    connected: bool,
    refused: Mapping[str, int] | None = None,
) -> Iterator[Metric]:
    """Yield the producer's state.

    Args:
        found: the queue.
        resets: producers replaced, by cause.
        connected: whether acknowledgements come while rows wait.
        refused: batches that were refused for good, by cause.
    """
    up = gauge("kafka_up", "1 while Kafka accepts rows.")
    up.add_metric((), int(connected))
    yield up
    for name, text, counts in (
        ("producer_resets", "Producers replaced after an error.", resets),
        ("batches_refused", "Batches refused by Kafka for good.", refused or {}),
    ):
        family = counter(name, text, ("cause",))
        for cause, count in counts.items():
            family.add_metric((cause,), count)
        yield family
    fill = gauge("buffer_fill_ratio", "How full each bound of the budget is.", ("budget",))
    for bound, share in found.fill.items():
        fill.add_metric((bound,), share)
    yield fill
    held = gauge("partitions_held", "Partitions that Kafka refuses now.", ("topic",))
    for topic, count in found.held_partitions.items():
        held.add_metric((topic,), count)
    yield held
    side = counter("auxiliary_records", "Records of auxiliary topics.", ("topic", "outcome"))
    for place, count in found.side.items():
        if place[1] != "pending":
            side.add_metric(place, count)
    yield side
    steps = counter("overload_steps", "Steps of the overload policy taken.", ("step",))
    for step, count in found.steps.items():
        steps.add_metric((step,), count)
    yield steps
    for name, text, value in (
        ("reading_paused", "1 while sockets are not read.", int(found.paused)),
        ("rows_in_flight", "Rows sent and not yet acknowledged.", found.rows_in_flight),
        ("buffer_age_seconds", "How long the oldest queued row has waited.", found.age_s),
        ("buffer_peak_bytes", "The most that the buffer ever held.", found.bytes_peak),
    ):
        one = gauge(name, text)
        one.add_metric((), value)
        yield one


def book_families(found: Mapping[tuple[str, str], BookStatistics]) -> Iterator[Metric]:
    """Yield what the books' audit says, by market."""
    for name, text in _BOOK_COUNTERS.items():
        family = counter(f"book_{name}", text, _MARKET)
        for place, books in found.items():
            family.add_metric(place, getattr(books, name))
        yield family
    valid = gauge("books", "Books by state.", (*_MARKET, "state"))
    invalid = counter("book_invalid_seconds", "Seconds without a valid book, summed.", _MARKET)
    repairs = counter("book_repairs", "Repairs asked for.", (*_MARKET, "cause"))
    audits = counter("book_audits", "Comparisons with REST images.", (*_MARKET, "outcome"))
    unverified = gauge("book_unverified_updates", "Updates not compared (yet).", _MARKET)
    for place, books in found.items():
        unverified.add_metric(place, books.unverifiable)
        valid.add_metric((*place, "valid"), books.valid)
        valid.add_metric((*place, "invalid"), books.books - books.valid)
        invalid.add_metric(place, books.invalid_s)
        for cause, count in books.repairs.items():
            repairs.add_metric((*place, cause), count)
        for outcome, count in books.audits.items():
            audits.add_metric((*place, outcome), count)
    yield from (valid, unverified, invalid, repairs, audits)


def trade_families(
    gaps: TradeGaps, requests: Mapping[tuple[str, str, str], int]
) -> Iterator[Metric]:
    """Yield what became of lost trades, by market. requests: by venue, market and outcome."""
    for name, text, counts in (
        ("trades_lost", "Trade numbers that were declared missing.", gaps.lost),
        ("trades_filled", "Missing trades that came later.", gaps.filled),
        ("trades_unfilled", "Missing trades that can't be had.", gaps.unfilled),
    ):
        family = counter(name, text, _MARKET)
        for place, count in counts.items():
            family.add_metric(place, count)
        yield family
    asked = counter("backfill_requests", "Requests for lost trades.", (*_MARKET, "outcome"))
    for labels, count in requests.items():
        asked.add_metric(labels, count)
    yield asked


def refill_families(rows: Mapping[str, int], outcomes: Mapping[str, int]) -> Iterator[Metric]:
    """Yield what was published from the recording.

    Args:
        rows: By kind.
        outcomes: Refills by outcome.
    """
    refilled = counter("rows_refilled", "Shed rows published from the recording.", ("channel",))
    for channel, count in rows.items():
        refilled.add_metric((channel,), count)
    yield refilled
    refills = counter("refills", "Refills from the recording by outcome.", ("outcome",))
    for outcome, count in outcomes.items():
        refills.add_metric((outcome,), count)
    yield refills


def recorder_families(found: RecorderStatistics) -> Iterator[Metric]:
    """Yield what the recorder did."""
    state = gauge("recorder_state", "1 for the state that the recorder is in.", ("state",))
    for item in type(found.state):
        state.add_metric((item.value,), int(found.state is item))
    yield state
    for name, text, count in (
        ("recorder_bytes", "Compressed bytes written.", found.bytes_written),
        ("recorder_lines", "Lines written.", found.lines_written),
        ("recorder_lost_lines", "Lines that were not recorded.", found.lines_lost),
        ("recorder_lost_bytes", "Bytes of payload that were not recorded.", found.bytes_lost),
        ("recorder_failures", "Times that the disk refused.", found.failures),
    ):
        family = counter(name, text)
        family.add_metric((), count)
        yield family
    buffered = gauge("recorder_buffer_bytes", "Memory of what is not written yet.")
    buffered.add_metric((), found.bytes_buffered)
    yield buffered
