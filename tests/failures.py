"""The pytest option `--failures=FILE`: the ids of the tests that failed, to run them again.

It is written when a session came to its end and all that went wrong was tests. What was
interrupted, or could not be collected, has not been tried: running the failures again says nothing
of the rest.
"""

from __future__ import annotations

from pathlib import Path

import pytest


class Failures:
    """Keep the ids of the tests of a session that failed, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, None] = {}
        self._uncollected = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._uncollected |= report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._ids[report.nodeid] = None

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.TESTS_FAILED and not self._uncollected:
            self._path.write_text("".join(f"{each}\n" for each in self._ids), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--failures", type=Path, help="write the ids of the tests that failed")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("failures")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(path))
