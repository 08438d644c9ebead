"""Writes docs/benchmarks.md from a result: `python -m benchmarks --docs`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import plots

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
IMAGES: Final = DOCUMENT.parent / "images"

# name in the headline, what it is, target, whether more is better
TARGETS: Final = (
    ("decode_trades_per_s", "trades decoded and sealed per second", 800_000, True),
    ("decode_levels_per_s", "book levels decoded and sealed per second", 2_000_000, True),
    ("levels_per_s", "levels per second through decoding, books and proof", 1_200_000, True),
    ("baseline_ratio_trades_json", "trades, JSON, over the afternoon's pipeline", 5.0, True),
    ("baseline_ratio_trades_binary", "trades, binary, over the same", 9.0, True),
    ("baseline_ratio_books", "20-level books, binary, over the same", 3.0, True),
    ("cpu_per_message_over_floor", "CPU per message over the floor, binary", 1.8, False),
    ("cpu_per_message_over_floor_json", "the same, JSON", 2.0, False),
    ("connections_per_core", "connections x 10 msg/s on one core, lag p99 <= 100 ms", 10_000, True),
    ("cost_growth_1k_to_10k", "CPU per message, 10,000 over 1,000 connections", 1.15, False),
    ("kib_per_connection_plain", "KiB per idle connection", 25, False),
    ("kib_per_connection_tls", "KiB per idle connection, TLS", 65, False),
    ("lag_p99_ms_half_load", "lag p99 at half the capacity, ms", 25, False),
    ("storm_back_s", "seconds until 99 % of 5,000 cut connections are back", 60, False),
)

HEAD: Final = """# Benchmarks

Written by `python -m benchmarks --docs`; change the benchmarks, not this file. `make bench` prints
the same tables within 20 minutes, `python -m benchmarks NAME --quick` one of them within seconds,
`--json` adds one object as the last line, `--soak` the long runs of `memory`.

Only ratios travel between machines. Load server, broker and ingestor are processes of their own on
one machine; what they take from each other shows in figures per wall second, hardly in those per
CPU-second of the ingestor's own process. Of several turns the best counts: a busy machine only
adds.
"""

REST: Final = """## Where the rest of the time goes

The long-term goal is a million ticks per second and core. What the libraries alone cost for one
Binance trade of 136 bytes, measured on this machine with nothing else around them:

| part | ns |
|---|---|
| picows: read, unmask, callback into Python, payload copied | 100 |
| JSON parse (msgspec into a typed struct; orjson into dicts: 480) | 270 |
| two decimal texts -> int64, exact, vectorised | 220 |
| encoding: JSON by templates 500, binary 15 | 15-500 |
| lz4 and record batch, per record in JSON, per flush in binary | 5-250 |

That is a floor of 0.6 us (binary) and 1.3 us (JSON) before a line of ours runs: between the
callback and the sealed row lie one method call each for connection, session, adapter and buffer,
and one `struct.pack`. Of the 1,400 ns of a decoded and sealed trade 270 are the parse, 180 its six
fields (hashing the symbol, integers), 420 `TickBuffer.trade` with texts that must live until the
flush, 150 the session, 230 sealing. Keeping the parsed structs until the flush, and reading their
fields by columns there, would save about 400 of them. A decoder that reads frames into columns
without making Python objects would halve the rest; it would have to be written in C for each venue.
"""


def write(result: Mapping[str, Any]) -> None:
    """Write the document and its images from one result of all benchmarks."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    images = [file for file in plots.write(result, IMAGES) if file.suffix == ".svg"]
    for file in IMAGES.glob("*.png"):
        if file.with_suffix(".svg") in images:
            file.unlink()
    parts = [HEAD, _machine(result), _targets(result["headline"]), REST]
    rows: Sequence[Mapping[str, Any]] = result["results"]
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == name]
        parts.append(_section(name, own, images))
    DOCUMENT.write_text("\n".join(parts), encoding="utf-8")


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    quick = " These are the figures of a `--quick` run." if result["quick"] else ""
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {versions}. {machine['date']}.{quick}\n"
    )


def _targets(headline: Mapping[str, Any]) -> str:
    lines = ["## Against the targets", "", "| figure | target | measured | |", "|---|---|---|---|"]
    for name, text, target, more in TARGETS:
        measured = headline.get(name)
        if measured is None:
            continue
        reached = measured >= target if more else measured <= target
        sign = ">=" if more else "<="
        verdict = "reached" if reached else "missed"
        lines.append(f"| {text} (`{name}`) | {sign} {target:,} | {measured:,} | {verdict} |")
    return "\n".join(lines) + "\n"


def _section(name: str, rows: Sequence[Mapping[str, Any]], images: Sequence[Path]) -> str:
    text = importlib.import_module(f"benchmarks.{name}").__doc__ or ""
    heads = list(dict.fromkeys(key for row in rows for key in row if key != "benchmark"))
    lines = [f"## {name}", "", text.strip(), "", _line(heads), _line(["---"] * len(heads))]
    lines += [_line([_cell(row.get(head, "")) for head in heads]) for row in rows]
    for image in images:
        if image.stem == name or (name == "connections" and image.stem == "cost_growth"):
            lines += ["", f"![{image.stem}](images/{image.name})"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
