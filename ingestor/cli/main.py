"""The commands. `ingestor --help` is quick: each command imports what it needs when it runs.

Exit status, of all commands: 0 success or a clean stop; 1 a failure while running (the broker can't
be reached, a port is in use, the ledger doesn't balance); 2 the configuration or the arguments
can't be used. Whatever is expected to go wrong is one line on standard error; a traceback is a bug
of ours.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

from ingestor import __version__
from ingestor.cli import books as cli_books
from ingestor.cli import cluster as cli_cluster
from ingestor.cli import consume as cli_consume
from ingestor.cli import describe as cli_config
from ingestor.cli import recordings as cli_recording
from ingestor.cli import run as cli_run
from ingestor.cli.common import EXIT_FAILURE, complain, verdict
from ingestor.telemetry.output import drain

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
EPILOG: Final = "Exit status: 0 success or clean stop, 1 failure while running, 2 bad arguments."

app = typer.Typer(
    name="ingestor",
    help="Crypto market data from exchange websockets into Kafka, exactly and accountably.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # rich's show local variables, and secrets with them
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ingestor {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Crypto market data from exchange websockets into Kafka, exactly and accountably."""


for module in (cli_run, cli_config, cli_books, cli_consume, cli_recording, cli_cluster):
    module.register(app)


def main() -> int:
    """Run the command line; return the exit status."""
    _fill_standard_descriptors()
    try:
        return _run()
    finally:
        drain()


def _run() -> int:
    try:
        result = app(prog_name="ingestor", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = None  # or the interpreter flushes it once more
        return EXIT_FAILURE
    except Exception as failure:
        found = verdict(failure)
        if found is None:
            raise
        message, status = found
        complain(message)
        return status
    return result if isinstance(result, int) else 0


def _fill_standard_descriptors() -> None:
    """Open what the process was started without, or a socket would get the number and our text."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
