"""ingestor.sources.live.request_pace, on a clock that stands still."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingestor.adapter import Limits
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.request_pace import RequestPace, SharedPaces


async def at_once(*paces: RequestPace) -> int:
    """Return how many requests may be sent now, asking each pace in turn."""
    sent = 0
    for _ in range(1_000):
        for pace in paces:
            task = asyncio.create_task(pace.acquire())
            await asyncio.sleep(0)
            if not task.done():  # by a rounding, or for real
                await asyncio.sleep(0.02)
            if not task.done():
                task.cancel()
                return sent
            sent += 1
    return sent


def planned(limits: Limits, address: str | None = None) -> PlannedConnection:
    made: Any = SimpleNamespace(venue="acme", source_address=address, limits=limits)
    return cast("PlannedConnection", made)


async def test_connections_of_one_address_share_its_limit() -> None:
    limits = Limits(requests_per_s=4.0, address_requests_per_s=6.0)
    shared = SharedPaces(1, lambda: 5.0)
    here = planned(limits)
    paces = [RequestPace(limits, shared.of(here), lambda: 5.0) for _ in range(10)]
    assert await at_once(*paces) == 3, "one connection's burst is four, ten have three together"
    elsewhere = planned(limits, "192.0.2.1")
    assert shared.of(elsewhere) is not shared.of(here)
    assert shared.of(here) is shared.of(here)
    assert SharedPaces(1, lambda: 5.0).of(planned(Limits())) is None


async def test_no_hour_has_more_requests_than_allowed() -> None:
    now_s = [0.0]
    limits = Limits(requests_per_s=1_000.0, requests_per_hour=480)
    pace = RequestPace(limits, None, lambda: now_s[0])
    assert pace.has_room(240)
    assert not pace.has_room(241)
    assert await at_once(pace) == pytest.approx(240, abs=1)
    assert not pace.has_room(2)
    now_s[0] = 3_600.0
    assert await at_once(pace) == pytest.approx(240, abs=1), "480 in this hour"


@pytest.mark.parametrize("count", [1, 10_000])
def test_without_an_hourly_limit_there_is_always_room(count: int) -> None:
    assert RequestPace(replace(Limits(), requests_per_hour=0)).has_room(count)
