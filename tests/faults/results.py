"""The pytest plugin of the suite: rows and figures that tests record, parts of the long suite.

`--results FILE` writes what this session's tests showed; `--part i/4` keeps one part of the tests
marked `long`. A result has the row, the test, the commit and the date; results of other tests that
the file holds already are kept.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.matrix import ROWS, TESTS, named_tests

PART_MINUTES_MAX: Final = 40.0
RowRecorder = Callable[..., None]
_OUTCOMES = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--results", type=Path, help="write the rows that were shown to this file")
    group.addoption("--part", type=_part, help="i/n: one part of the tests marked long")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = {}


@pytest.fixture
def row(request: pytest.FixtureRequest) -> RowRecorder:
    """Record a figure: `row("K1", promised="resumes <= 5 s", measured="1.2 s")`.

    The test must be marked with the row. Latencies are recorded, not asserted: the machine may be
    busy. `met=False` says that the figure is not what is promised.
    """
    marked = _rows_of(request.node)

    def record(row_id: str, *, promised: str, measured: str, met: bool = True) -> None:
        assert row_id in marked, f"mark the test with rows({row_id!r})"
        figure = {"row": row_id, "promised": promised, "measured": measured, "met": bool(met)}
        request.node.user_properties.append(("figure", figure))

    return record


@pytest.hookimpl(trylast=True)  # when those of other markers have been left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        rows = _rows_of(item)
        unknown = [row_id for row_id in rows if row_id not in ROWS]
        assert not unknown, f"{item.nodeid}: no rows {unknown} in tests/faults/matrix.py"
        if rows:
            item.user_properties.append(("rows", rows))
        minutes = _minutes_of(item)
        if minutes and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(2 * 60 * minutes))
    part = config.getoption("part")
    if part is not None:
        number, count = part
        sizes: dict[str, float] = {}
        for item in items:
            test = test_of(item.nodeid)
            sizes[test] = max(sizes.get(test, 0.0), _minutes_of(item))
        chosen = parts(sizes, count)[number - 1]
        config.hook.pytest_deselected(
            items=[item for item in items if test_of(item.nodeid) not in chosen]
        )
        items[:] = [item for item in items if test_of(item.nodeid) in chosen]


def parts(minutes: Mapping[str, float], count: int) -> list[set[str]]:
    """Divide tests evenly: the longest first, each into the part with the least so far.

    Args:
        minutes: How long each test takes, with all its cases.
        count: Number of parts.
    """
    divided: list[set[str]] = [set() for _ in range(count)]
    totals = [0.0] * count
    for test in sorted(minutes, key=lambda name: (-minutes[name], name)):
        least = totals.index(min(totals))
        totals[least] += minutes[test]
        divided[least].add(test)
    return divided


def _minutes_of(item: pytest.Item) -> float:
    """How long a test takes with all its cases: `@pytest.mark.long(minutes=3)`."""
    mark = item.get_closest_marker("long")
    return float(mark.kwargs["minutes"]) if mark is not None else 0.0


def test_of(node_id: str) -> str:
    """A test's name without its parameters (and without the loop that it runs on)."""
    return node_id.split("[", 1)[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what each phase of a test says; called in the process that writes the file, too."""
    properties = dict(report.user_properties)
    if "rows" not in properties or _config is None:
        return
    outcome = _config.stash[_OUTCOMES].setdefault(
        report.nodeid, {"rows": properties["rows"], "passed": True, "ran": False, "figures": []}
    )
    outcome["passed"] &= report.passed
    outcome["ran"] |= report.when == "call" and (not report.skipped or hasattr(report, "wasxfail"))
    if report.when == "call":
        outcome["figures"] = [each for name, each in report.user_properties if name == "figure"]


_config: pytest.Config | None = None  # logreport is given none


def pytest_sessionstart(session: pytest.Session) -> None:
    global _config
    _config = session.config


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("results")
    if path is not None and not hasattr(session.config, "workerinput"):
        write(path, session.config.stash[_OUTCOMES])


def write(path: Path, outcomes: dict[str, dict[str, Any]]) -> None:
    """Add to a file what the tests of a session showed."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    now = {"date": dt.datetime.now(dt.UTC).date().isoformat(), "commit": _commit()}
    for node_id, outcome in sorted(outcomes.items()):
        if not outcome["ran"]:
            continue
        test = test_of(node_id)
        for row_id in outcome["rows"]:
            fresh = {"row": row_id, "fault": ROWS[row_id].fault, "test": test, **now}
            fresh |= {"passed": True, "cases": 0, "figures": []}
            result = results.setdefault((row_id, test), fresh)
            result["passed"] &= outcome["passed"]
            result["cases"] += 1
            result["figures"] += [
                {key: figure[key] for key in ("promised", "measured", "met")}
                for figure in outcome["figures"]
                if figure["row"] == row_id
            ]
    named = {(row_id, test) for row_id, tests in named_tests().items() for test in tests}
    kept = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    for result in kept:
        place = (result["row"], result["test"])
        if place in named:
            results.setdefault(place, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"results": [results[place] for place in sorted(results)]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _rows_of(item: pytest.Item) -> list[str]:
    return [row_id for mark in item.iter_markers("rows") for row_id in mark.args]


def _commit() -> str:
    """Name the commit that was tested; `+` where the tree had changes, `unknown` without git."""
    git = ("git", "-C", str(TESTS.parent))
    try:
        described = subprocess.run(
            [*git, "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    part = int(number), int(count)
    if not 1 <= part[0] <= part[1]:
        raise ValueError(text)
    return part
