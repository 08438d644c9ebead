"""ingestor.app.reload: turns, refusals and proposals. tests/e2e has whole processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ingestor.app.planning import make_planned
from ingestor.app.reload import Configuration, Proposal, Reloads, propose, unless
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError, ReloadRefused
from tests.unit.app.venues import catalogue, config, serving


class Follower:
    """A process that takes its time."""

    def __init__(self) -> None:
        self.is_running = True
        self.at_once = self.most = 0
        self.failure: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def propose(self, configuration: Configuration) -> Proposal:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.go.wait()
        await asyncio.sleep(0)
        self.at_once -= 1
        configuration.read()
        return None  # type: ignore[return-value]

    async def follow(self, proposal: Proposal, *, dry_run: bool) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        return {"subscribe": 1, "unsubscribe": 2, "keep": 3, "settings": []}


SOURCE = Configuration(Config, "c.toml")


async def test_reloads_take_turns_and_are_counted() -> None:
    follower = Follower()
    reloads = Reloads(follower, SOURCE)
    found = await asyncio.gather(*(reloads.reload(dry_run=one == 3) for one in range(4)))
    assert follower.most == 1
    assert [one["applied"] for one in found] == [True, True, True, False]
    assert reloads.counts == {"applied": 3, "refused": 0}


async def test_a_process_that_starts_stops_or_has_no_file_refuses() -> None:
    follower = Follower()
    with pytest.raises(ReloadRefused, match="no configuration file"):
        await Reloads(follower, None).reload()
    reloads = Reloads(follower, SOURCE)
    follower.is_running = False
    with pytest.raises(ReloadRefused, match="starting or stopping"):
        await reloads.reload()
    follower.is_running = True
    follower.go.clear()
    waiting = asyncio.create_task(reloads.reload())
    await asyncio.sleep(0.01)
    reloads.stop()
    with pytest.raises(ReloadRefused, match="stopping"):
        await waiting
    assert reloads.counts["refused"] == 2


async def test_a_bug_refuses_and_is_reported(expected_bugs: dict[str, int]) -> None:
    follower = Follower()
    follower.failure = RuntimeError("no")
    with pytest.raises(ReloadRefused, match="the log says why"):
        await Reloads(follower, SOURCE).reload()
    expected_bugs["reload"] = 1


async def test_requests_are_done_by_the_task_and_a_refusal_does_not_end_it() -> None:
    follower = Follower()
    reads = 0

    def read() -> Config:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise ConfigError("is wrong", where="c.toml")
        return Config()

    reloads = Reloads(follower, Configuration(read, "c.toml"))
    task = asyncio.create_task(reloads.run())
    for done in ({"applied": 0, "refused": 1}, {"applied": 1, "refused": 1}):
        reloads.request()
        async with asyncio.timeout(5):
            while reloads.counts != done:
                await asyncio.sleep(0)
    task.cancel()


async def test_work_ends_when_the_process_stops() -> None:
    stopping = asyncio.Event()

    async def quick() -> int:
        return 3

    assert await unless(stopping, quick()) == 3
    asyncio.get_running_loop().call_later(0.01, stopping.set)
    with pytest.raises(ReloadRefused):
        await unless(stopping, asyncio.sleep(60))


async def test_a_name_that_was_right_once_is_no_error_and_a_new_wrong_one_is(
    tmp_path: Path,
) -> None:
    async with serving(("binance", "spot")) as (binance,), catalogue(tmp_path) as source:
        before = config(binance.feed("BTCUSDT", "PEPEUSDT"))
        planned = await make_planned(before, source)
        assert planned.planner is not None
        (listed,) = planned.planner.lists.values()
        del listed.trading["PEPEUSDT"]
        same = Configuration(lambda: before, "c.toml")
        asked = binance.asked
        proposal = await propose(same, before, planned.planner, source)
        assert [one.name for one in proposal.planner.waiting] == []  # a newer list has it
        assert binance.asked == asked + 1
        wrong = config(binance.feed("BTCUSDT", "NONEUSDT"))
        with pytest.raises(ConfigError, match="no symbol 'NONEUSDT'"):
            await propose(Configuration(lambda: wrong, "c.toml"), before, planned.planner, source)


async def test_a_share_is_a_part_of_the_plan(tmp_path: Path) -> None:
    async with serving(("binance", "spot")) as (binance,), catalogue(tmp_path) as source:
        wanted = config(binance.feed("BTCUSDT"))
        planned = await make_planned(wanted, source)
        same = Configuration(
            lambda: wanted,
            "c.toml",
            part=lambda plan: plan.only_where(lambda stream: stream[3] == "trades"),
        )
        proposal = await propose(same, wanted, planned.planner, source)
        channels = [one.channel for each in proposal.plan for one in each.subscriptions]
        assert channels == ["trades"]
