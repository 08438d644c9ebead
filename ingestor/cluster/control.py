"""Define the parent's requests to a running worker over its standard input, and the answers.

A request is one JSON line, `{"call": n, "do": ...}`; the answer is one line on standard output,
`{"answer": n, ...}`. The pipe is the parent's alone, so that a configuration, which may hold
secrets, passes no port and no file. When the pipe ends, the parent is gone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from ingestor.app import Ingestor
from ingestor.app.reload import Configuration
from ingestor.config.load import load
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError, IngestError
from ingestor.sources.live.plan import Plan
from ingestor.sources.live.replan import replan
from ingestor.sources.registry import markets
from ingestor.telemetry import logs
from ingestor.telemetry.bulkheads import bulkheads

REQUEST_MAX: Final = 64 << 20
Streams = list[tuple[str, str, str, str]]  # venue, market, symbol, channel


class Dealt(msgspec.Struct, frozen=True):
    """Say how the streams of a plan are shared out. mine: this worker's. others: all others'."""

    mine: Streams
    others: Streams


class Request(msgspec.Struct, frozen=True):
    """call: its number. do: `streams` or `follow`. config: text of the configuration file."""

    call: int
    do: str
    config: str = ""
    dealt: Dealt | None = None
    dry_run: bool = False


def streams_of(plan: Plan) -> Streams:
    """Return all streams of a plan."""
    return [
        (planned.venue, planned.market, subscription.symbol, subscription.channel)
        for planned in plan
        for subscription in planned.subscriptions
    ]


def dealt_share(plan: Plan, dealt: Dealt, index: int, workers: int) -> Plan:
    """Return one worker's part of a plan, on connections of its own.

    Args:
        plan: the whole.
        dealt: what the worker carries.
        index: which one it is, from 0.
        workers: how many there are.
    """
    nothing = replace(plan.share(index, workers), connections=())
    return replan(nothing, plan.only({*dealt.mine})).plan


@dataclass(frozen=True, slots=True)
class WorkerControl:
    """Answers the parent. put: writes one object as a line of standard output."""

    ingestor: Ingestor
    put: Callable[[Any], None]

    async def run(self, file: BinaryIO) -> None:
        """Answer until the parent is gone; then end the process in order. file: the pipe's end."""
        reader = asyncio.StreamReader(REQUEST_MAX)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        while line := await reader.readline():
            await self._take(line)
        self.ingestor.stop()

    async def _take(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.MsgspecError as failure:
            bulkheads.bug("reload", failure)
            return
        try:
            self.put({"answer": request.call, **await self._answer(request)})
        except IngestError as failure:
            is_config = isinstance(failure, ConfigError)
            self.put({"answer": request.call, "error": str(failure), "is_config": is_config})

    async def _answer(self, request: Request) -> dict[str, Any]:
        plan = self.ingestor.planned.plan
        if request.do != "follow" or request.dealt is None:
            return {"streams": streams_of(plan)}
        mine, others = {*request.dealt.mine}, {*request.dealt.others}

        def carries(stream: tuple[str, str, str, str]) -> bool:
            """Return True if this worker carries a stream.

            `is_mine` deals streams that were listed while running.
            """
            return stream in mine or (stream not in others and plan.is_mine(":".join(stream[:3])))

        configuration = Configuration(
            lambda: _parsed(request.config),
            "",
            logs.configure,
            lambda whole: whole.only_where(carries),
        )
        return await self.ingestor.reloads.reload(
            dry_run=request.dry_run, configuration=configuration
        )


def _parsed(text: str) -> Config:
    """Read a configuration that is in no file. Raises ConfigError."""
    memory = os.memfd_create("configuration")
    try:
        os.write(memory, text.encode())
        return load(Path(f"/dev/fd/{memory}"), markets())
    finally:
        os.close(memory)
