"""What Kafka refuses, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ingestor.sinks.kafka.reports import refused_now


def test_partitions_of_a_topic_and_reason_are_told_of_together() -> None:
    side: Any = {
        "status": SimpleNamespace(reasons={0: "Denied", 3: "Denied", 1: "Absent"}),
        "quiet": SimpleNamespace(reasons={}),
    }
    apart = [("trades", 2, "Denied"), ("book", 0, "Slow"), ("trades", 0, "Denied")]
    texts, partitions = refused_now(apart, {"quotes": "compacted"}, side)
    assert texts == (
        "book[0]: Slow",
        "trades[0,2]: Denied",
        "quotes: compacted",
        "status[1]: Absent",
        "status[0,3]: Denied",
    )
    assert partitions == {"trades": 2, "book": 1, "status": 3}


def test_nothing_is_refused() -> None:
    assert refused_now([], {}, {}) == ((), {})
