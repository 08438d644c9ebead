"""Commands of a cluster of many machines: cluster init, plan, apply, status."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.common import (
    EXIT_FAILURE,
    ConfigFile,
    Json,
    complain,
    load_config,
    print_json,
    unless_signal,
)

if TYPE_CHECKING:
    from ingestor.cluster.proposal import Proposal, Weights
    from ingestor.cluster.store import Cluster
    from ingestor.config.model import Config

Weighing = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help='JSON file: messages per second by instrument key; or "measured" by the workers.',
    ),
]
Rebalance = Annotated[
    bool, typer.Option("--rebalance", help="Pack all connections anew, not new ones alone.")
]
Member = Annotated[str, typer.Argument(help="As `cluster status` names it.")]

_MEASURED = "measured"
_EPILOG = "Exit status: 0 done, 1 failure or refusal of the cluster, 2 bad arguments."


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Run many machines as one ingestor, dealt by Kafka.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command in (init, plan, apply, status, drain, fence):
        group.command()(command)
    app.add_typer(group, name="cluster")


def init(
    path: ConfigFile,
    shards: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Instead of what --workers-max gives.")
    ] = None,
    workers_max: Annotated[
        int | None, typer.Option(min=1, help="The most workers ever; cluster.workers by default.")
    ] = None,
) -> None:
    """Create the cluster's topics and set its group, once; doing it again changes nothing.

    The number of shards is fixed for the cluster's life: the power of two nearest to ten for each
    worker. A plan with fewer connections than shards leaves some empty.

    \b
    Examples:
      ingestor cluster init prod.toml
      ingestor cluster init prod.toml --workers-max 100

    \f
    Args:
        path: Configuration file.
        shards: Instead of what --workers-max gives.
        workers_max: The most workers ever; cluster.workers by default.
    """
    from ingestor.cluster.packing import SHARDS_MAX, shard_count
    from ingestor.cluster.setup import prepare

    config = load_config(path)
    wanted = shards or shard_count(workers_max or config.cluster.workers, SHARDS_MAX)
    for line in asyncio.run(unless_signal(prepare(config, wanted))):
        typer.echo(line)
    typer.echo(f"cluster {config.cluster.name} has {wanted} shards")


def plan(
    path: ConfigFile,
    weights: Weighing = None,
    rebalance: Rebalance = False,
    as_json: Json = False,
) -> None:
    """Show what `apply` would change, and what it means for the venues' limits.

    \b
    Examples:
      ingestor cluster plan prod.toml
      ingestor cluster plan prod.toml --weights measured --rebalance
      ingestor cluster plan prod.toml --weights rates.json --json

    \f
    Args:
        path: Configuration file.
        weights: File with the weights of streams.
        rebalance: Move connections so that shards are even.
        as_json: Print JSON.
    """
    found, _ = asyncio.run(unless_signal(_propose(path, weights, rebalance=rebalance)))
    _show(found, as_json=as_json)


def apply(
    path: ConfigFile,
    weights: Weighing = None,
    rebalance: Rebalance = False,
    expect: Annotated[
        int | None, typer.Option("--expect", help="Only if this is the newest revision.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the next revision of the plan; the workers follow it.

    One transaction: either all of it is there, or nothing. Of two at once, one fails.

    \b
    Examples:
      ingestor cluster apply prod.toml
      ingestor cluster apply prod.toml --expect 7 --json

    \f
    Args:
        path: Configuration file.
        weights: File with the weights of streams.
        rebalance: Move connections so that shards are even.
        expect: Only if this is the newest revision.
        as_json: Print JSON.
    """
    from ingestor.app.settings import kafka_settings
    from ingestor.cluster.store import write_plan

    async def main() -> Proposal:
        found, config = await _propose(path, weights, rebalance=rebalance)
        expected = found.revision - 1 if expect is None else expect
        settings, name = kafka_settings(config.kafka), config.cluster.name
        await write_plan(settings, name, found.changes, expected)
        return found

    _show(asyncio.run(unless_signal(main())), as_json=as_json)


def status(path: ConfigFile, as_json: Json = False) -> None:
    """Show who owns which shard, in what state, at which revision.

    Exit status 1 when a shard is not live, or its plan is half-written.

    \b
    Examples:
      ingestor cluster status prod.toml
      ingestor cluster status prod.toml --json
    """
    from ingestor.cluster.report import report_of, report_text

    config, cluster = asyncio.run(unless_signal(_read(path)))
    found = report_of(cluster, _members(config))
    if as_json:
        print_json(found)
    else:
        typer.echo(report_text(found))
    if found["not_live"] or found["half_written"]:
        raise typer.Exit(EXIT_FAILURE)


