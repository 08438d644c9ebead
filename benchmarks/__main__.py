"""`python -m benchmarks [NAME ...] [--quick] [--json] [--soak]`: run benchmarks, print one table.

Without names: all of them, within 20 minutes (--quick: 2). With --json the last line of the output
is one object: benchmark, machine, results, headline. Results also go to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, Final

from benchmarks import common

NAMES: Final = (
    "decode",
    "books",
    "publish",
    "replay",
    "baseline",
    "throughput",
    "floor",
    "latency",
    "connections",
    "memory",
    "storm",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the ingestor. docs/benchmarks.md explains every figure.",
        epilog="Examples: python -m benchmarks decode --quick; python -m benchmarks --json",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="shorter runs, all within 2 minutes")
    parser.add_argument("--soak", action="store_true", help="the long runs of `memory` too")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--plots", action="store_true", help="also write PNG and SVG plots")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md anew")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        print(common.unknown_name(unknown[0], NAMES), file=sys.stderr)
        return 2
    names = options.names or NAMES
    report = {name: _run(name, quick=options.quick, soak=options.soak) for name in names}
    result = common.finish(report, quick=options.quick, plots=options.plots, docs=options.docs)
    if options.json:
        print(common.one_line(result))
    return 1 if any("failed" in row for row in result["results"]) else 0


def _run(name: str, *, quick: bool, soak: bool) -> dict[str, Any]:
    """Run one benchmark, which is `run(quick=..., soak=...)` of its module, and print its table."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    run = importlib.import_module(f"benchmarks.{name}").run
    accepted = inspect.signature(run).parameters
    flags = {"quick": quick, "soak": soak}
    outcome: dict[str, Any]
    try:
        outcome = run(**{key: flags[key] for key in flags if key in accepted})
    except Exception as failure:  # noqa: BLE001  # the others' results are worth having
        traceback.print_exc()
        outcome = {"results": [{"failed": f"{failure!r:.200}"}], "headline": {}}
    outcome["seconds"] = round(time.monotonic() - started, 1)
    print(common.table_text(outcome["results"]))
    print(f"   ({outcome['seconds']} s)")
    for key, value in outcome["headline"].items():
        print(f"   {key} = {value}")
    print(flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
