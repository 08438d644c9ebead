"""Families of the parts that count for themselves: connections, lists, Kafka, books, recorder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product
from typing import Final

from prometheus_client.core import Metric

from ingestor.admin.exposition import counted, counter, gauge
from ingestor.books.rest_check import Finding
from ingestor.books.statistics import BookCounters, BookStatistics
from ingestor.model.rows import Cause
from ingestor.pipeline.trade_gaps import TradeGaps
from ingestor.recording.recorder import RecorderStatistics
from ingestor.sinks.kafka.queue import QueueStatistics
from ingestor.sources.live.events import CAUSES
from ingestor.sources.live.statistics import SupervisorStatistics
from ingestor.sources.rest.resolve import WaitReason
from ingestor.sources.rest.statistics import ListStatistics
from ingestor.telemetry.bulkheads import UNITS

Places = Collection[tuple[str, str]]

_MARKET: Final = ("venue", "market")
_HELD: Final = ("websocket", "rest")
_BACKFILL_OUTCOMES: Final = ("answered", "failed", "refused", "unreadable")
_AUDIT_OUTCOMES: Final = (*(finding.value for finding in Finding), "failed")
_REPAIR_CAUSES: Final = ("first", *(cause.name.lower() for cause in Cause if cause <= Cause.STALE))
_BOOK_COUNTERS: Final = {
    "updates": "Book updates applied.",
    "verified": "Updates that a checksum, a quote or a REST image proved right.",
    "mismatched": "Updates that a checksum, a quote or a REST image proved wrong.",
    "crossed": "Updates that left the book crossed.",
    "resets": "Times that a book began anew.",
}


def of_each(places: Iterable[tuple[str, str]], values: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield each place with each value of a third label."""
    return ((*place, value) for place, value in product(places, values))


def connection_families(found: SupervisorStatistics) -> Iterator[Metric]:
    """Yield connections by state, reconnects by cause, streams that the venues don't serve."""
    connections = gauge("connections", "Connections by state.", ("venue", "state"))
    yield counted(connections, found.connections)
    venues = sorted({venue for venue, _ in found.connections})
    reconnects = counter("reconnects", "Connections lost, attempts failed.", ("venue", "cause"))
    yield counted(reconnects, found.reconnects, product(venues, CAUSES))
    for name, text, by_venue in (
        ("streams_refused", "Streams that the venue refused.", found.refused),
        ("streams_unacknowledged", "Streams never confirmed.", found.unacknowledged),
    ):
        counts = {(venue,): count for venue, count in by_venue.items()}
        yield counted(counter(name, text, ("venue",)), counts, zip(venues))


