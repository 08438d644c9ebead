"""Writes docs/benchmarks.md from one result of all benchmarks: `python -m benchmarks --docs`.

Everything in it comes from the result, from the modules' docstrings and from the texts here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import plots, targets
from benchmarks.harness.results import case

Row = Mapping[str, Any]
LINE: Final = 100

HEAD: Final = """# Benchmarks

Written by `python -m benchmarks --docs`; change the benchmarks, not this file. `make bench` prints
the same tables within 20 minutes and all figures beside their targets at the end;
`python -m benchmarks --quick` does so within 2 minutes, `python -m benchmarks NAME` runs one of
them, `--json` adds one object as the last line, `--soak` the long runs of `memory`.

Only ratios travel between machines. Load server, broker and ingestor are processes of their own on
one machine; what they take from each other shows in figures per wall second, hardly in those per
CPU-second of the ingestor's own process. Of several turns the best counts: a busy machine only
adds.
"""

# Measured by hand, with another commit beside this one.
BY_TURNS: Final = """## By turns against the program without the compiled way

Rows per CPU-second of the ingestor, sockets to acknowledged records, the ledger balanced. Commit
1712b7c and this program by turns on two quiet cores, three turns of a window of 2 s of what the
benchmark `throughput` measures; the medians (2026-11-30). Only the ratios travel.

| frames | encoding | 1712b7c | now | ratio | wanted |
|---|---|---|---|---|---|
| trades | json | 415,806 | 1,675,792 | 4.0 | 3.8 |
| trades | binary | 764,208 | 1,965,026 | 2.6 | 3.1 |
| quotes | json | 363,068 | 1,782,088 | 4.9 | |
| quotes | binary | 842,623 | 2,061,784 | 2.4 | 3.4 |
| levels, 20 a frame | json | 1,175,493 | 3,750,786 | 3.2 | |
| levels, 20 a frame | binary | 1,805,346 | 3,900,574 | 2.2 | 2.3 |
| trades over TLS | json | 359,247 | 1,297,642 | 3.6 | 3 |
| trades over TLS | binary | 694,389 | 1,632,742 | 2.4 | 3 |

To have them again: `git worktree add ../before 1712b7c`, then in each of the two folders by turns
`python -m benchmarks throughput`. The goals of 1.2 million trades in JSON, 1.7 in binary and 3
million levels are reached; the ratios of the binary encoding are missed. What stands in the way:
of a trade's 510 ns in binary 277 to 362 are the stages of `profile`; the rest is the request (the
write of its bytes, a task, the answer), the readiness of sockets, and that all of it shares the
caches. One request carries about 2,700 rows in eight batches; larger ones would cost less and wait
longer.

Reading back, rows per CPU-second of the whole consumer from the embedded broker, 400,000 rows of
each class (`python -m benchmarks publish`, `read_rows_per_cpu_s`):

| | before, objects for records | now, whole batches |
|---|---|---|
| trades, json | 112,751 | 2,022,672 |
| quotes, json | 108,197 | 2,001,270 |
| levels, json | 593,402 | 5,525,414 |
| trades, binary | 1,424,292 | 8,850,241 |

(The column before is of a quick run, 100,000 rows, in which starting the consumer weighs more: for
binary rows that is most of the difference.)

Lag from the venue's send time to the acknowledgement, embedded broker, binary trades on 20
connections at 3,000 messages a second, by turns with the fixed linger of 8 ms. In two turns on a
quiet machine: p50 0.7 and 0.5 ms where it was 6.1 and 5.3, p99 5.7 and 0.7 ms where it was 12.2 and
11.5. While others used both cores: p50 1.0 and 1.2 ms where it was 7.0 and 7.1, p99 117 and 10.6 ms
where it was 32 and 14.1
([ADR 50](adr/0050-latency-follows-load.md)).

CPU time of replaying recordings of others through books, and the first pass, which finds out what
they carry, before it was compiled (commit a198acd) and now, by turns on two cores that other
programs used too, ms, the best of eight. `python -m benchmarks.cases.first_pass` prints the share.

| recording | frames | whole, before | first pass | whole, now | first pass |
|---|---|---|---|---|---|
| Binance spot, one symbol | 6,187 | 77 | 51 | 34 | 11 |
| Binance USD-M, one symbol | 14,092 | 206 | 105 | 118 | 36 |
| the same eight times over | 112,736 | 1,705 | 1,006 | 1,071 | 317 |
| Bybit linear, four symbols | 1,613 | 81 | 53 | 48 | 25 |
| the same eight times over | 12,904 | 397 | 203 | 306 | 108 |
| Coinbase, two symbols | 515 | 274 | 143 | 170 | 94 |
| OKX, three symbols | 205 | 42 | 22 | 27 | 13 |

