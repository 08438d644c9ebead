"""Commands around recordings: repair."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ingestor.cli_common import EXIT_FAILURE, Json, print_json


def register(app: typer.Typer) -> None:
    app.command()(repair)


def repair(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", exists=True, help="A recording, or a folder.")
    ],
    as_json: Json = False,
) -> None:
    """Make recordings that a crash or a full disk cut readable again, and say what was cut.

    At most the last compressed frame of a recording is lost. Exit status 1 if one of them can't be
    repaired.

    \b
    Examples:
      ingestor repair recordings
      ingestor repair recordings/raw/venue=okx/date=2026-11-21/hour=10/s1.jsonl.zst --json
    """
    from ingestor.edge.repair import RepairReport, repair_all

    def sentence(one: RepairReport) -> str:
        if one.error:
            return one.error
        if not one.changed:
            return f"{one.path}: whole"
        cut = f"{one.bytes_cut:,} bytes cut" if one.cuts else "finished"
        reasons = "".join(f"; {piece.reason} at byte {piece.offset:,}" for piece in one.cuts)
        return f"{one.path or path}: {cut}, {one.lines:,} lines kept{reasons}"

    reports = repair_all(path)
    if as_json:
        print_json([{**asdict(one), "bytes_cut": one.bytes_cut} for one in reports])
    else:
        for one in reports:
            typer.echo(sentence(one), err=bool(one.error))
    if any(one.error for one in reports):
        raise typer.Exit(EXIT_FAILURE)
