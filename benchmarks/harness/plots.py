"""Plots of a result: throughput and lag against connections, latency curves. PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Row = Mapping[str, Any]
_SIZE: Final = (6.4, 3.6)
_LAGS: Final = ("p50", "p75", "p90", "p95", "p99", "p99.9", "p100")


def write(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what the result has rows for; return the files."""
    rows: Sequence[Row] = result["results"]
    caption = f"{result['machine']['processor']}, {result['machine']['date']}"
    written: list[Path] = []
    steps = [row for row in rows if row["benchmark"] == "connections" and "lag_p99_ms" in row]
    if ladder := {row["connections"]: row for row in steps if row["step"] == "ladder"}:
        floor = [row for row in steps if row["step"] == "floor"]
        written += _save(_connections([*ladder.values()], floor, caption), folder / "connections")
    growth = [
        row for row in rows if row["benchmark"] == "connections" and row.get("step") == "growth"
    ]
    if growth:
        written += _save(_growth(growth, caption), folder / "cost_growth")
    curves = [row for row in rows if row["benchmark"] == "latency" and "p50" in row]
    if curves:
        written += _save(_latency(curves, caption), folder / "latency")
    return written


def _connections(rows: Sequence[Row], floor: Sequence[Row], caption: str) -> Figure:
    figure, axes = plt.subplots(figsize=_SIZE)
    counts = [row["connections"] for row in rows]
    for name, label in (("lag_p50_ms", "p50"), ("lag_p99_ms", "p99"), ("lag_p999_ms", "p99.9")):
        axes.plot(counts, [row[name] for row in rows], marker="o", label=f"lag {label}")
    for row in floor:
        axes.plot(row["connections"], row["lag_p99_ms"], "kx", label="p99 of the floor")
    axes.set(xscale="log", yscale="log", xlabel="connections", ylabel="ms, send time to ack")
    other = axes.twinx()
    other.plot(counts, [row["messages_per_s"] for row in rows], "k--", marker="s", label="messages")
    other.set(ylabel="messages/s")
    axes.legend(loc="upper left")
    axes.set_title(caption, fontsize=8)
    return figure


def _growth(rows: Sequence[Row], caption: str) -> Figure:
    figure, axes = plt.subplots(figsize=_SIZE)
    names = [f"{row['connections']:,} x {row['rate']:g}/s" for row in rows]
    axes.bar(names, [row["us_per_message"] for row in rows], width=0.5)
    axes.set(ylabel="CPU us per message")
    axes.set_title(caption, fontsize=8)
    return figure


def _latency(rows: Sequence[Row], caption: str) -> Figure:
    figure, axes = plt.subplots(figsize=_SIZE)
    for row in rows:
        axes.plot(_LAGS, [row[name] for name in _LAGS], marker="o", label=f"{row['percent']} %")
    axes.set(yscale="log", xlabel="percentile", ylabel="ms, send time to ack")
    axes.legend(title="of capacity")
    axes.set_title(f"{caption}; {rows[0]['broker']}", fontsize=8)
    return figure


def _save(figure: Figure, path: Path) -> list[Path]:
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    figure.tight_layout()
    for file in files:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)
    return files
