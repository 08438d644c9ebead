"""Commands around the configuration: config, check, feeds, doctor."""

# ruff: noqa: PLC0415 -- a command imports what it needs when it runs: `--help` is quick

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingestor.cli.common import (
    EXIT_FAILURE,
    EXIT_USAGE,
    ConfigFile,
    ConfigOption,
    Json,
    OptionalConfigFile,
    ShardOption,
    complain,
    load_config,
    part_of,
    print_json,
)

if TYPE_CHECKING:
    from ingestor.cli.plan import PlanReport


def register(app: typer.Typer) -> None:
    app.command()(check)
    app.command()(feeds)
    app.command()(symbols)
    app.command()(doctor)
    app.command()(capacity)
    app.command()(top)
    app.command()(reload)
    app.command()(profile)
    group = typer.Typer(
        help="Show, check and describe configurations.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("show")(config_show)
    group.command("check")(config_check)
    group.command("schema")(config_schema)
    group.command("init")(config_init)
    app.add_typer(group, name="config")


def check(path: ConfigFile, shard: ShardOption = None, as_json: Json = False) -> None:
    """Validate CONFIG and print the connection plan; no network.

    Says which connection carries which subscriptions, and why. Symbols are checked against the
    instrument lists that earlier runs left on this machine; where there is none, they are taken as
    they are. With --shard, what that part would run. Machines with the same digest of the plan
    made the same one.

    \b
    Examples:
      ingestor check config/demo.toml
      ingestor check config/demo.toml --shard 0/3
      ingestor check config/demo.toml --json

    \f
    Args:
        path: Configuration file.
        shard: Only part I of N of the plan.
        as_json: Print JSON.
    """
    from ingestor.cli.plan import offline_plan

    report: PlanReport = asyncio.run(offline_plan(load_config(path), str(path)))
    if shard is not None:
        report = report.of_shard(*part_of(shard, "--shard"))
    if as_json:
        print_json(report.to_json())
    else:
        typer.echo(report.to_text())


def capacity(
    path: ConfigFile,
    rates: Annotated[
        list[str] | None,
        typer.Option("--rate", help="CHANNEL=MESSAGES_A_SECOND of one stream; repeatable."),
    ] = None,
    peak: Annotated[
        float, typer.Option(min=1.0, help="How many times the average the busiest minutes bring.")
    ] = 5.0,
    result: Annotated[
        Path | None,
        typer.Option(exists=True, help="What `python -m benchmarks --json` printed here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how much CPU, memory, Kafka and recording CONFIG takes; no network.

    \b
    Examples:
      ingestor capacity config/demo.toml
      ingestor capacity config/demo.toml --rate trades=20 --rate book=50 --peak 10

    \f
    Args:
        path: Configuration file.
        rates: Messages a second of one stream, by channel.
        peak: The busiest minutes over the average.
        result: Figures of this machine.
        as_json: Print JSON.
    """
    import orjson

    from ingestor.app.capacity import capacity_of, capacity_text, measured, parse_rates
    from ingestor.cli.plan import offline_plan

    config = load_config(path)
    report: PlanReport = asyncio.run(offline_plan(config, str(path)))
    lines = result.read_bytes().strip().splitlines() if result is not None else []
    try:
        headline = orjson.loads(lines[-1])["headline"] if lines else {}
    except (LookupError, TypeError, ValueError):
        what = f"{result} does not end with the JSON of the benchmarks"
        raise typer.BadParameter(what, param_hint="--result") from None
    figures = measured(config.kafka.encoding, headline)
    found = capacity_of(report.plan, config, figures, parse_rates(rates or []), peak)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(capacity_text(found, peak))


def feeds(
    venue: Annotated[str | None, typer.Argument(help="One venue; without it, all.")] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/venues.md.")] = False,
) -> None:
    """List venues with their markets, channels and limits.

    The JSON has an object for each class of rows of each market.

    \b
    Examples:
      ingestor feeds
      ingestor feeds simulated --json

    \f
    Args:
        venue: One venue; without it, all.
        as_json: Print JSON.
        markdown: Print docs/venues.md.
    """
    from ingestor.cli.venues import describe_feeds, feeds_text, venues_page

    found = describe_feeds(venue)
    if as_json:
        print_json(found)
    elif markdown:
        typer.echo(venues_page(found), nl=False)
    else:
        typer.echo(feeds_text(found))


def symbols(
    venue: Annotated[
        str | None, typer.Argument(help="One venue; without it, the lists on this machine.")
    ] = None,
    pattern: Annotated[
        str, typer.Argument(help="Such as 'BTC-*'; without wildcards, a part of the symbol.")
    ] = "*",
    config: ConfigOption = None,
    as_json: Json = False,
) -> None:
    """List instruments: canonical symbol, the venue's own, type, tick, lot, multiplier, expiry.

    A list that was kept on this machine is used while it is fresh (`catalogue.ttl_s`); else the
    venue is asked over REST. With a configuration, addresses of its feeds are used.

    \b
    Examples:
      ingestor symbols simulated --config config/demo.toml
      ingestor symbols simulated 'S0000*-USD' --config config/demo.toml --json

    \f
    Args:
        venue: One venue; without it, the lists on this machine.
        pattern: Such as 'BTC-*'; without wildcards, a part of the symbol.
        config: Configuration file.
        as_json: Print JSON.
    """
    from ingestor.cli.common import unless_signal
    from ingestor.cli.symbols import list_symbols, symbols_text

    settings = load_config(config)
    found = asyncio.run(unless_signal(list_symbols(settings, venue, pattern)))
    if as_json:
        print_json([item.to_json() for item in found])
    else:
        typer.echo(symbols_text(found))


def doctor(path: OptionalConfigFile = None, as_json: Json = False) -> None:
    """Look at this machine and around: versions, limits, disk, the port, Kafka, venues, the clock.

    Exit status 1 if something would keep the program from running.

    \b
    Examples:
      ingestor doctor
      ingestor doctor config/demo.toml
    """
    from ingestor.cli.doctor import examine

    findings = asyncio.run(examine(load_config(path)))
    if as_json:
        print_json(
            [
                {"what": finding.what, "state": finding.state, "text": finding.text}
                for finding in findings
            ]
        )
    else:
        for finding in findings:
            typer.echo(f"{finding.state:<7} {finding.what:<16} {finding.text}")
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(EXIT_FAILURE)


def top(
    url: Annotated[
        str, typer.Argument(help="The status port of a running process.")
    ] = "http://127.0.0.1:9464",
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a running process does, as its own terminal would.

    A table on a terminal, else a line a second; with --json the whole snapshot on each line.

    \b
    Examples:
      ingestor top
      ingestor top http://ingest-1.example:9464
      ingestor top --once --json

    \f
    Args:
        url: The status port of a running process.
        once: Print once and end.
        as_json: Print JSON.
    """
    from ingestor.cli.common import until_signal
    from ingestor.cli.top import show_status

    asyncio.run(until_signal(show_status(url, once=once, as_json=as_json)))


def reload(
    target: Annotated[
        str, typer.Argument(metavar="[URL|PID]", help="The status port of a process, or its id.")
    ] = "http://127.0.0.1:9464",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the difference; change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Have a running process follow its configuration file, and print what that changes.

    Streams are subscribed to and given up at the venues' pace; no other stream is touched. A
    configuration that is wrong, or that changes what only a restart can, changes nothing: exit
    status 2. SIGHUP does the same and logs it.

    \b
    Examples:
      ingestor reload --dry-run
      ingestor reload
      ingestor reload 12345 --json

    \f
    Args:
        target: The status port of a process, or its id.
        dry_run: Print the difference; change nothing.
        as_json: Print JSON.
    """
    from ingestor.cli.reload import difference_text, request_reload

    content = asyncio.run(request_reload(target, dry_run=dry_run))
    if as_json:
        print_json(content)
    else:
        typer.echo(difference_text(content))


def profile(
    url: Annotated[
        str, typer.Argument(help="The status port of a process on this machine.")
    ] = "http://127.0.0.1:9464",
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=3600, help="How long to look.")
    ] = 30,
    output: Annotated[Path, typer.Option(help="The flame graph, SVG.")] = Path("profile.svg"),
    worker: Annotated[int, typer.Option(min=0, help="Which worker, where there are some.")] = 0,
) -> None:
    """Make a flame graph of a running process with py-spy, which hardly slows it.

    The process must be on this machine and yours; where the system forbids to look (ptrace_scope),
    run the command as root.

    \b
    Examples:
      ingestor profile
      ingestor profile http://127.0.0.1:9464 --seconds 60 --output flame.svg
      ingestor profile --worker 2

    \f
    Args:
        url: The status port of a process on this machine.
        seconds: How long to look.
        output: The flame graph, SVG.
        worker: Which worker, where there are some.
    """
    from ingestor.cli.profile import make_flame_graph

    asyncio.run(make_flame_graph(url, output, seconds=seconds, worker=worker))
    typer.echo(f"{output}: {seconds} s of the process")


def config_show(path: OptionalConfigFile = None, as_json: Json = False) -> None:
    """Print the configuration in force, defaults included and secrets starred.

    \b
    Examples:
      ingestor config show
      INGESTOR__KAFKA__ENCODING=binary ingestor config show config/demo.toml
    """
    from ingestor.config.schema import to_toml

    config = load_config(path)
    if as_json:
        typer.echo(config.model_dump_json())
    else:
        typer.echo(to_toml(config), nl=False)


def config_check(path: OptionalConfigFile = None) -> None:
    """Print all that is wrong with CONFIG, one line each.

    \b
    Example:
      ingestor config check config/demo.toml
    """
    from ingestor.app.planning import book_problems
    from ingestor.config.load import find_problems
    from ingestor.sources.registry import markets

    problems = find_problems(path, markets())
    if not problems:
        problems = book_problems(load_config(path), str(path or "the environment"))
    for problem in problems:
        complain(str(problem))
    if problems:
        raise typer.Exit(EXIT_USAGE)
    typer.echo(f"{path or 'the environment'}: nothing wrong")


def config_init(
    venue: Annotated[str, typer.Argument(help="A venue, or `demo`.")] = "demo",
    output: Annotated[
        Path | None, typer.Option(help="The file; without it, VENUE.toml in this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the commented example configuration of VENUE.

    \b
    Examples:
      ingestor config init
      ingestor config init VENUE --output feeds.toml

    \f
    Args:
        venue: A venue, or `demo`.
        output: The file; without it, VENUE.toml in this folder.
        force: Replace a file that is there.
    """
    from ingestor.config.examples import write_example

    path = output if output is not None else Path(f"{venue}.toml")
    write_example(venue, path, overwrite=force)
    typer.echo(f"{path}: written; `ingestor check {path}` prints its connections")


def config_schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference page instead.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Print the JSON Schema of configurations.

    \b
    Examples:
      ingestor config schema > ingestor.schema.json
      ingestor config schema --markdown --output docs/configuration.md
    """
    import orjson

    from ingestor.config import schema as forms

    text = (
        forms.markdown()
        if markdown
        else orjson.dumps(forms.json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"
    )
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
