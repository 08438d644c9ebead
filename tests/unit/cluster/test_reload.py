"""ingestor.cluster.reload: the parent's part, with workers that answer as a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingestor.app.planning import Planned, make_planned
from ingestor.app.reload import Configuration, Reloads
from ingestor.cluster.control import Dealt, Streams, streams_of
from ingestor.cluster.reload import WorkersFollower
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError, ReloadRefused
from tests.unit.app.venues import Venue, catalogue, config, serving


class Worker:
    """A worker. silent: it gives no answer to `follow`. error: or this one."""

    def __init__(self, index: int, streams: Streams) -> None:
        self.index = index
        self.streams = streams
        self.connections = 1
        self.is_up = True
        self.silent = self.killed = False
        self.error = ""
        self.told: list[Mapping[str, Any]] = []

    async def call(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if request["do"] == "streams":
            return {"streams": [list(one) for one in self.streams]}
        if self.silent:
            raise ReloadRefused("it does not answer")
        self.told.append(request)
        step = {"action": "change", "connection": 1}
        found = {"subscribe": 1, "unsubscribe": 2, "keep": 3, "steps": [step]}
        return {"error": self.error} if self.error else found

    def kill(self) -> None:
        self.killed = True


class Parent:
    """Two workers, and what starts begin with."""

    def __init__(self, config: Config, planned: Planned, file: Path) -> None:
        streams = streams_of(planned.plan)
        half = len(streams) // 2
        self.workers = [Worker(0, streams[:half]), Worker(1, streams[half:])]
        self.renewed: list[tuple[str, Sequence[Dealt]]] = []
        self.config = config
        self.file = file
        file.write_text("one")
        follower = WorkersFollower(
            *(config, planned, file, self.workers),
            lambda text, shares: self.renewed.append((text, shares)),
            lambda: True,
        )
        self.reloads = Reloads(follower, Configuration(lambda: self.config, str(file)))


async def parent_of(tmp_path: Path, binance: Venue) -> Parent:
    async with catalogue(tmp_path) as source:
        wanted = config(binance.feed("BTCUSDT", "PEPEUSDT"))
        kept = wanted.catalogue.model_copy(update={"cache_dir": tmp_path})
        wanted = wanted.model_copy(update={"catalogue": kept})
        return Parent(wanted, await make_planned(wanted, source), tmp_path / "c.toml")


async def test_each_worker_is_told_its_part(tmp_path: Path) -> None:
    async with serving(("binance", "spot")) as (binance,):
        parent = await parent_of(tmp_path, binance)
        told = await parent.reloads.reload(dry_run=True)
        assert (told["subscribe"], told["unsubscribe"], told["keep"]) == (2, 4, 6)
        assert [step["worker"] for step in told["steps"]] == [0, 1]
        assert parent.renewed == []
        await parent.reloads.reload()
        ((text, shares),) = parent.renewed
        assert text == "one"
        for worker, share in zip(parent.workers, shares, strict=True):
            assert worker.streams == share.mine
            assert worker.told[-1]["dealt"] == share
            assert not {*share.mine} & {*share.others}


async def test_a_worker_that_is_down_begins_with_its_part(tmp_path: Path) -> None:
    async with serving(("binance", "spot")) as (binance,):
        parent = await parent_of(tmp_path, binance)
        parent.workers[1].is_up = False
        done = await parent.reloads.reload()
        assert done["applied"]
        assert parent.workers[1].told == []
        assert len(parent.renewed) == 1


@pytest.mark.parametrize("error", ["", "it failed"])
async def test_a_worker_that_does_not_follow_begins_anew(tmp_path: Path, error: str) -> None:
    async with serving(("binance", "spot")) as (binance,):
        parent = await parent_of(tmp_path, binance)
        bad = parent.workers[1]
        bad.silent, bad.error = not error, error
        with pytest.raises(ReloadRefused, match=f"worker 1: {error or 'it does not answer'}"):
            await parent.reloads.reload(dry_run=True)
        assert not bad.killed
        with pytest.raises(ReloadRefused, match="worker 1"):
            await parent.reloads.reload()
        assert (bad.killed, parent.workers[0].killed) == (True, False)


async def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    async with serving(("binance", "spot")) as (binance,):
        parent = await parent_of(tmp_path, binance)
        wanted = parent.config

        def read() -> Config:
            parent.file.write_text("two")
            return wanted

        changing = Configuration(read, str(parent.file))
        with pytest.raises(ConfigError, match="changed while it was read"):
            await parent.reloads.reload(configuration=changing)
        assert parent.renewed == []
