"""Commands around recordings: replay, serve, compact, repair."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingestor.cli.common import (
    EXIT_FAILURE,
    ConfigFile,
    ConfigOption,
    Json,
    complain,
    explain_connection_failure,
    load_config,
    print_json,
    time_ns_of,
    until_signal,
)

if TYPE_CHECKING:
    from ssl import SSLContext

    from ingestor.testbed.emulator.faults import Faults

Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", exists=True, help="Recordings, or folders of them."),
]
Venue = Annotated[
    str | None, typer.Option(help="Venue of recordings that don't say it themselves.")
]
Market = Annotated[str | None, typer.Option(help="Their market.")]
FaultChances = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        help="NAME=PROBABILITY per frame: drop, duplicate, reorder, delay, stall, disconnect, "
        "malformed; repeatable.",
    ),
]
CloseAtEnd = Annotated[
    bool, typer.Option("--close-at-end", help="Close connections when all was played.")
]
StandIn = Annotated[
    bool, typer.Option("--stand-in", help="Let a recorded depth or speed stand for any other.")
]
Tls = Annotated[
    bool, typer.Option("--tls", help="Serve wss and https, with a certificate made now.")
]


def register(app: typer.Typer) -> None:
    app.command()(replay)
    app.command()(serve)
    app.command()(compact)
    app.command()(repair)
    app.command()(refill)


def replay(
    paths: Paths,
    venue: Venue = None,
    market: Market = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First time: ISO 8601 UTC, or ns.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="First time that is left out.")] = None,
    venues: Annotated[list[str] | None, typer.Option("--only-venue", help="Repeatable.")] = None,
    symbols: Annotated[
        list[str] | None, typer.Option("--symbol", help="Venue's or canonical; repeatable.")
    ] = None,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", help="trades, quotes, book; repeatable.")
    ] = None,
    instruments: Annotated[
        Path | None,
        typer.Option(exists=True, help="Instrument list of a recording that has none."),
    ] = None,
    speed: Annotated[str, typer.Option(help="1, 10, ... times as recorded, or max.")] = "max",
    audit: Annotated[bool, typer.Option("--audit", help="To nothing (default).")] = False,
    kafka: Annotated[bool, typer.Option("--kafka", help="To Kafka.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="To Parquet files in this folder.")] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="Topic prefix of --kafka; default: `replay.` and the configured one."),
    ] = None,
    allow_live_topics: Annotated[
        bool, typer.Option("--allow-live-topics", help="Permit the configured topic prefix.")
    ] = False,
    config: ConfigOption = None,
    as_json: Json = False,
) -> None:
    """Replay recordings through the live decoder and books, and say what they hold.

    Several recordings are merged in the order of receipt. What precedes --from is replayed
    silently, so that books are warm. With --json the last line is one JSON object: frames, rows by
    kind, rejected, gaps, resets, books, digest, unaccounted. Exit status 1 if rows are
    unaccounted for.

    \b
    Examples:
      ingestor replay recordings --audit --json
      ingestor replay session.jsonl.zst --venue VENUE --market spot --symbol BTC-USDT
      ingestor replay recordings --kafka --prefix replay.one. --speed 10
      ingestor replay recordings --parquet ticks --from 2026-11-21T10:00:00Z

    \f
    Args:
        paths: Files or folders of recordings.
        venue: Venue of a recording that does not name it.
        market: Market of a recording that does not name it.
        start: First time: ISO 8601 UTC, or ns.
        end: First time that is left out.
        venues: Repeatable.
        symbols: Venue's or canonical; repeatable.
        channels: trades, quotes, book; repeatable.
        instruments: Instrument list of a recording that has none.
        speed: 1, 10, ... times as recorded, or max.
        audit: To nothing (default).
        kafka: To Kafka.
        parquet: To Parquet files in this folder.
        prefix: Topic prefix of --kafka; default: `replay.` and the configured one.
        allow_live_topics: Permit the configured topic prefix.
        config: Configuration file.
        as_json: Print JSON.
    """
    from ingestor.cli.replay import Target, replay_text, run_replay
    from ingestor.sources.replay.options import ReplayOptions

    if audit and (kafka or parquet):
        raise typer.BadParameter("--audit goes to nothing: leave it out", param_hint="--audit")
    options = ReplayOptions(
        paths=tuple(paths),
        venue=venue or "",
        market=market or "",
        start_ns=None if start is None else time_ns_of(start),
        end_ns=None if end is None else time_ns_of(end),
        venues=frozenset(venues or ()),
        symbols=frozenset(symbols or ()),
        channels=frozenset(_channel(channel) for channel in channels or ()),
        instruments=instruments,
    )
    target = Target(kafka, parquet, prefix, allow_live_topics, config)
    report = run_replay(options, target, speed=_speed(speed))
    if as_json:
        print_json(report)
    else:
        typer.echo(replay_text(report))
    if report["unaccounted"]:
        raise typer.Exit(EXIT_FAILURE)


def serve(
    paths: Paths,
    venue: Venue = None,
    market: Market = None,
    speed: Annotated[str, typer.Option(help="1, 10, ... times as recorded, or max.")] = "1",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes free ones.")] = 8765,
    faults: FaultChances = None,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 0,
    close_at_end: CloseAtEnd = False,
    stand_in: StandIn = False,
    tls: Tls = False,
) -> None:
    """Play recordings as the exchanges themselves, over websockets and REST, until stopped.

    Clients subscribe as the venue documents it and get the recorded frames. Each venue and market
    has a port of its own, from --port upwards; their addresses are printed, one JSON object each.
    What the recording can't serve (another depth, another speed) is refused as the venue would.
    With --tls the objects name the certificate that clients must trust, by SSL_CERT_FILE for some.

    \b
    Examples:
      ingestor serve recordings
      ingestor serve session.jsonl.zst --venue VENUE --market spot --speed max
      ingestor serve recordings --tls
      ingestor serve recordings --fault drop=0.001 --fault disconnect=0.0001 --seed 7

    \f
    Args:
        paths: Files or folders of recordings.
        venue: Venue of a recording that does not name it.
        market: Market of a recording that does not name it.
        speed: 1, 10, ... times as recorded, or max.
        host: Address to listen on.
        port: 0 takes free ones.
        faults: What goes wrong, and how often.
        seed: Of the faults.
        close_at_end: Close connections at the end of the recording.
        stand_in: Fill streams that are not recorded.
        tls: Serve wss and https.
    """
    from ingestor.model.errors import ListenFailed
    from ingestor.testbed.emulator.server import VenueEmulator
    from ingestor.testbed.emulator.server import serve as serve_recordings

    context, trusted = _certificate(host) if tls else (None, {})

    def tell(emulator: VenueEmulator) -> None:
        recording = emulator.recording
        about = {"venue": recording.venue, "market": recording.market}
        print_json({**about, "url": emulator.ws_url, "rest_url": emulator.rest_url, **trusted})

    serving = serve_recordings(
        paths,
        venue=venue,
        market=market,
        speed=_speed(speed) or float("inf"),
        faults=_faults(faults or (), seed),
        at_end="close" if close_at_end else "keep",
        host=host,
        port=port,
        stands_in=stand_in,
        tls=context,
        tell=tell,
    )
    try:
        asyncio.run(until_signal(serving))
    except OSError as failure:
        hint = "say --port 0 for free ones"
        raise ListenFailed(
            "the emulator", f"{host}:{port}", explain_connection_failure(failure), hint=hint
        ) from None


def compact(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", exists=True, help="Folder that holds raw/.")
    ],
    as_json: Json = False,
) -> None:
    """Derive Parquet files from the finished recordings below PATH, into PATH/ticks.

    Only hours that changed are written; doing it twice does nothing the second time.

    \b
    Example:
      ingestor compact recordings
    """
    from ingestor.sources.replay.compact import compact as compact_folder

    report = compact_folder(path, progress=None if as_json else typer.echo)
    for problem in report.problems.kept:
        complain(str(problem))
    if as_json:
        files = [str(file) for file in report.files]
        units = {"written": report.units, "unchanged": report.unchanged}
        print_json(
            {**units, "rows": report.rows, "files": files, "problems": report.problems.count}
        )
    else:
        hours = f"{len(report.units)} hours written, {report.unchanged} unchanged"
        typer.echo(f"{hours}, {report.rows:,} rows in {len(report.files)} files")


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
      ingestor repair recordings/raw/venue=VENUE/date=2026-11-21/hour=10/s1.jsonl.zst --json
    """
    from ingestor.model.timestamps import iso_text
    from ingestor.recording.repair import RepairReport, repair_all

    def sentence(one: RepairReport) -> str:
        if one.error:
            return f"ingestor: {one.error}"
        if not one.changed:
            return f"{one.path}: whole"
        cut = f"{one.bytes_cut:,} bytes cut" if one.cuts else "finished"
        reasons = "".join(f"; {piece.reason} at byte {piece.offset:,}" for piece in one.cuts)
        if one.unfinished and one.lines:
            until = iso_text(one.last_ts_ns)
            reasons += f"; the last is of {until}, a second after it may be lost"
        return f"{one.path or path}: {cut}, {one.lines:,} lines kept{reasons}"

    reports = repair_all(path)
    if as_json:
        print_json([{**asdict(report), "bytes_cut": report.bytes_cut} for report in reports])
    else:
        for report in reports:
            typer.echo(sentence(report), err=bool(report.error))
    if any(report.error for report in reports):
        raise typer.Exit(EXIT_FAILURE)


