"""Faults are tried on the loop that the program runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.faults.clock import ClockShim, build


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shim that moves clocks, built once for each session."""
    return str(build(tmp_path_factory.mktemp("clock")))


@pytest.fixture
def clock(clock_library: str, tmp_path_factory: pytest.TempPathFactory) -> ClockShim:
    """A wall clock of one test, for the processes that it starts."""
    return ClockShim(clock_library, tmp_path_factory.mktemp("offset") / "offset")
