"""Share options, the configuration, output, and errors in one line among commands."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from ingestor.model.errors import ConfigError, IngestError
from ingestor.telemetry.output import printable, put

if TYPE_CHECKING:
    from ingestor.app.reload import Configuration
    from ingestor.config.model import Config
    from ingestor.sources.live.plan import Plan

_Result = TypeVar("_Result")

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="TOML file; the environment goes before it.")
]
OptionalConfigFile = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG]", help="TOML file; without one, defaults and environment."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; without one, defaults and environment.")
]
Servers = Annotated[
    str | None, typer.Option("--bootstrap-servers", help="Instead of the configured ones.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only part I of N of the plan, I from 0."),
]

_EXTRA_OF: Final = {
    "confluent_kafka": "demo",
    "cryptography": "demo",
    "duckdb": "parquet",
    "pandas": "parquet",
    "polars": "parquet",
    "opentelemetry": "otel",
    "pyarrow": "parquet",
    "redis": "redis",
}


def load_config(path: Path | None, servers: str | None = None) -> Config:
    """Read the configuration and set logging up by it. Raises ConfigError: the last of what is
    wrong with it; what else is wrong was told before.

    servers: Kafka's addresses, which go before those of the file and the environment.
    """
    from ingestor.app import settings
    from ingestor.config.load import find_problems, ignored_variables, load, with_servers
    from ingestor.sources.registry import markets
    from ingestor.telemetry import logs

    for variable, meant in ignored_variables():
        hint = f"; did you mean {meant}?" if meant else ""
        complain(f"{variable} is no setting and is ignored{hint}")
    try:
        config = load(path, markets())
    except ConfigError:
        *others, last = find_problems(path, markets())
        for problem in others:
            complain(str(problem))
        raise last from None
    if servers is not None:
        config = with_servers(config, servers, "--bootstrap-servers")
    logs.configure(config.log, settings.secrets(config))
    return config


def configuration(
    path: Path,
    change: Callable[[Config], Config] = lambda config: config,
    part: Callable[[Plan], Plan] = lambda plan: plan,
) -> Configuration:
    """Return what a reload reads.

    Args:
        path: the file.
        change: makes what the command line changes of the file's content.
        part: returns what the process carries of a plan.
    """
    from ingestor.app.reload import Configuration
    from ingestor.config.load import load
    from ingestor.sources.registry import markets
    from ingestor.telemetry import logs

    def read() -> Config:
        return change(load(path, markets()))

    return Configuration(read, str(path), logs.configure, part)


def time_ns_of(text: str) -> int:
    """Return a time of the command line, ISO 8601 or ns, in ns since the epoch."""
    from ingestor.model.timestamps import time_ns

    try:
        return time_ns(text)
    except ConfigError:
        what = f"{text!r} is no time: write 2026-11-21T10:00:00Z, or ns since the epoch"
        raise typer.BadParameter(what) from None


def part_of(text: str, option: str) -> tuple[int, int]:
    """Return I and N of "I/N", I from 0. option: whose value it is, for the message."""
    index, _, parts = text.partition("/")
    if all(re.fullmatch(r"[0-9]{1,6}", item) for item in (index, parts)) and int(index) < int(
        parts
    ):
        return int(index), int(parts)
    what = (
        f"{text[:20]!r} is no I/N with I from 0 and below N: 0/4 is the first of four, 3/4 the last"
    )
    raise typer.BadParameter(what, param_hint=option)


def print_json(content: Any) -> None:
    """Print one JSON object or list on a line of its own. Waits for the reader."""
    typer.echo(_json(content))


def put_json(content: Any) -> None:
    """Print one JSON object or list on a line of its own, from an event loop: without waiting."""
    put(_json(content))


def _json(content: Any) -> str:
    import orjson

    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def complain(text: str) -> None:
    """Write a line for people to standard error, whether anybody reads it or not."""
    put(f"ingestor: {printable(' '.join(text.split()))}", err=True)


def verdict(failure: Exception) -> tuple[str, int] | None:
    """Return the sentence and the exit status of an error that may happen; None for a bug."""
    match failure:
        case ConfigError():
            return str(failure), EXIT_USAGE
        case IngestError():
            return str(failure), EXIT_FAILURE
        case ExceptionGroup():
            expected, bugs = failure.split((IngestError, OSError))
            if expected is not None and bugs is None:
                return verdict(expected.exceptions[0])
        case typer.TyperException():
            context = getattr(failure, "ctx", None)
            see = f" (see `{context.command_path} --help`)" if context else ""
            return f"{failure.format_message().rstrip('.')}{see}", EXIT_USAGE
        case ModuleNotFoundError():
            name = (failure.name or "").partition(".")[0]
            if name in _EXTRA_OF:
                hint = f"install market-data-ingestor[{_EXTRA_OF[name]}]"
                return f"this needs the package {name}; {hint}", EXIT_USAGE
        case OSError():
            names = [str(name) for name in (failure.filename, failure.filename2) if name]
            return ": ".join([*names, explain_connection_failure(failure)]), EXIT_FAILURE
    return None


def explain_connection_failure(failure: OSError) -> str:
    """Return the system's words alone: asyncio wraps them in a sentence of its own."""
    if failure.errno and failure.errno > 0:
        return os.strerror(failure.errno)
    return str(failure) or type(failure).__name__


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run something until it ends by itself, or by SIGTERM or SIGINT, which are a clean stop."""
    with suppress(typer.Exit):
        await unless_signal(work)


async def unless_signal(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` comes to.

    Raises typer.Exit with status 0 at SIGTERM or SIGINT: until now nothing was read, so a stop is
    clean.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise typer.Exit(0) from None
    finally:
        for item in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(item)
