"""What every benchmark shares: the machine, tables, results on disk."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import orjson

RESULTS: Final = Path(__file__).parents[1] / "results"
_PACKAGES: Final = ("picows", "websockets", "uvloop", "orjson", "msgspec", "numpy", "aiokafka")

# Cases whose module has another name than the benchmark.
_MODULES: Final = {"floor": "minimum_cost", "storm": "reconnect_storm"}


def case(name: str) -> ModuleType:
    """Import the module that measures a benchmark."""
    return importlib.import_module(f"benchmarks.cases.{_MODULES.get(name, name)}")


def machine() -> dict[str, Any]:
    """Return what a reader needs to compare: processor, cores, versions, date."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def progress(text: str) -> None:
    """Say on standard error what is being done now."""
    print(f"   ... {text}", file=sys.stderr, flush=True)


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as aligned text columns; keys of the first row are the heads."""
    if not rows:
        return "   (no rows)"
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads, *([_cell(row.get(head, "")) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "   " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def unknown_name(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; there are {', '.join(known)}"
    return f"no benchmark is called {name!r}{hint}"


def finish(
    report: Mapping[str, Mapping[str, Any]], *, quick: bool, soak: bool, seconds: float
) -> dict[str, Any]:
    """Write the results to disk; return the JSON object."""
    headline: dict[str, Any] = {}
    for outcome in report.values():
        headline.update(outcome["headline"])
    result = {
        "benchmark": "+".join(report),
        "quick": quick,
        "soak": soak,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "results": [
            {"benchmark": name, **row}
            for name, outcome in report.items()
            for row in outcome["results"]
        ],
        "headline": headline,
    }
    RESULTS.mkdir(exist_ok=True)
    name = "all" if len(report) > 1 else next(iter(report))
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return result


def one_line(result: Mapping[str, Any]) -> str:
    return orjson.dumps(result).decode()
