"""Commands that read what was published: consume, audit."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ingestor.cli.common import (
    EXIT_FAILURE,
    ConfigOption,
    Json,
    Servers,
    load_config,
    print_json,
    until_signal,
)


def register(app: typer.Typer) -> None:
    app.command()(consume)
    app.command()(audit)


def consume(
    topic: Annotated[str, typer.Argument(help="Such as md.trades.v1.")],
    config: ConfigOption = None,
    servers: Servers = None,
    start: Annotated[
        str, typer.Option("--from", help="`beginning`, `end`, or a time: ISO 8601 UTC, or ns.")
    ] = "end",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many rows.")] = None,
    to_end: Annotated[bool, typer.Option("--to-end", help="Stop at the topic's end.")] = False,
    as_json: Json = False,
) -> None:
    """Print the rows of TOPIC, in either encoding; other topics as they are.

    \b
    Examples:
      ingestor consume md.trades.v1
      ingestor consume md.book.v1 --from beginning --to-end --json
      ingestor consume md.status.v1 --from beginning --bootstrap-servers kafka:9092

    \f
    Args:
        topic: Such as md.trades.v1.
        config: Configuration file.
        servers: Kafka's addresses, instead of the configured ones.
        start: `beginning`, `end`, or a time: ISO 8601 UTC, or ns.
        limit: Stop after so many rows.
        to_end: Stop at the topic's end.
        as_json: Print JSON.
    """
    from ingestor.app.settings import kafka_settings
    from ingestor.cli.topic_text import ConsumeOptions, print_topic

    kafka = kafka_settings(load_config(config, servers).kafka)
    options = ConsumeOptions(topic, _start(start), limit, to_end, as_json)
    asyncio.run(until_signal(print_topic(kafka, options)))


def audit(
    topics: Annotated[
        list[str] | None, typer.Argument(help="Topics of rows; without any, all three.")
    ] = None,
    config: ConfigOption = None,
    servers: Servers = None,
    start: Annotated[
        str, typer.Option("--from", help="`beginning`, or a time: ISO 8601 UTC, or ns.")
    ] = "beginning",
    as_json: Json = False,
) -> None:
    """Prove that topics hold every row that was published, or name the holes.

    Each row has a number in its session and partition; numbers whose records Kafka refused are
    declared in the status topic. Exit status 1 if rows are missing.

    \b
    Examples:
      ingestor audit
      ingestor audit md.trades.v1 --bootstrap-servers kafka:9092 --json

    \f
    Args:
        topics: Topics of rows; without any, all three.
        config: Configuration file.
        servers: Kafka's addresses, instead of the configured ones.
        start: `beginning`, or a time: ISO 8601 UTC, or ns.
        as_json: Print JSON.
    """
    from ingestor.app.settings import kafka_settings
    from ingestor.cli.topic_text import audit_text, audit_topics

    kafka = kafka_settings(load_config(config, servers).kafka)
    report = asyncio.run(audit_topics(kafka, topics or [], _start(start)))
    if as_json:
        from dataclasses import asdict

        content = {**asdict(report), "sessions": sorted(report.sessions)}
        print_json({**content, "complete": report.complete})
    else:
        typer.echo(audit_text(report))
    if not report.complete:
        raise typer.Exit(EXIT_FAILURE)


def _start(text: str) -> str | int:
    from ingestor.cli.common import time_ns_of

    words = {"beginning": "earliest", "end": "latest"}
    return words[text] if text in words else time_ns_of(text)
