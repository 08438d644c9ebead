"""A day in the life of five exchanges, in virtual time; see `tests.simulation.day`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

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
