"""Commands that run something until it is stopped: dev-broker."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import signal
from typing import Annotated, Final

import typer

_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def register(app: typer.Typer) -> None:
    app.command("dev-broker")(dev_broker)


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
    from ingestor.edge.devbroker import DevBroker

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