def bug_families(bugs: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the exceptions that boundaries stopped. bugs: counts by unit (docs/bulkheads.md)."""
    family = counter("bugs", "Exceptions that nothing foresaw, stopped at a boundary.", ("unit",))
    yield counted(family, {(unit,): count for unit, count in bugs.items()}, zip(UNITS))


def reload_families(counts: Mapping[str, int]) -> Iterator[Metric]:
    """Yield how reloads ended. counts: by outcome."""
    family = counter("reloads", "Reloads of the configuration by outcome.", ("outcome",))
    yield counted(family, {(outcome,): count for outcome, count in counts.items()})


def last_value_families(counts: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    """Yield what became of changes of last values. counts: by place (topic, redis) and outcome."""
    text = "Changes of last values by place and outcome."
    family = counter("last_values", text, ("place", "outcome"))
    yield counted(family, counts, [("topic", "written")])


def list_families(
    found: ListStatistics, held: Mapping[tuple[str, str], float], places: Places
) -> Iterator[Metric]:
    """Yield what happened to instrument lists.

    Args:
        found: Counts of lists and of their entries.
        held: Seconds by venue and kind of request.
        places: Venue and market of each feed.
    """
    reads = counter("instrument_lists", "Instrument lists by outcome.", (*_MARKET, "outcome"))
    yield counted(reads, found.reads)
    text = "List entries that can't be read, each symbol once."
    yield counted(counter("instrument_entries_unreadable", text, _MARKET), found.unreadable, places)
    waiting = gauge("symbols_waiting", "Configured names that don't run.", (*_MARKET, "reason"))
    yield counted(waiting, found.waiting, of_each(places, [reason.value for reason in WaitReason]))
    holds = gauge("venue_held_seconds", "How long a venue still holds us off.", ("venue", "kind"))
    venues = sorted({venue for venue, _ in places})
    yield counted(holds, held, product(venues, _HELD))


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
        yield counted(family, {(cause,): count for cause, count in counts.items()}, [("",)])
    fill = gauge("buffer_fill_ratio", "How full each bound of the budget is.", ("budget",))
    yield counted(fill, {(bound,): share for bound, share in found.fill.items()})
    held = gauge("partitions_held", "Partitions that Kafka refuses now.", ("topic",))
    yield counted(held, {(topic,): count for topic, count in found.held_partitions.items()})
    side = counter("auxiliary_records", "Records of auxiliary topics.", ("topic", "outcome"))
    ended = {place: count for place, count in found.side.items() if place[1] != "pending"}
    yield counted(side, ended)
    steps = counter("overload_steps", "Steps of the overload policy taken.", ("step",))
    yield counted(steps, {(step,): count for step, count in found.steps.items()})
    for name, text, value in (
        ("reading_paused", "1 while sockets are not read.", int(found.paused)),
        ("rows_in_flight", "Rows sent and not yet acknowledged.", found.rows_in_flight),
        ("buffer_age_seconds", "How long the oldest queued row has waited.", found.age_s),
        ("buffer_peak_bytes", "The most that the buffer ever held.", found.bytes_peak),
    ):
        one = gauge(name, text)
        one.add_metric((), value)
        yield one


def book_families(
    found: Mapping[tuple[str, str], BookStatistics], places: Places
) -> Iterator[Metric]:
    """Yield what the books' audit says, by market.

    Args:
        found: Readings of the markets that have books.
        places: Venue and market of each feed.
    """
    found = dict.fromkeys(places, BookCounters().reading(0, 0, 0, 0)) | dict(found)
    for name, text in _BOOK_COUNTERS.items():
        family = counter(f"book_{name}", text, _MARKET)
        for place, books in found.items():
            family.add_metric(place, getattr(books, name))
        yield family
    valid = gauge("books", "Books by state.", (*_MARKET, "state"))
    invalid = counter("book_invalid_seconds", "Seconds without a valid book, summed.", _MARKET)
    unverified = gauge("book_unverified_updates", "Updates not compared (yet).", _MARKET)
    repairs: dict[tuple[str, ...], int] = {}
    audits: dict[tuple[str, ...], int] = {}
    for place, books in found.items():
        unverified.add_metric(place, books.unverifiable)
        valid.add_metric((*place, "valid"), books.valid)
        valid.add_metric((*place, "invalid"), books.books - books.valid)
        invalid.add_metric(place, books.invalid_s)
        repairs |= {(*place, cause): count for cause, count in books.repairs.items()}
        audits |= {(*place, outcome): count for outcome, count in books.audits.items()}
    yield from (valid, unverified, invalid)
    family = counter("book_repairs", "Repairs asked for.", (*_MARKET, "cause"))
    yield counted(family, repairs, of_each(found, _REPAIR_CAUSES))
    family = counter("book_audits", "Comparisons with REST images.", (*_MARKET, "outcome"))
    yield counted(family, audits, of_each(found, _AUDIT_OUTCOMES))


def trade_families(
    gaps: TradeGaps, requests: Mapping[tuple[str, str, str], int], places: Places
) -> Iterator[Metric]:
    """Yield what became of lost trades, by market.

    Args:
        gaps: Counts of trade numbers.
        requests: Counts by venue, market and outcome.
        places: Venue and market of each feed.
    """
    for name, text, counts in (
        ("trades_lost", "Trade numbers that were declared missing.", gaps.lost),
        ("trades_filled", "Missing trades that came later.", gaps.filled),
        ("trades_unfilled", "Missing trades that can't be had.", gaps.unfilled),
    ):
        yield counted(counter(name, text, _MARKET), counts, places)
    asked = counter("backfill_requests", "Requests for lost trades.", (*_MARKET, "outcome"))
    yield counted(asked, requests, of_each(places, _BACKFILL_OUTCOMES))


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


def trace_families(exports: Mapping[str, int]) -> Iterator[Metric]:
    """Yield what became of requests to the collector of spans. exports: by outcome."""
    text = "Requests to the collector of spans by outcome."
    family = counter("trace_exports", text, ("outcome",))
    for outcome, count in exports.items():
        family.add_metric((outcome,), count)
    yield family


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
