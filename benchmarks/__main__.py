"""`python -m benchmarks [NAME ...] [--quick] [--json] [--soak]`: run benchmarks, print one table.

Without names: all of them, within 20 minutes (--quick: 2). The table at the end has every headline
beside its target. With --json the last line of the output is one object: benchmark, machine,
results, headline. Results also go to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.harness import results as common
from benchmarks.harness import targets

# Name: about how many seconds a full run takes, and a quick one.
ALL: Final = {
    "decode": (60, 20),
    "profile": (12, 3),
    "books": (75, 5),
    "publish": (30, 8),
    "replay": (60, 15),
    "baseline": (150, 20),
    "throughput": (150, 30),
    "floor": (50, 12),
    "latency": (150, 10),
    "connections": (200, 14),
    "memory": (45, 15),
    "storm": (55, 6),
    "cluster": (75, 2),
}
SOAK_S: Final = 16 * 60
DOCS: Final = Path(__file__).parent.parent / "docs"
_ONE_RUN: Final = (
    "docs/benchmarks.md is written from one full run in which nothing failed; --docs-folder names "
    "another place for anything else"
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.names if name not in ALL]
    if unknown:
        print(common.unknown_name(unknown[0], list(ALL)), file=sys.stderr)
        return 2
    names: Sequence[str] = options.names or list(ALL)
    folder: Path | None = options.docs_folder or (DOCS if options.docs else None)
    if options.result is not None:
        return _write_document(orjson.loads(options.result.read_bytes()), folder or DOCS)
    if folder == DOCS and (options.names or options.quick):
        print(_ONE_RUN, file=sys.stderr)
        return 2
    flags = {"quick": options.quick, "soak": options.soak, "soak_minutes": options.soak_minutes}
    started_s = time.monotonic()
    report = {
        name: _run(name, flags, (place + 1, len(names)), time.monotonic() - started_s)
        for place, name in enumerate(names)
    }
    result = common.finish(
        report, quick=options.quick, soak=options.soak, seconds=time.monotonic() - started_s
    )
    if options.plots:
        importlib.import_module("benchmarks.harness.plots").write(result, common.RESULTS)
    print(f"== figures and targets ({result['seconds']:.0f} s)")
    judged = targets.judged(result["headline"], complete=not options.names)
    print(common.table_text(judged), flush=True)
    code = 1 if _failed(result) else 0
    if folder is not None:
        code |= _write_document(result, folder)
    if options.json:
        print(common.one_line(result))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the ingestor. docs/benchmarks.md explains every figure.",
        epilog="Examples: python -m benchmarks decode --quick; python -m benchmarks --json",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--quick", action="store_true", help="shorter runs, all within 2 minutes")
    parser.add_argument("--soak", action="store_true", help="the long runs of `memory` too")
    parser.add_argument("--soak-minutes", type=float, default=10.0, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--plots", action="store_true", help="also write PNG and SVG plots")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md anew")
    parser.add_argument("--docs-folder", type=Path, help="write it and its images there instead")
    parser.add_argument(
        *("--from", "--result"),
        type=Path,
        dest="result",
        help="write it from a result, run nothing",
    )
    return parser


def _failed(result: dict[str, Any]) -> bool:
    return any("failed" in row for row in result["results"])


def _write_document(result: dict[str, Any], folder: Path) -> int:
    """Write benchmarks.md and its images; return 2 for what the repository shouldn't show."""
    complete = {row["benchmark"] for row in result["results"]} >= set(ALL)
    if folder == DOCS and (result["quick"] or not complete or _failed(result)):
        print(_ONE_RUN, file=sys.stderr)
        return 2
    importlib.import_module("benchmarks.harness.report").write(result, folder)
    return 0


def _run(
    name: str, flags: dict[str, Any], place: tuple[int, int], elapsed_s: float
) -> dict[str, Any]:
    """Run one benchmark, which is `run(quick=..., soak=...)` of its module, and print its table."""
    run = common.case(name).run
    accepted = inspect.signature(run).parameters
    about_s = ALL[name][flags["quick"]] + (SOAK_S if flags["soak"] and "soak" in accepted else 0)
    print(
        f"== {name} ({place[0]} of {place[1]}, about {about_s} s; {elapsed_s:.0f} s so far)",
        flush=True,
    )
    started_s = time.monotonic()
    outcome: dict[str, Any]
    try:
        outcome = run(**{key: flags[key] for key in flags if key in accepted})
    except Exception as failure:  # noqa: BLE001  # the others' results are worth having
        traceback.print_exc()
        outcome = {"results": [{"failed": f"{failure!r:.200}"}], "headline": {}}
    outcome["seconds"] = round(time.monotonic() - started_s, 1)
    print(common.table_text(outcome["results"]))
    print(f"   ({outcome['seconds']} s)\n", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
