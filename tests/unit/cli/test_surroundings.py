"""What `ingestor doctor` finds beyond the process: each line says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from aiohttp import web

from ingestor.cli import surroundings
from ingestor.cli.surroundings import (
    cgroup_limits,
    examine_disk,
    examine_limits,
    examine_login,
    examine_venues,
)
from ingestor.config.model import Config

SECOND_VERSION = {
    "proc/self/cgroup": "0::/pod/box\n",
    "sys/fs/cgroup/pod/box/memory.max": "max\n",
    "sys/fs/cgroup/pod/memory.max": f"{300 << 20}\n",
    "sys/fs/cgroup/pod/box/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
}
FIRST_VERSION = {
    "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{2 << 30}\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
}


def config_of(**sections: Any) -> Config:
    feed = {"venue": "simulated", "symbols": ["*"], "url": "ws://127.0.0.1:9"}
    return Config.model_validate({"feeds": [feed | sections.pop("feed", {})], **sections})


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        (SECOND_VERSION, {"memory": 300 << 20, "cores": 0.5}),
        (FIRST_VERSION, {"memory": 2 << 30, "cores": 2.5}),
        ({"proc/self/cgroup": "0::/\n"}, {}),
        ({"proc/self/cgroup": "nonsense\n"}, {}),
        ({}, {}),
    ],
)
def test_the_strictest_group_counts(
    tmp_path: Path, files: dict[str, str], limits: dict[str, float]
) -> None:
    assert cgroup_limits(tree(tmp_path, files)) == limits


def test_limits_that_are_too_small_say_what_to_change(tmp_path: Path) -> None:
    memory, cpu = examine_limits(config_of(), tree(tmp_path, SECOND_VERSION))
    assert (memory.state, cpu.state) == ("failed", "warning")
    assert "300 MiB are less than the 416 MiB" in memory.text
    assert "lower budget.bytes" in memory.text
    assert "0.5 cores" in cpu.text
    small = config_of(budget={"bytes": 64 << 20})
    assert examine_limits(small, tmp_path)[0].state == "ok"


@pytest.mark.parametrize(
    ("recorder", "state", "words"),
    [
        ({"retention_age_h": 1}, "ok", "GiB free"),
        ({}, "warning", "set recorder.retention_age_h"),
        ({"retention_bytes": 1 << 60}, "warning", "less than recorder.retention_bytes"),
    ],
)
def test_the_disk_of_the_recorder(
    tmp_path: Path, recorder: dict[str, Any], state: str, words: str
) -> None:
    [found] = examine_disk(config_of(recorder={"path": tmp_path / "new", **recorder}))
    assert (found.state, words in found.text) == (state, True), found


def test_a_folder_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    [found] = examine_disk(config_of(recorder={"path": tmp_path}))
    assert found.state == "failed"
    assert "can't be written" in found.text
    assert examine_disk(config_of()) == []


async def test_a_login_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_LOGIN_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        servers = f"127.0.0.1:{listener.getsockname()[1]}"
        [found] = await examine_login(config_of(kafka={"bootstrap_servers": servers}))
    assert found.state == "failed"
    assert "is it a Kafka broker" in found.text


@pytest.fixture
async def venue() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A server whose clock and answer the test sets."""
    answer: dict[str, Any] = {"behind_s": 0.0, "status": 404}

    async def handle(_: web.Request) -> web.Response:
        date = formatdate(time() - answer["behind_s"], usegmt=True)
        return web.Response(status=answer["status"], headers={"Date": date})

    app = web.Application()
    app.router.add_route("*", "/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answer
    await runner.cleanup()


async def test_a_venue_that_answers_tells_the_time(venue: tuple[str, dict[str, Any]]) -> None:
    server, answer = venue
    config = config_of(feed={"rest_url": server})
    rest, clock = await examine_venues(config)
    assert (rest.state, clock.state) == ("ok", "ok")
    answer |= {"behind_s": 30.0, "status": 451}
    rest, clock = await examine_venues(config)
    assert (rest.state, clock.state) == ("warning", "warning")
    assert "HTTP 451: the venue refuses this address" in rest.text
    assert clock.text.startswith(("+29.", "+30."))
    assert "run chrony" in clock.text


async def test_a_venue_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"http://127.0.0.1:{listener.getsockname()[1]}"
    rest, clock = await examine_venues(config_of(feed={"rest_url": server}))
    assert (rest.state, clock.state) == ("failed", "warning")
    assert "check name server, firewall and proxy" in rest.text
