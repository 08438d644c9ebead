"""ingestor.cluster.control: what a worker answers, over a real pipe."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from ingestor.app import Ingestor
from ingestor.app.reload import Configuration
from ingestor.cluster.control import Dealt, WorkerControl, dealt_share, streams_of
from ingestor.model.errors import ConfigError, IngestError, ReloadRefused
from tests.unit.app.test_difference import plan


class Reloads:
    """Takes what the parent asks for. failure: raised instead of an answer."""

    def __init__(self) -> None:
        self.failure: IngestError | None = None
        self.plan = plan(range(9))
        self.feeds = 0

    async def reload(self, *, dry_run: bool, configuration: Configuration) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        self.plan, self.feeds = configuration.part(self.plan), len(configuration.read().feeds)
        return {"applied": not dry_run}


async def ask(reloads: Reloads, *requests: dict[str, Any] | bytes) -> tuple[list[Any], bool]:
    """Return a worker's answers, and whether it was stopped when the pipe ended."""
    answers: list[Any] = []
    stopped: list[bool] = []
    process = SimpleNamespace(
        planned=SimpleNamespace(plan=plan(range(2))),
        reloads=reloads,
        stop=lambda: stopped.append(True),
    )
    reading, writing = os.pipe()
    control = WorkerControl(cast("Ingestor", process), answers.append)
    with os.fdopen(reading, "rb") as file:
        task = asyncio.create_task(control.run(file))
        for request in requests:
            line = request if isinstance(request, bytes) else msgspec.json.encode(request)
            os.write(writing, line + b"\n")
        os.close(writing)
        await task
    return answers, stopped == [True]


async def test_streams_are_told_and_the_end_of_the_pipe_is_a_stop() -> None:
    answers, stopped = await ask(Reloads(), {"call": 7, "do": "streams"})
    assert [answer["answer"] for answer in answers] == [7]
    assert len(answers[0]["streams"]) == 6
    assert stopped


async def test_a_share_is_what_was_dealt_and_what_nobody_knows_of() -> None:
    reloads = Reloads()
    mine, *others = streams_of(reloads.plan)
    listed = others.pop()  # while running; this worker, which is alone, takes it
    request = {
        "call": 1,
        "do": "follow",
        "config": '[[feeds]]\nvenue = "okx"\nsymbols = ["BTC-USDT"]\n',
        "dealt": Dealt([mine], others),
    }
    answers, _ = await ask(reloads, request)
    assert answers == [{"answer": 1, "applied": True}]
    assert streams_of(reloads.plan) == [mine, listed]
    assert reloads.feeds == 1


@pytest.mark.parametrize("failure", [ConfigError("is wrong"), ReloadRefused("it stops")])
async def test_a_refusal_is_an_answer(failure: IngestError) -> None:
    reloads = Reloads()
    reloads.failure = failure
    request = {"call": 2, "do": "follow", "dealt": Dealt([], [])}
    answers, _ = await ask(reloads, request)
    is_config = isinstance(failure, ConfigError)
    assert answers == [{"answer": 2, "error": str(failure), "is_config": is_config}]


async def test_nonsense_is_reported_and_the_next_is_answered(
    expected_bugs: dict[str, int],
) -> None:
    answers, _ = await ask(Reloads(), b"{", {"call": 1, "do": "streams"})
    assert len(answers) == 1
    expected_bugs["reload"] = 1


def test_a_dealt_share_is_packed_on_connections_of_its_own() -> None:
    whole = plan(range(60))
    mine = streams_of(whole)[::2]
    share = dealt_share(whole, Dealt(mine, []), 1, 3)
    assert {*streams_of(share)} == {*mine}
    assert (share.index, share.parts, share.workers) == (1, 3, 3)
    assert len(share) <= len(whole)
