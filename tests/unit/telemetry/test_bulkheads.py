"""ingestor.telemetry.bulkheads: what stops at a boundary, what is said of it, and what passes."""

from __future__ import annotations

import asyncio
import struct

import pytest
import structlog

from ingestor.model.backoff import Backoff
from ingestor.model.errors import LedgerBroken
from ingestor.telemetry import bulkheads as module
from ingestor.telemetry.bulkheads import Bulkheads

FAILURES = [RuntimeError, OSError, StopIteration, struct.error, ArithmeticError, MemoryError]


def fail(failure: BaseException) -> None:
    raise failure


@pytest.mark.rows("I1")
@pytest.mark.parametrize("kind", FAILURES)
def test_a_guarded_callback_costs_its_unit_alone(kind: type[Exception]) -> None:
    bulkheads = Bulkheads()
    bulkheads.guard("timer", fail)(kind("odd"))
    assert bulkheads.bugs == {"timer": 1}


@pytest.mark.parametrize("failure", [LedgerBroken("rows", 3), KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_the_process_passes(failure: BaseException) -> None:
    with pytest.raises(type(failure)):
        Bulkheads().guard("timer", fail)(failure)


def test_a_place_is_logged_once_with_its_traceback_and_counted_always() -> None:
    bulkheads = Bulkheads()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            bulkheads.guard("timer", fail, venue="acme")(RuntimeError("odd"))
        bulkheads.guard("timer", fail)(ValueError("another kind"))
    assert bulkheads.bugs == {"timer": 4}
    first, second = logs
    assert first["unit"] == "timer"
    assert first["venue"] == "acme"
    assert first["exc_info"].__traceback__ is not None
    assert "another kind" in second["cause"]


@pytest.mark.rows("I1")
async def test_a_kept_task_begins_again_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART", Backoff(base_s=0.0, cap_s=0.0))
    bulkheads, runs = Bulkheads(), 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise FAILURES[runs]("odd")

    await bulkheads.keep("report", run)
    assert runs == 4
    assert bulkheads.bugs == {"report": 3}


async def test_restarts_back_off_and_a_stable_task_begins_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    class Recorded(Backoff):
        def delay_s(
            self, attempt: int, random: object, retry_after_s: float | None = None
        ) -> float:
            attempts.append(attempt)
            return 0.0

    monkeypatch.setattr(module, "RESTART", Recorded())
    stable_after = [False, False, True, False]

    async def run() -> None:
        if not stable_after:
            return
        monkeypatch.setattr(module, "STABLE_S", -1.0 if stable_after.pop(0) else 1e9)
        raise RuntimeError

    await Bulkheads().keep("report", run)
    assert attempts == [1, 2, 0, 1]


async def test_a_kept_task_can_be_cancelled_and_a_broken_ledger_ends_it() -> None:
    bulkheads = Bulkheads()

    async def broken() -> None:
        raise LedgerBroken("frames", 1)

    with pytest.raises(LedgerBroken, match="1 frames are unaccounted for"):
        await bulkheads.keep("report", broken)
    task = asyncio.create_task(bulkheads.keep("report", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bulkheads.bugs