def refill(
    config: ConfigFile,
    path: Annotated[
        Path | None, typer.Option(exists=True, help="Recordings; default: recorder.path.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Repeatable; default: trades, liquidations. Never books."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    as_json: Json = False,
) -> None:
    """Publish rows that were shed in a long outage of Kafka, from the recording.

    The topics say what is missing: each GAP of cause `shed`. Its rows are published behind, flagged
    BACKFILL. The GAP is published again with that flag once its range is complete. Doing it twice
    fills nothing twice.

    \b
    Examples:
      ingestor refill config.toml --dry-run
      ingestor refill config.toml --kind trades --kind quotes

    \f
    Args:
        config: Configuration file.
        path: Folder of recordings.
        kinds: Channels whose rows are published.
        dry_run: Only say what is missing.
        as_json: Print JSON.
    """
    from ingestor.app.refill import DEFAULT_KINDS, refill_text
    from ingestor.app.refill import refill as refill_topics

    loaded = load_config(config)
    folder = path or (loaded.recorder.path.expanduser() if loaded.recorder else None)
    if folder is None:
        what = "the configuration has no [recorder]: say where recordings are"
        raise typer.BadParameter(what, param_hint="--path")
    wanted = tuple(kinds) if kinds else DEFAULT_KINDS
    report = asyncio.run(refill_topics(loaded, folder, wanted, dry_run=dry_run))
    for problem in report.problems:
        complain(problem)
    if as_json:
        print_json(report.to_json())
    else:
        typer.echo(refill_text(report, dry_run=dry_run))


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(
            f"{text!r} is neither a number above 0 nor max", param_hint="--speed"
        )
    return speed


def _certificate(host: str) -> tuple[SSLContext, dict[str, str]]:
    """Return the context of a server, and what is said of its certificate: where it is."""
    from tempfile import mkdtemp

    from ingestor.testbed.certificate import make_certificate

    context, path = make_certificate(Path(mkdtemp(prefix="ingestor-serve-")), host)
    return context, {"certificate": str(path)}


def _channel(text: str) -> str:
    from ingestor.model.row_classes import ROW_CLASSES
    from ingestor.model.suggest import nearest

    if text not in ROW_CLASSES.channels:
        what = f"unknown channel {text!r}; {nearest(text, ROW_CLASSES.channels)}"
        raise typer.BadParameter(what, param_hint="--channel")
    return text


def _faults(texts: tuple[str, ...] | list[str], seed: int) -> Faults:
    from ingestor.model.suggest import nearest
    from ingestor.testbed.emulator.faults import Fault, Faults

    chances: dict[str, Any] = {}
    for text in texts:
        name, _, chance = text.partition("=")
        if name not in set(Fault):
            what = f"unknown fault {name!r}; {nearest(name, Fault)}"
            raise typer.BadParameter(what, param_hint="--fault")
        try:
            chances[name] = float(chance)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is no NAME=PROBABILITY", param_hint="--fault"
            ) from None
    try:
        return Faults(seed=seed, **chances)
    except ValueError as failure:
        raise typer.BadParameter(str(failure), param_hint="--fault") from None
