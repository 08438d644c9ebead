"""Commands that run something until it is stopped: run, record, demo, simulate, dev-broker."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from ingestor.cli.common import (
    ConfigFile,
    ShardOption,
    configuration,
    explain_connection_failure,
    load_config,
    unless_signal,
    until_signal,
)

_STOP: Final = (signal.SIGINT, signal.SIGTERM)

Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.0, help="Stop after so long; for ever without.")
]
JsonResult = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object, the last line.")
]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(record)
    app.command()(demo)
    app.command()(simulate)
    app.command("dev-broker")(dev_broker)


def run(
    path: ConfigFile,
    seconds: Seconds = None,
    as_json: JsonResult = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that share the connections, one core each."),
    ] = None,
    shard: ShardOption = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Run the shards that Kafka gives to this worker.")
    ] = False,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    dealt: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the feeds of CONFIG into Kafka until stopped.

    SIGTERM or Ctrl-C stops reading, publishes what was read and ends with status 0; a second one
    leaves at once, with status 1, saying what was lost. At the end the ledger is printed. SIGHUP
    does what `ingestor reload` does.

    Several machines take one --shard each. Venues see them as several addresses: each keeps to
    the whole of what a venue allows an address.

    \b
    Examples:
      ingestor run config/demo.toml
      ingestor run config/demo.toml --workers 4
      ingestor run config/demo.toml --shard 0/3
      ingestor run prod.toml --cluster
      INGESTOR__KAFKA__ENCODING=binary ingestor run config/demo.toml --seconds 60 --json

    \f
    Args:
        path: Configuration file.
        seconds: Stop after so many seconds.
        as_json: Print JSON.
        workers: Processes that share the connections, one core each.
        shard: Only part I of N of the plan.
        cluster: Run the shards that Kafka gives to this worker.
        worker: Which worker of a parent this is; hidden.
        dealt: How the streams are shared out; hidden.
    """
    import uvloop

    from ingestor.app import Ingestor
    from ingestor.app.settings import session_history
    from ingestor.cli.lifecycle import run_until_stopped
    from ingestor.cli.workers import (
        config_of_shard,
        configuration_of_shard,
        dealt_from,
        planned_part,
        run_cluster,
        run_worker,
        run_workers,
    )
    from ingestor.sources.resolver import ResolvingLoop

    whole = load_config(path)
    if cluster and (workers is not None or shard is not None):
        raise typer.BadParameter(
            "says itself what runs: leave out --workers and --shard", param_hint="--cluster"
        )
    config = config_of_shard(whole, shard)
    streams = dealt_from(dealt) if dealt is not None else None

    async def main() -> int:
        if cluster:
            return await run_cluster(config, seconds=seconds, as_json=as_json)
        if worker is not None:
            return await run_worker(whole, path, worker, shard, streams)
        if workers is not None:
            return await run_workers(
                config, path, workers, shard=shard, seconds=seconds, as_json=as_json
            )
        planned = await planned_part(config, path, shard)
        history, source = session_history(config), configuration_of_shard(path, shard)
        ingestor = Ingestor(config, planned, history=history, configuration=source)
        return await run_until_stopped(ingestor, seconds=seconds, as_json=as_json)

    raise typer.Exit(uvloop.run(main(), loop_factory=ResolvingLoop))


def record(
    path: ConfigFile,
    folder: Annotated[
        Path | None, typer.Option("--path", help="Folder to record into, instead of recorder.path.")
    ] = None,
    seconds: Seconds = None,
    as_json: JsonResult = False,
) -> None:
    """Record the feeds of CONFIG as raw frames, without Kafka, until stopped.

    To record beside publishing, give the configuration of `ingestor run` a [recorder] section.

    \b
    Examples:
      ingestor record config/demo.toml --path recordings
      ingestor record config/demo.toml --path recordings --seconds 3600

    \f
    Args:
        path: Configuration file.
        folder: Folder to record into, instead of recorder.path.
        seconds: Stop after so many seconds.
        as_json: Print JSON.
    """
    import uvloop

    from ingestor.app import Ingestor, load_plan
    from ingestor.app.settings import session_history
    from ingestor.cli.lifecycle import run_until_stopped
    from ingestor.config.model import Config, RecorderConfig
    from ingestor.model.errors import ConfigError
    from ingestor.sources.resolver import ResolvingLoop

    def into_folder(config: Config) -> Config:
        if folder is None:
            return config
        recorder = config.recorder or RecorderConfig(path=folder)
        changed = {"recorder": recorder.model_copy(update={"path": folder})}
        return config.model_copy(update=changed)

    config = into_folder(load_config(path))
    if config.recorder is None:
        raise ConfigError("must be given", where=f"{path}: recorder.path", hint="or say --path")

    async def main() -> int:
        planned = await unless_signal(load_plan(config, str(path)))
        history = session_history(config, publish=False)
        source = configuration(path, into_folder)
        ingestor = Ingestor(config, planned, publish=False, history=history, configuration=source)
        return await run_until_stopped(ingestor, seconds=seconds, as_json=as_json)

    raise typer.Exit(uvloop.run(main(), loop_factory=ResolvingLoop))


