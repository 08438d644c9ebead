"""How late and how busy an event loop is."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from ingestor.telemetry import loop_lag
from ingestor.telemetry.loop_lag import LoopLag


async def watch(work_s: float, monkeypatch: pytest.MonkeyPatch) -> LoopLag:
    """Watch a loop that computes for so long between two sleeps of 20 ms."""
    monkeypatch.setattr(loop_lag, "BUSY_WINDOW_S", 0.15)
    watched = LoopLag()
    task = asyncio.create_task(watched.run())
    while not watched.busy_ratio:
        until_s = time.thread_time() + work_s
        while time.thread_time() < until_s:
            pass
        await asyncio.sleep(0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return watched


async def test_a_busy_loop_is_told_from_an_idle_one(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = await watch(0.0, monkeypatch)
    busy = await watch(0.06, monkeypatch)
    assert 0.0 < idle.busy_ratio < busy.busy_ratio <= 1.0
    assert busy.worst_ns > 0
