"""ingestor.sources.rest.budget: what a venue counts together is asked for together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from ingestor.adapter import RestLimit
from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.sources.rate_limiter import Holds
from ingestor.sources.rest.budget import RestBudget

USED = "X-USED"
LIMIT = RestLimit("futures", weight_per_s=20.0, weight_burst=100, used_header=USED, used_max=1_900)


@dataclass
class Clock:
    """Steady time that only the test moves, and the wall's second within a minute."""

    now_s: float = 1_000.0
    wall_s: float = 60_045.0

    def budget(self, limit: RestLimit = LIMIT, **more: int) -> RestBudget:
        clocks = Clocks(steady_ns=lambda: round(self.now_s * 1e9))
        wall_s = lambda: self.wall_s  # noqa: E731
        return RestBudget("acme", "all", limit, clocks=clocks, wall_s=wall_s, kept=Holds(), **more)


@pytest.mark.parametrize(
    ("status", "headers", "held_s"),
    [
        (429, {"Retry-After": "30"}, 30),
        (418, {"Retry-After": "600"}, 600),
        (429, {}, 10),
        (418, {}, 120),
        (418, {"Retry-After": "nonsense"}, 120),
        (503, {"Retry-After": "30"}, 0),  # a server's trouble is no limit
        (200, {USED: "1900"}, 0),
        (200, {USED: "1901"}, 15),  # the rest of the minute
        (200, {USED: "many"}, 0),
        (200, {"X-OTHER": "5000"}, 0),
    ],
)
def test_answers_hold_the_pool(status: int, headers: dict[str, str], held_s: float) -> None:
    budget = Clock().budget()
    budget.observe(status, headers)
    assert budget.held_s == pytest.approx(held_s, abs=1)


async def test_a_hold_stops_those_that_had_their_turn_already() -> None:
    """Three requests are paced when the venue answers 429: none of them is sent."""
    budget = RestBudget("acme", "paced", RestLimit(weight_per_s=50.0, weight_burst=1), kept=Holds())
    tasks = [asyncio.create_task(budget.acquire(1, 5.0)) for _ in range(4)]
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, False, False, False]
    budget.observe(429, {"Retry-After": "3600"})
    outcomes = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TransportError}
    assert "the venue wants no request for 3600 s more" in str(outcomes[0])


async def test_a_short_hold_is_waited_for() -> None:
    budget = RestBudget(
        "acme", "short", RestLimit(weight_per_s=1_000.0, weight_burst=10), kept=Holds()
    )
    budget.observe(429, {"Retry-After": "0.05"})
    begun_s = asyncio.get_running_loop().time()
    await budget.acquire(1, 1.0)
    assert asyncio.get_running_loop().time() - begun_s >= 0.04


async def test_processes_share_what_the_venue_allows() -> None:
    clock = Clock()
    halves = [clock.budget(workers=2) for _ in range(2)]
    for budget in halves:
        await asyncio.wait_for(budget.acquire(50, 1.0), 1)  # half of the burst
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.gather(budget.acquire(1, 1.0)), 0.01)