def demo(
    seconds: Seconds = None,
    symbols: Annotated[int, typer.Option(min=1, max=5_000, help="Symbols of the venue.")] = 100,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages/s of each of 3 streams.")] = 10.0,
    as_json: JsonResult = False,
) -> None:
    """Run everything on this machine: a simulated venue, the ingestor, an embedded broker.

    The venue is served over real websockets; the broker is `ingestor dev-broker`, or the one that
    INGESTOR__KAFKA__BOOTSTRAP_SERVERS names. Exit status 0 only if every row is accounted for.

    \b
    Examples:
      ingestor demo
      ingestor demo --seconds 20 --json
      ingestor demo --symbols 1000 --rate 2

    \f
    Args:
        seconds: Stop after so many seconds.
        symbols: Symbols of the venue.
        rate: Messages/s of each of 3 streams.
        as_json: Print JSON.
    """
    import uvloop

    from ingestor.cli.demo import DemoOptions, run_demo

    config = load_config(None)
    options = DemoOptions(symbols, rate, seconds, as_json)
    raise typer.Exit(uvloop.run(run_demo(config, options)))


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 9400,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols of the venue.")] = 10,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Messages/s of a stream; 0 = all it can.")
    ] = 10.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the simulated venue alone, over real websockets, until stopped.

    Prints its addresses as one JSON object. config/demo.toml subscribes to it.

    \b
    Examples:
      ingestor simulate
      ingestor simulate --port 0 --symbols 1000 --rate 20

    \f
    Args:
        port: 0 takes a free one.
        symbols: Symbols of the venue.
        rate: Messages/s of a stream; 0 = all it can.
        host: Address to listen on.
    """
    import uvloop

    from ingestor.model.errors import ListenFailed
    from ingestor.testbed.simulated.simulator import serve
    from ingestor.testbed.simulated.state import SimulatorOptions

    options = SimulatorOptions(symbols=symbols, rate_per_s=rate, hosts=(host,), ports=(port,))
    try:
        uvloop.run(until_signal(serve(options, as_json=False)))
    except OSError as failure:
        raise ListenFailed(
            "the simulated venue",
            f"{host}:{port}",
            explain_connection_failure(failure),
            hint="say --port 0 for a free one",
        ) from None


def dev_broker(
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="NAME:PARTITIONS to create; repeatable.")
    ] = None,
) -> None:
    """Run the embedded broker until it is stopped: for trials, not for data.

    It is librdkafka's mock cluster: Kafka's protocol over TCP on a port of its choice, everything
    in memory, at most 5 MiB per partition, gone when it ends. Prints its address.

    \b
    Examples:
      ingestor dev-broker
      ingestor dev-broker --topic md.trades.v1:8
    """
    from ingestor.testbed.broker import DevBroker

    with DevBroker(dict(_topic(text) for text in topics or ())) as broker:
        # Blocked so that they wait for sigwait; the broker's process has started and keeps its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        typer.echo(broker.bootstrap_servers)
        signal.sigwait(_STOP)


def _topic(text: str) -> tuple[str, int]:
    name, _, partitions = text.rpartition(":")
    if not name or not partitions.isdecimal() or int(partitions) < 1:
        raise typer.BadParameter(f"{text!r} is no NAME:PARTITIONS", param_hint="--topic")
    return name, int(partitions)
