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

GOAL: Final = """## Where the rest of the time goes

The long-term goal is a million ticks per second and core: 1,000 ns each. Below are the stages of a
trade's life. What the libraries alone cost, reading the socket, parsing the JSON and converting two
decimal texts, is {floor:,} ns: {floor_rate:,} a second before a line of ours runs. The whole way
into a record batch is {binary:,} ns in binary ({binary_rate:,} a second) and {json:,} ns in JSON
({json_rate:,}). Beyond the libraries' part lie the calls for each frame in Python, from the
callback to the buffer, and the columns of each flush; in JSON, also a text for each record and its
compression. A decoder that reads frames into columns without making Python objects would save most
of the calls and part of the parse; it would have to be written in C for each venue.
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
    parts = [HEAD, "\n".join(_wrapped(_machine(result))) + "\n", _targets(headline)]
    if "profile_floor_ns" in headline:
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
    floor = headline["profile_floor_ns"]
    binary, json = (headline[f"profile_trade_ns_{encoding}"] for encoding in ("binary", "json"))
    heading, paragraph = GOAL.format(
        floor=floor,
        binary=binary,
        json=json,
        floor_rate=_rate(floor),
        binary_rate=_rate(binary),
        json_rate=_rate(json),
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
