"""The suite's own machinery: rows, figures, parts, the document, and skips that are failures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.faults import report
from tests.faults.matrix import ROWS, TESTS, long_tests, named_tests
from tests.faults.results import PART_MINUTES_MAX, parts, write

ROOT = TESTS.parent


def run_pytest(
    *arguments: str, plugin: str = "tests.conftest", **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: text for key, text in os.environ.items() if key != "REQUIRE_ALL"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", plugin, "-c", os.devnull, *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_row_is_a_named_test() -> None:
    assert set(named_tests()) == set(ROWS)


def test_the_document_is_what_the_results_say() -> None:
    written = report.DOCUMENT.read_text(encoding="utf-8")
    assert written == report.render(report.load(), named_tests()), "run: make reliability"


def test_a_row_without_results_says_so(tmp_path: Path) -> None:
    named = {"K1": ["tests/a.py::test_a", "tests/a.py::test_b"], "K2": ["tests/a.py::test_c"]}
    common = {"row": "K1", "cases": 1, "commit": "c0ffee"}
    figure = {"promised": "resumes <= 5 s", "measured": "1.2 s", "met": True}
    for name, date, passed in (("old", "2026-11-01", False), ("new", "2026-11-02", True)):
        results = [
            {**common, "test": "tests/a.py::test_a", "date": date, "passed": passed, "figures": []},
            {**common, "test": "tests/a.py::test_gone", "date": date, "passed": False}
            | {"figures": [figure]},
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps({"results": results}))
    text = report.render(report.load(tmp_path), named)
    lines = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert lines["| K1"].endswith("| passed | 2 | 2026-11-02 | c0ffee |")
    assert "| not run yet | 1 |" in lines["| K2"]
    assert "| no test yet | 0 |" in lines["| K3"]


def test_figures_and_verdicts_reach_the_file(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.rows('K1', 'K9')\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_two(row, n):\n"
        "    row('K1', promised='<= 5 s', measured=f'{n} s')\n"
        "    assert n == 1\n"
        "@pytest.mark.rows('K2')\n"
        "def test_skipped():\n"
        "    pytest.skip('no broker')\n"
        "@pytest.mark.rows('K3')\n"
        "def test_unmarked(row):\n"
        "    row('K1', promised='', measured='')\n"
    )
    file = tmp_path / "out" / "results.json"
    run_pytest(str(tmp_path), "--results", str(file), "-n", "1", plugin="tests.faults.results")
    found = {result["row"]: result for result in json.loads(file.read_text())["results"]}
    assert set(found) == {"K1", "K9", "K3"}
    assert (found["K1"]["passed"], found["K1"]["cases"]) == (False, 2)
    figures = sorted(figure["measured"] for figure in found["K1"]["figures"])
    assert (figures, found["K9"]["figures"]) == (["1 s", "2 s"], [])
    assert not found["K3"]["passed"]


def test_results_of_other_tests_are_kept_while_these_exist(tmp_path: Path) -> None:
    [kept, *_] = named_tests()["K8"]
    file = tmp_path / "results.json"
    old = [
        {"row": "K8", "test": kept, "figures": []},
        {"row": "K8", "test": "tests/x.py::gone", "figures": []},
    ]
    file.write_text(json.dumps({"results": old}))
    [ours, *_] = named_tests()["K1"]
    outcome = {"rows": ["K1"], "passed": True, "ran": True, "figures": []}
    write(file, {f"{ours}[case]": outcome})
    written = json.loads(file.read_text())["results"]
    assert [(each["row"], each["test"]) for each in written] == [("K1", ours), ("K8", kept)]


SKIPS = {
    "tool": "def test_one():\n    pytest.skip('no promtool')\n",
    "mark": "@pytest.mark.skip(reason='never')\ndef test_one():\n    pass\n",
    "fixture": "@pytest.fixture\ndef tool():\n    pytest.skip('none')\n"
    "def test_one(tool):\n    pass\n",
    "module": "pytest.skip('no module', allow_module_level=True)\n",
}
PERMITTED = {
    "captures": "def test_one():\n    pytest.skip('no ../shared/captures')\n",
    "xfail": "@pytest.mark.xfail(reason='a bug')\ndef test_one():\n    assert not 'xfailed'\n",
}


def test_a_skip_fails_where_everything_is_required(tmp_path: Path) -> None:
    for name, body in (SKIPS | PERMITTED).items():
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{body}")
    options = (str(tmp_path), "--continue-on-collection-errors", "-rA")
    required = run_pytest(*options, REQUIRE_ALL="1")
    assert required.returncode == 1
    for name in SKIPS:
        assert re.search(rf"REQUIRE_ALL=1, but \S*test_{name}\.py\S* was skipped", required.stdout)
    for name in PERMITTED:
        assert not re.search(rf"REQUIRE_ALL=1, but \S*test_{name}\.py", required.stdout)
    assert run_pytest(*options).returncode == 0


def test_parts_are_even_complete_and_repeatable() -> None:
    sizes = (30, 20, 11, 9, 9, 5, 5, 3, 1, 1)
    minutes = {f"t.py::test_{number}": float(size) for number, size in enumerate(sizes)}
    divided = parts(minutes, 3)
    totals = [sum(minutes[test] for test in part) for part in divided]
    assert set.union(*divided) == set(minutes)
    assert sum(map(len, divided)) == len(minutes)
    assert max(totals) - min(totals) <= 3
    assert parts(dict(reversed(minutes.items())), 3) == divided


def test_a_part_of_the_long_suite_takes_forty_minutes_at_most() -> None:
    minutes = long_tests()
    assert minutes
    for part in parts(minutes, 4):
        assert sum(minutes[test] for test in part) <= PART_MINUTES_MAX
