"""ingestor.admin.terminal: what the terminal shows."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace

import pytest
from rich.console import Console

from ingestor.admin.terminal import ledger, line, picture, show
from ingestor.telemetry.status import FeedStatus, Phase, Status

BEFORE = Status(time_ns=1_000_000_000, frames=100, rows={"trade": 10})
NOW = Status(
    time_ns=3_000_000_000,
    uptime_s=3.0,
    phase=Phase.RUNNING,
    connections={"connected": 9, "waiting": 1},
    frames=2_100,
    control=100,
    rejected=1,
    rows={"trade": 2_010, "level": 4_000},
    acked=5_990,
    pending=20,
    feeds=[FeedStatus("okx", "spot", "book", 4_000, 1.25, 9.5, 30.0)],
    lag_p50_ms=1.25,
    lag_p99_ms=9.5,
    publish_p99_ms=8.0,
    queue_bytes=10,
    queue_limit_bytes=1_000,
    queue_fill={"bytes": 0.01, "rows": 0.002, "age": 0.0},
)


def text_of(status: Status, before: Status = BEFORE, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(picture(status, before))
    return capture.get()


def test_a_line_has_rates_since_the_last_one() -> None:
    assert line(NOW, BEFORE) == (
        "running 3 s: 9/10 connections, 1,000 frames/s, 3,000 ticks/s, lag p50 1.2 p99 9.5 ms, "
        "publish p99 8.0 ms, queue 1.0% (bytes), 1 frames rejected"
    )


def test_a_line_without_data_has_dashes() -> None:
    assert line(Status(), Status()) == (
        "starting 0 s: 0/0 connections, - frames/s, - ticks/s, lag p50 - p99 - ms, "
        "publish p99 - ms, queue 0.0%"
    )


def test_the_picture_shows_feeds_and_trouble() -> None:
    text = text_of(NOW)
    assert "9 connected, 1 waiting" in text
    assert "okx:spot:book" in text
    assert "2,000" in text  # ticks/s of the feed
    assert "1 frames rejected" in text
    NOW_WELL = Status(phase=Phase.RUNNING)
    assert "nothing lost" in text_of(NOW_WELL)
    full = Status(queue_fill={"bytes": 0.1, "age": 0.8}, notes=["recorder failed"])
    assert "queue 80% full (age), recorder failed" in text_of(full)


@pytest.mark.parametrize(("kafka_up", "is_said"), [(False, True), (True, False), (None, False)])
def test_an_outage_of_kafka_is_shown(kafka_up: bool | None, is_said: bool) -> None:
    now = Status(phase=Phase.RUNNING, kafka_up=kafka_up)
    assert ("Kafka acknowledges nothing" in text_of(now)) == is_said
    assert ("Kafka acknowledges nothing" in line(now, Status())) == is_said


def test_numbers_are_whole_at_80_columns() -> None:
    feeds = [
        FeedStatus("coinbase-international", market, "trades", 1_234_567_890, 12.3, 123.4, 4_321.0)
        for market in ("spot", "perpetual")
    ]
    text = text_of(replace(NOW, frames=123_456_789, acked=1_234_567_890, feeds=feeds), width=80)
    assert max(map(len, text.splitlines())) <= 80
    for number in ("123,456,789", "1,234,567,890", "4321.0", "123.4", "12.3"):
        assert number in text
    assert text.count("1,234,567,890") == 3


def test_feeds_keep_their_order_when_lags_change() -> None:
    feeds = [FeedStatus("v", "m", name, 1, 1.0, lag) for name, lag in (("b", 9.0), ("a", 1.0))]
    text = text_of(Status(feeds=feeds))
    assert text.index("v:m:a") < text.index("v:m:b")


def test_the_picture_shows_the_worst_feeds_when_there_are_many() -> None:
    feeds = [FeedStatus("v", "m", f"c{number:02}", 1, 1.0, float(number)) for number in range(25)]
    text = text_of(Status(feeds=feeds))
    assert "v:m:c24" in text
    assert "v:m:c04" not in text
    assert "... 5 more" in text


def test_the_ledger_adds_up() -> None:
    text = ledger(NOW)
    assert "frames          2,100 = 100 control + 1,999 decoded + 1 rejected" in text
    assert "rows            6,010 = 5,990 acknowledged + 0 duplicate" in text
    assert text.endswith("balanced, but 20 rows were not delivered")
    assert ledger(Status()).endswith("balanced")
    lost = Status(shed=2, dead_lettered=1)
    assert ledger(lost).endswith("balanced, but 3 rows were not delivered")
    assert "UNACCOUNTED: 3" in ledger(Status(unaccounted=3))


async def run_for(console: Console, turns: int) -> None:
    calls = 0
    enough = asyncio.Event()

    def status() -> Status:
        nonlocal calls
        calls += 1
        if calls > turns:
            enough.set()
        return NOW

    task = asyncio.create_task(show(status, console, interval_s=0.001))
    await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_where_there_is_no_terminal_it_is_plain_lines() -> None:
    out = io.StringIO()
    await run_for(Console(file=out, width=40), 3)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 2
    assert all(one.startswith("running 3 s: 9/10 connections") for one in lines)
    assert "\x1b" not in out.getvalue()


async def test_on_a_terminal_it_is_live() -> None:
    out = io.StringIO()
    await run_for(Console(file=out, force_terminal=True, width=100), 2)
    assert "\x1b[" in out.getvalue()
    assert "okx:spot:book" in out.getvalue()