Up to 32 MiB of text are read but once: the first pass then has the time that the second one saves,
and of the whole it costs 14 to 23 % where most frames have shapes (Binance, Kraken). It costs more
where the adapter must decode most frames (Coinbase, Bybit's tickers), and where there are trades
alone, which the second pass reads as fast as the first.
"""

GOAL: Final = """## Where the time goes

The goal is a million ticks per second and core: 1,000 ns each. Below are the stages of a trade's
life. The whole way into a record batch is {binary:,} ns in binary ({binary_rate:,} a second) and
{json:,} ns in JSON ({json_rate:,}) where the library is compiled, {binary_python:,} and
{json_python:,} ns without it. The floor of a design in C is about 350 ns for a saturated trade in
binary: 70 of the kernel, 80 to match the frame, 130 to encode, compress and check, and the rest of
a flush. A message that comes alone costs 2.5 to 3.3 us in C before anything is done with it, nearly
all of it TCP's ([ADR 36](adr/0036-frequent-frames-are-read-in-c.md)).
"""


def write(result: Mapping[str, Any], folder: Path) -> None:
    """Write folder/benchmarks.md, and its plots to folder/images."""
    images_folder = folder / "images"
    images_folder.mkdir(parents=True, exist_ok=True)
    images = [file for file in plots.write(result, images_folder) if file.suffix == ".svg"]
    for image in images:
        image.with_suffix(".png").unlink()
    (folder / "benchmarks.md").write_text(text(result, images), encoding="utf-8")


def text(result: Mapping[str, Any], images: Sequence[Path] = ()) -> str:
    """Return the document. images: plots to show, each in the section that it is named after."""
    headline: Mapping[str, Any] = result["headline"]
    sections: dict[str, list[Row]] = {}
    for row in result["results"]:
        sections.setdefault(row["benchmark"], []).append(row)
    machine = "\n".join(_wrapped(_machine(result))) + "\n"
    parts = [HEAD, machine, _targets(headline), BY_TURNS]
    if "profile_trade_ns_json" in headline:
        parts.append(_goal(headline))
        parts.append(_section("profile", sections.pop("profile"), images))
    parts += [_section(name, rows, images) for name, rows in sections.items()]
    return "\n".join(parts)


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    quick = " These are the figures of a `--quick` run." if result["quick"] else ""
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {versions}. {machine['date']}. The run took "
        f"{result['seconds'] / 60:.1f} minutes.{quick}"
    )


def _targets(headline: Mapping[str, Any]) -> str:
    lines = ["## Against the targets", "", "| figure | target | measured | |", "|---|---|---|---|"]
    misses: list[str] = []
    for target in targets.TARGETS:
        measured = headline.get(target.name)
        verdict = target.verdict(measured)
        cells = (f"{target.text} (`{target.name}`)", target.bound)
        lines.append(_line([*cells, "" if measured is None else f"{measured:,}", verdict]))
        if verdict == targets.MISSED and target.missed:
            misses += _wrapped(f"- `{target.name}`: {target.missed}.", "  ")
    if misses:
        lines += ["", "What stands in the way where a target is missed:", "", *misses]
    others = [row for row in targets.judged(headline, complete=False) if not row["target"]]
    if others:
        told = ", ".join(f"`{row['figure']}` {row['measured']:,}" for row in others)
        lines += ["", *_wrapped(f"Other figures: {told}.")]
    return "\n".join(lines) + "\n"


def _goal(headline: Mapping[str, Any]) -> str:
    binary, json = (headline[f"profile_trade_ns_{encoding}"] for encoding in ("binary", "json"))
    heading, paragraph = GOAL.format(
        binary=binary,
        json=json,
        binary_rate=_rate(binary),
        json_rate=_rate(json),
        binary_python=headline["profile_trade_ns_binary_in_python"],
        json_python=headline["profile_trade_ns_json_in_python"],
    ).split("\n\n")
    return "\n".join((heading, "", *_wrapped(paragraph))) + "\n"


def _wrapped(paragraph: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(paragraph.split()),
        LINE,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rate(ns: float) -> int:
    """Return how many fit into a second, to three digits."""
    return int(float(f"{1e9 / ns:.3g}"))


def _section(name: str, rows: Sequence[Row], images: Sequence[Path]) -> str:
    about = case(name).__doc__ or ""
    heads = list(dict.fromkeys(key for row in rows for key in row if key != "benchmark"))
    brokers = {row["broker"] for row in rows if row.get("broker")}
    if len(brokers) == 1:
        heads.remove("broker")
    lines = [f"## {name}", "", about.strip(), "", _line(heads), _line(["---"] * len(heads))]
    lines += [_line([_cell(row.get(head, "")) for head in heads]) for row in rows]
    if len(brokers) == 1:
        lines += ["", f"Broker: {brokers.pop()}."]
    for image in images:
        if image.stem == name or (name == "connections" and image.stem == "cost_growth"):
            lines += ["", f"![{image.stem}](images/{image.name})"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int | float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
