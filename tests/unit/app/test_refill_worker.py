"""A refill begins once it is calm again, and is tried again until nothing is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingestor.app import refill_worker
from ingestor.app.refill_worker import RefillWorker
from ingestor.model.backoff import Backoff
from tests.unit.app.test_refill import config

Report = dict[str, Any] | str
SETTLE_S = 0.02


def report(filled: int, still_open: int, trades: int) -> Report:
    found = {"ranges": filled + still_open, "filled": filled, "open": still_open}
    return found | {"rows": {"trades": trades}}


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What the processes will tell; the last one for ever."""
    told: list[Report] = []

    async def in_process(*_: object) -> Report:
        return told.pop(0) if len(told) > 1 else told[0]

    monkeypatch.setattr(refill_worker, "_in_process", in_process)
    monkeypatch.setattr(refill_worker, "RETRY", Backoff(base_s=0.001, cap_s=0.002))
    return told


async def run_until(worker: RefillWorker, is_over: Callable[[], bool]) -> None:
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while not is_over():
            await asyncio.sleep(0.002)
    await asyncio.sleep(5 * SETTLE_S)  # nothing more must follow
    running.cancel()


async def test_it_tries_until_nothing_is_open(reports: list[Report]) -> None:
    reports += ["Kafka is away", report(1, 2, 10), report(2, 0, 5)]
    worker = RefillWorker(config(), Path(), lambda: 15, lambda: True, settle_s=SETTLE_S)
    await run_until(worker, lambda: worker.outcomes["filled"] > 0)
    assert worker.outcomes == {"failed": 1, "open": 1, "filled": 1}
    assert worker.rows == {"trades": 15}
    shown = {
        sample.labels.get("outcome"): sample.value
        for family in worker.families()
        for sample in family.samples
    }
    assert shown["filled"] == 1


async def test_it_gives_up(reports: list[Report]) -> None:
    reports.append("the disk is gone")
    worker = RefillWorker(config(), Path(), lambda: 15, lambda: True, settle_s=SETTLE_S)
    await run_until(worker, lambda: worker.outcomes["failed"] == refill_worker.ATTEMPTS_MAX)
    assert worker.outcomes["failed"] == refill_worker.ATTEMPTS_MAX


async def test_it_waits_until_kafka_takes_rows(reports: list[Report]) -> None:
    reports.append(report(1, 0, 1))
    is_calm = False
    worker = RefillWorker(config(), Path(), lambda: 15, lambda: is_calm, settle_s=SETTLE_S)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(5 * SETTLE_S)
    assert not any(worker.outcomes.values())
    is_calm = True
    async with asyncio.timeout(10):
        while not worker.outcomes["filled"]:
            await asyncio.sleep(0.002)
    running.cancel()
