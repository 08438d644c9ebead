"""Report a replay as one JSON object: `ingestor replay --audit --json`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ingestor.sinks.digest import AuditSink
from ingestor.sources.replay.replay import Replay


def audit(replay: Replay) -> dict[str, Any]:
    """Replay to nothing; return what `report` returns."""
    sink = AuditSink()
    for result in replay.results():
        for batch in result.batches:
            sink.submit(batch, 0)
    return report(replay, sink)


def report(replay: Replay, sink: AuditSink) -> dict[str, Any]:
    """Return the sums of a replay that is over, as JSON types.

    frames, rejected, filtered, duplicates: frames received. rows: by kind, as they came out;
    `filtered_rows`, `duplicate_rows`, `held_rows` did not. unaccounted: frames and rows that
    nothing explains, 0 unless there is a bug.
    """
    counts = list(replay.counts.values())
    ledger = replay.pipeline.ledger()
    books = replay.pipeline.books.statistics().values()
    rows = sink.rows
    reasons: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for count in counts:
        reasons.update(count.rejected_by_reason)
        rules.update(count.filtered_by_rule)
    return {
        "frames": sum(count.frames for count in counts),
        "decoded": sum(count.decoded for count in counts),
        "control": sum(count.control for count in counts),
        "rows": rows,
        "rejected": sum(count.rejected for count in counts),
        "rejected_by_reason": dict(reasons),
        "filtered": sum(count.filtered for count in counts),
        "filtered_by_rule": dict(rules),
        "filtered_rows": ledger.filtered,
        "duplicates": sum(count.duplicate for count in counts),
        "duplicate_rows": ledger.duplicate,
        "held_rows": ledger.held,
        "gaps": rows["gap"],
        "resets": rows["reset"],
        "books": {
            name: sum(getattr(book, name) for book in books)
            for name in ("verified", "mismatched", "unverifiable", "crossed")
        },
        "digest": sink.digest.hexdigest(),
        "unaccounted": sum(count.unaccounted for count in counts) + ledger.unaccounted,
        "late_frames": replay.totals.late,
        "instruments": {origin: sorted(set(s)) for origin, s in replay.totals.origins.items()},
        "problems": replay.problems.count,
    }