def drain(path: ConfigFile, member: Member) -> None:
    """Have a worker give its shards away without a hole, and end.

    \b
    Examples:
      ingestor cluster drain prod.toml node7
    """
    _command(path, member, "drain")
    typer.echo(f"{member} gives its shards away; `ingestor cluster status` shows how far it is")


def fence(path: ConfigFile, member: Member) -> None:
    """Have Kafka refuse whatever a worker still sends. A healthy one begins a new life.

    \b
    Examples:
      ingestor cluster fence prod.toml node7
    """
    from ingestor.app.settings import kafka_settings
    from ingestor.cluster.fencing import fence_member

    async def main() -> int:
        config, cluster = await _read(path)
        return await fence_member(kafka_settings(config.kafka), cluster, member)

    count = asyncio.run(unless_signal(main()))
    typer.echo(f"{member} is fenced: {count} shards wait for others")


def _command(path: Path, member: str, what: str) -> None:
    from ingestor.app.settings import kafka_settings
    from ingestor.cluster.store import check_member, write_command

    async def main() -> None:
        config, cluster = await _read(path)
        check_member(cluster, member)
        await write_command(kafka_settings(config.kafka), member, what)

    asyncio.run(unless_signal(main()))


async def _read(path: Path) -> tuple[Config, Cluster]:
    from ingestor.app.settings import kafka_settings
    from ingestor.cluster.store import read_cluster

    config = load_config(path)
    return config, await read_cluster(kafka_settings(config.kafka), config.cluster.name)


async def _propose(path: Path, weights: str | None, *, rebalance: bool) -> tuple[Proposal, Config]:
    from ingestor.app import load_plan
    from ingestor.cluster.proposal import propose

    known = {} if weights in (None, _MEASURED) else _weights(Path(str(weights)))
    config, cluster = await _read(path)
    if weights == _MEASURED:
        known = _measured(cluster, config)
    planned = await load_plan(config, str(path))
    return propose(planned, cluster, config, known, rebalance=rebalance), config


def _measured(cluster: Cluster, config: Config) -> Weights:
    from ingestor.cluster.rates import weights_of
    from ingestor.model.errors import ClusterError

    found = weights_of(cluster.rates.values())
    if not found:
        hint = f"workers tell them every {config.cluster.rates_interval_s:g} s"
        raise ClusterError("no worker has measured rates yet", hint)
    return found


def _weights(path: Path) -> Weights:
    import orjson

    from ingestor.model.errors import ConfigError

    try:
        found = orjson.loads(path.read_bytes())
        known = {str(key): float(value) for key, value in found.items()}
    except (ValueError, TypeError, AttributeError) as failure:
        hint = 'write {"venue:market:SYMBOL": 900}'
        raise ConfigError(
            f"no JSON object of numbers: {failure}", where=str(path), hint=hint
        ) from None
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise ConfigError(f"can't be read: {reason}", where=str(path)) from None
    if any(not 0 < value < 1e12 for value in known.values()):
        raise ConfigError("a weight must be a positive number", where=str(path))
    return known


def _show(found: Proposal, *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    typer.echo(
        f"revision {found.revision}: {found.connections:,} connections, {found.streams:,} streams "
        f"in {found.shards:,} shards"
    )
    typer.echo(
        f"  {found.added:,} added, {found.removed:,} removed, {found.changed:,} changed, "
        f"{found.moved:,} moved to another shard"
    )
    typer.echo(
        f"  busiest worker {found.busiest:.2f} x the mean; expected takeover {found.takeover_s:g} s"
    )
    for pool in found.pools:
        limit = f"of {pool.limit:,}" if pool.limit else "without a limit"
        typer.echo(
            f"  {pool.pool}: {pool.connections:,} connections, "
            f"at most {pool.per_address:,} {limit} "
            "at one address with one worker fewer"
        )


def _members(config: Config) -> dict[str, Any]:
    from ingestor.cluster.setup import group_members

    try:
        return group_members(config)
    except Exception as failure:  # noqa: BLE001  # the claims tell most of it
        complain(f"the group can't be described: {failure}")
        return {}
