"""Join the pages of several workers to those of one program. Pure: text in, families out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from ingestor.admin.exposition import StreamState, counter, gauge
from ingestor.model.timestamps import SECOND

_STREAM_LABELS: Final = ("venue", "market", "channel", "symbol")


def families_of_workers(pages: Mapping[str, str]) -> Iterator[Metric]:
    """Yield each family once, its samples labelled with their worker.

    pages: worker -> its /metrics. Samples aren't added up: histograms and counters can be, by
    whoever reads them; a restarted worker's counters begin anew.
    """
    families: dict[str, Metric] = {}
    for worker, page in pages.items():
        for part in text_string_to_metric_families(page):
            whole = families.setdefault(part.name, Metric(part.name, part.documentation, part.type))
            whole.samples += [
                sample._replace(labels={"worker": worker, **sample.labels})
                for sample in part.samples
            ]
    yield from families.values()


def worker_families(found: Mapping[str, tuple[bool, int]]) -> Iterator[Metric]:
    """Yield the parent's own. found: worker -> whether it is up, and its restarts."""
    up = gauge("worker_up", "1 while the worker process runs and answers.", ("worker",))
    restarts = counter("worker_restarts", "Times that a worker was started again.", ("worker",))
    for worker, (is_up, count) in found.items():
        up.add_metric((worker,), int(is_up))
        restarts.add_metric((worker,), count)
    yield from (up, restarts)


def streams_of(page: str) -> Iterator[StreamState]:
    """Yield the streams of one worker's /metrics/feeds."""
    values: dict[tuple[str, ...], dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in _STREAM_LABELS)
            values.setdefault(labels, {})[sample.name.removeprefix("ingestor_feed_")] = sample.value
    for (venue, market, channel, symbol), found in values.items():
        yield StreamState(
            venue,
            market,
            channel,
            symbol,
            is_up=bool(found["up"]),
            messages=int(found["messages_total"]),
            last_message_ns=round(found["last_message_timestamp_seconds"] * SECOND),
            lag_s=found["lag_seconds"],
        )


def merged_last(parts: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return the last values of an instrument from those that several workers have.

    Each stream is with one worker; of one that moved, the newer row counts.
    """
    whole: dict[str, Any] | None = None
    for part in parts:
        if part is None:
            continue
        if whole is None:
            whole = {**part, "more": dict(part["more"])}
            continue
        for name in ("trade", "quote"):
            rows = [row for row in (whole[name], part[name]) if row is not None]
            whole[name] = max(rows, key=itemgetter("ts_recv"), default=None)
        for kind, rows in part["more"].items():
            newer = [rows, whole["more"].get(kind, [])]
            whole["more"][kind] = max(newer, key=_newest)
    return whole


def _newest(rows: Iterable[Mapping[str, Any]]) -> int:
    return max((row["ts_recv"] for row in rows), default=0)
