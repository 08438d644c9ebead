"""Write docs/reliability.md from the committed results: `python -m tests.faults.report`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.faults.matrix import ROWS, SECTIONS, TESTS, Row, named_tests

RESULTS: Final = TESTS / "long" / "results"
DOCUMENT: Final = TESTS.parent / "docs" / "reliability.md"
Result = Mapping[str, Any]

_HEAD: Final = """\
# Reliability: what was tried, and what it cost

Written by `make reliability` from the files in `tests/long/results`; change the tests, not this
file. `make test-long PART=1/4` records a part of the long suite, and this the rows of `make test`:

    make test PYTEST_ARGS="-m 'rows and not long' --results tests/long/results/short.json"

Each test also asserts that the ledger balances. Figures are of the machine that ran the tests; the
rows of `make test` have shortened constants, named beside the figure. A test asserts the ledger,
isolation and bounds; a latency that is not as promised is marked **missed**, and fails no test.
"""


def load(folder: Path = RESULTS) -> list[Result]:
    """Read all results; of one test and row, the newest."""
    newest: dict[tuple[str, str], Result] = {}
    for path in sorted(folder.glob("*.json")):
        for result in json.loads(path.read_text(encoding="utf-8"))["results"]:
            place = (result["row"], result["test"])
            if place not in newest or result["date"] >= newest[place]["date"]:
                newest[place] = result
    return [newest[place] for place in sorted(newest)]


def render(results: Iterable[Result], named: Mapping[str, Sequence[str]]) -> str:
    """Return the document.

    Args:
        results: What tests showed, at most one result of a row and test.
        named: The tests that show each row, by its id.
    """
    by_row: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result["test"] in named.get(result["row"], ()):
            by_row[result["row"]].append(result)
    text = [_HEAD]
    for letter, title in SECTIONS.items():
        rows = [row for row in ROWS.values() if row.id[0] == letter]
        text.append(f"\n## {title}\n\n")
        text.append("| row | fault | promised | measured | tests | date | commit |\n")
        text.append("|---|---|---|---|---|---|---|\n")
        text += [_line(row, by_row[row.id], len(named.get(row.id, ()))) for row in rows]
        text.append("\n")
        text += [_tests(row, named.get(row.id, ())) for row in rows]
    return "".join(text)


def _line(row: Row, results: Sequence[Result], tests: int) -> str:
    if not tests:
        verdict, date, commit = "no test yet", "", ""
    elif not results:
        verdict, date, commit = "not run yet", "", ""
    else:
        oldest = min(results, key=lambda result: result["date"])
        verdict, date, commit = _measured(results), oldest["date"], oldest["commit"]
    cells = (row.id, row.fault, row.promised, verdict, str(tests), date, commit)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def _measured(results: Sequence[Result]) -> str:
    failed = [result["test"].rpartition("::")[2] for result in results if not result["passed"]]
    figures = [
        f"{'' if figure['met'] else '**missed** '}{figure['measured']} ({figure['promised']})"
        for result in results
        for figure in result["figures"]
    ]
    verdict = f"**failed**: {', '.join(failed)}" if failed else "passed"
    return "; ".join((verdict, *dict.fromkeys(figures)))


def _tests(row: Row, tests: Sequence[str]) -> str:
    names = (f"`{name}` ({path.removeprefix('tests/')})" for path, _, name in _split(tests))
    return f"- {row.id}: {', '.join(names)}\n" if tests else ""


def _split(tests: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    return (test.partition("::") for test in tests)


def main() -> None:
    DOCUMENT.write_text(render(load(), named_tests()), encoding="utf-8")


if __name__ == "__main__":
    main()
