"""A day in the life of five exchanges, in virtual time; see `tests.simulation.day`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.faults.results import RowRecorder
from tests.simulation.day import live_a_day


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)


@pytest.mark.rows("V1")
def test_two_minutes_of_twenty_symbols() -> None:
    outcome = live_a_day(1, seconds=120.0, between_s=3.0, pace=2.0, symbols=20)
    assert sum(outcome.faults.values()) > 20
    assert min(outcome.rows.values()) > 0


@pytest.mark.long(minutes=4)
@pytest.mark.rows("V1")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_of_two_hundred_symbols(seed: int, row: RowRecorder) -> None:
    outcome = live_a_day(seed, seconds=86_400.0, between_s=60.0, pace=60.0, symbols=200)
    faults = sum(outcome.faults.values())
    assert faults > 1_000
    assert {"tick", "delist", "list", "odd entry", "maintenance", "clock", "pause"} <= {
        *outcome.faults
    }
    row(
        "V1",
        promised="ledger and bulkheads hold",
        measured=f"24 hours of 200 symbols on 5 venues, {faults:,} faults, seed {seed}: all held",
    )
