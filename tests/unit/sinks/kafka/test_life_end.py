"""What is dropped when a life is over, and what is said of it."""

from __future__ import annotations

import orjson
import pytest

from ingestor.model.row_classes import ROW_CLASSES
from ingestor.sinks.kafka.life_end import drop_all
from tests.unit.sinks.kafka.test_sender import LANES, running

TOPICS = {row_class: f"md.{row_class.topic}" for row_class in ROW_CLASSES}
SESSION = bytes(range(16))


async def test_rows_under_way_and_rows_that_wait_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch, beside_s=60.0) as bench:
        for number in range(LANES):
            bench.submit(2, number)
        await bench.until(lambda: bool(bench.broker.requests))
        bench.submit(4, 1)
        assert (bench.queue.rows, bench.queue.rows_in_flight) == (10, 6)
    # The sender has stopped; it was never told what became of the six.
    given = bench.sender, bench.queue, bench.ledger, TOPICS, SESSION
    voids, dropped = drop_all(*given, "fenced")
    assert dropped == 10
    assert bench.ledger.counts == {"fenced": 10}
    assert (bench.queue.rows, bench.queue.bytes, bench.queue.rows_in_flight) == (0, 0, 0)
    assert bench.ledger.unexplained(sum(bench.submitted.values()), 0) == 0
    said = [orjson.loads(text) for text in voids]
    assert [(one["partition"], one["first"], one["last"]) for one in said] == [
        (number, 2, 3) for number in range(LANES)
    ]
    assert {(one["kind"], one["session"], one["reason"]) for one in said} == {
        ("void", SESSION.hex(), "fenced")
    }
    assert drop_all(*given, "fenced") == ([], 0)
