"""ingestor.telemetry.trouble: the words for what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingestor.telemetry.status import Phase, Status
from ingestor.telemetry.trouble import losses, wrong_now

WELL = Status(phase=Phase.RUNNING, uptime_s=100.0, connections={"connected": 10}, kafka_up=True)


def test_nothing_is_wrong_with_a_process_that_runs() -> None:
    assert wrong_now(WELL) == []
    assert losses(WELL) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kafka_up": False}, "Kafka acknowledges nothing"),
        ({"queue_fill": {"bytes": 0.1, "age": 0.8}}, "queue 80% full (age)"),
        ({"unaccounted": -3}, "3 unaccounted"),
        ({"phase": Phase.PAUSED}, "reading is paused: the sink is behind"),
        ({"held": ["md.trades.v1: denied"]}, "Kafka refuses md.trades.v1: denied"),
        ({"connections": {"connected": 8, "waiting": 2}}, "2 of 10 connections are down"),
        (
            {"recorder": "failed", "recorder_reason": "disk full"},
            "the recorder has failed: disk full",
        ),
        ({"notes": ["worker 1 down"]}, "worker 1 down"),
    ],
)
def test_each_thing_that_is_wrong_is_said(change: dict[str, Any], text: str) -> None:
    assert wrong_now(replace(WELL, **change)) == [text]


@pytest.mark.parametrize(
    "change",
    [
        {"kafka_up": None},  # none is wanted
        {"queue_fill": {"bytes": 0.74}},
        {"connections": {"connected": 9, "waiting": 1}},
        {"connections": {"connecting": 10}, "uptime_s": 5.0},  # they are being opened
        {"recorder": "recording"},
    ],
)
def test_what_is_usual_is_not_wrong(change: dict[str, Any]) -> None:
    assert wrong_now(replace(WELL, **change)) == []


def test_losses_are_counted_since_the_start() -> None:
    status = replace(WELL, shed=1200, dead_lettered=1, rejected=2, gaps=3)
    assert losses(status) == ["1,200 shed", "1 dead-lettered", "2 frames rejected", "3 gaps"]
