"""The demo: a simulated venue and an embedded broker, each in a process of its own, and us."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any, Final

import orjson

from ingestor.app import Ingestor, load_plan
from ingestor.cli.common import unless_signal
from ingestor.cli.lifecycle import run_until_stopped
from ingestor.config.model import ENV_DELIMITER, ENV_PREFIX, Config, FeedConfig
from ingestor.model.errors import IngestError, TransportError
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.telemetry.output import put
from ingestor.testbed.broker import DevBroker

START_S: Final = 20.0
STREAMS_PER_CONNECTION: Final = 15
_BROKER: Final = f"{ENV_PREFIX}KAFKA{ENV_DELIMITER}BOOTSTRAP_SERVERS"
_PORT: Final = f"{ENV_PREFIX}HTTP{ENV_DELIMITER}PORT"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """symbols: each with trades, quotes and book. rate_per_s: messages of each stream."""

    symbols: int = 100
    rate_per_s: float = 10.0
    seconds: float | None = None
    as_json: bool = False


async def run_demo(config: Config, options: DemoOptions) -> int:
    """Run it; return the exit status. A broker that the environment names is used instead."""
    async with AsyncExitStack() as stack:
        venue = await stack.enter_async_context(_simulated_venue(options))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ingestor-demo-"))
        kafka = config.kafka
        if _BROKER not in os.environ:
            topics = {
                kafka.topic_prefix + item.topic: kafka.partitions for item in STANDARD_CLASSES
            }
            broker = stack.enter_context(DevBroker(topics))
            kafka = kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        http = config.http
        if _PORT not in os.environ or not http.port:
            http = http.model_copy(update={"port": free_port(http.host, http.port)})
        changed = config.model_copy(
            update={
                "kafka": kafka,
                "http": http,
                "catalogue": config.catalogue.model_copy(update={"cache_dir": Path(folder)}),
                "feeds": (_feed(venue),),
            }
        )
        ingestor = Ingestor(changed, await unless_signal(load_plan(changed)))
        put(_pointers(changed, is_embedded=_BROKER not in os.environ), err=options.as_json)
        return await run_until_stopped(ingestor, seconds=options.seconds, as_json=options.as_json)


def free_port(host: str, preferred: int) -> int:
    """Return the preferred port, or another one: a demo beside something else must start."""
    for port in (preferred, 0):
        with suppress(OSError), socket.create_server((host, port)) as server:
            found: int = server.getsockname()[1]
            return found
    return 0


def _pointers(config: Config, *, is_embedded: bool) -> str:
    """Return what a reader pastes to look at the ticks while they move."""
    servers = config.kafka.bootstrap_servers
    topic = config.kafka.topic_prefix + RowClass.TRADE.topic
    program = "ingestor" if which("ingestor") else os.path.relpath(sys.argv[0])
    kind = "embedded: it forgets everything at the end" if is_embedded else "yours"
    return (
        f"Kafka   {servers}  ({kind})\n"
        f"page    http://{config.http.host}:{config.http.port}/\n"
        f"trades  {program} consume {topic} --bootstrap-servers {servers}"
    )


def _feed(venue: dict[str, Any]) -> FeedConfig:
    return FeedConfig(
        venue="simulated",
        symbols=("*",),
        url=venue["addresses"][0],
        rest_url=venue["rest"],
        streams_per_connection=STREAMS_PER_CONNECTION,
    )


@asynccontextmanager
async def _simulated_venue(options: DemoOptions) -> AsyncIterator[dict[str, Any]]:
    """A process that ends with us: it stops when its standard input is closed."""
    arguments = ("--symbols", str(options.symbols), "--rate", str(options.rate_per_s))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ingestor.testbed.simulated.simulator", "--json", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,  # Ctrl-C must reach us alone
    )
    try:
        yield await _first_line(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _first_line(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
    except TimeoutError:
        process.kill()
        raise _did_not_start(f"silent for {START_S:.0f} s") from None
    if not line:
        raise _did_not_start("its process ended")
    about: dict[str, Any] = orjson.loads(line)
    return about


def _did_not_start(reason: str) -> IngestError:
    return TransportError("the simulated venue", f"did not start: {reason}")
