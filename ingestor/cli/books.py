"""Commands about order books: books verify."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

from typing import Annotated

import typer

from ingestor.cli.common import (
    EXIT_FAILURE,
    ConfigFile,
    Json,
    load_config,
    print_json,
    unless_signal,
)


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Check order books against their venues.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(_group)
    group.command("verify")(verify)
    app.add_typer(group, name="books")


def _group() -> None:
    """Check order books against their venues."""


def verify(
    path: ConfigFile,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=1.0, help="Seconds for books to become valid."),
    ] = 30.0,
    as_json: Json = False,
) -> None:
    """Compare each book of CONFIG with an image that its venue gives over REST.

    Opens the connections of CONFIG's feeds for their books alone; no Kafka, nothing is written. A
    book is verified when an image equals one of its states, and contradicted when the image names
    an update after which the book was another one. Other books are unverifiable: an image may show
    a moment between two updates.

    Exit status 1 if an image contradicts a book. Of books that can't be compared the line says why.

    \b
    Examples:
      ingestor books verify feeds.toml
      ingestor books verify feeds.toml --timeout 60 --json

    \f
    Args:
        path: Configuration file.
        timeout_s: Seconds for books to become valid.
        as_json: Print JSON.
    """
    import uvloop

    from ingestor.app import load_plan
    from ingestor.app.book_verification import BookVerdict, for_books, verify_books
    from ingestor.sources.resolver import ResolvingLoop

    config = for_books(load_config(path))

    async def main() -> list[BookVerdict]:
        planned = await load_plan(config, str(path))
        return await verify_books(config, planned, timeout_s)

    async def until_done() -> list[BookVerdict]:
        return await unless_signal(main())

    verdicts = uvloop.run(until_done(), loop_factory=ResolvingLoop)
    if as_json:
        print_json([verdict.to_json() for verdict in verdicts])
    else:
        for verdict in verdicts:
            number = f"  update {verdict.number}" if verdict.number else ""
            detail = f"  {verdict.detail}" if verdict.detail else ""
            typer.echo(f"{verdict.outcome:<13} {verdict.key}{number}{detail}")
    if any(verdict.outcome == "contradicted" for verdict in verdicts):
        raise typer.Exit(EXIT_FAILURE)
