"""Seeded runs of the whole process in virtual time; `tests.simulation.run` says what must hold."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import structlog

from ingestor.decode.session import Session
from ingestor.model.clocks import Clocks
from ingestor.model.rows import Rows
from ingestor.telemetry.metrics import Metrics
from tests.simulation import virtual
from tests.simulation.run import Outcome, simulate

# Virtual seconds of faults, between two of them, and between two moves of the markets.
SHORT: Final = (60.0, 4.0, 1.0)
LONG: Final = (3_600.0, 20.0, 5.0)
SHORT_SEEDS: Final = range(20)
LONG_SEEDS: Final = range(1_000, 1_200)
PINNED: Final = Path(__file__).parent / "seeds.txt"
_ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Log errors alone: a run has thousands of lines, and pytest keeps all of them."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)


def pinned() -> Iterator[tuple[float, float, float, int]]:
    for line in PINNED.read_text().splitlines():
        if line and not line.startswith("#"):
            *numbers, seed = line.split()
            seconds, between_s, pace = map(float, numbers)
            yield seconds, between_s, pace, int(seed)


def check(seconds: float, between_s: float, pace: float, seed: int) -> Outcome:
    """Simulate a seed; pin one that fails."""
    try:
        return simulate(seed, seconds, between_s, pace)
    except Exception:
        if (seconds, between_s, pace, seed) not in set(pinned()):
            with PINNED.open("a") as file:
                file.write(f"{seconds:g} {between_s:g} {pace:g} {seed}\n")
        raise


@pytest.mark.rows("V1")
@pytest.mark.parametrize(
    ("seconds", "between_s", "pace", "seed"),
    [*((*SHORT, seed) for seed in SHORT_SEEDS), *pinned()],
)
def test_whatever_happens_the_table_of_bulkheads_holds(
    seconds: float, between_s: float, pace: float, seed: int
) -> None:
    check(seconds, between_s, pace, seed)


@pytest.mark.long(minutes=20)
@pytest.mark.rows("V1")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_a_virtual_hour(seed: int) -> None:
    outcome = check(*LONG, seed)
    assert len(outcome.faults) > 8


def test_the_same_seed_is_the_same_run() -> None:
    """In this process and in another one, where text has other hashes."""
    outcome = simulate(3, *SHORT)
    command = f"print(simulate(3, {SHORT[0]}, {SHORT[1]}).trace)"
    child = subprocess.run(
        [sys.executable, "-c", f"from tests.simulation.run import simulate; {command}"],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.splitlines()[-1] == outcome.trace
    assert simulate(4, *SHORT).trace != outcome.trace


# A simulation that finds nothing is worth nothing: these faults of ours must be found.


def must_be_found(seeds: range = range(5)) -> str:
    for seed in seeds:
        try:
            simulate(seed, *SHORT)
        except AssertionError as failure:
            return str(failure)
    raise AssertionError("nobody noticed")


def test_a_hole_that_is_not_declared_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "closed", lambda _session, _ts_recv: None)
    assert "without a GAP" in must_be_found()


def test_a_ledger_out_of_balance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Metrics.acked

    def lose(metrics: Metrics, row_class: object, rows: Rows, *times: int) -> None:
        count(metrics, row_class, rows[1:], *times)  # type: ignore[arg-type]

    monkeypatch.setattr(Metrics, "acked", lose)
    assert "the ledger is out of balance" in must_be_found()


def test_a_clock_that_goes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "Clocks", partial(Clocks, wall_ns=time.time_ns))
    assert "go back" in must_be_found(range(20))
