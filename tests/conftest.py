"""What every test may ask for: a Kafka broker, a broker of its own, the recorded captures."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import structlog

from ingestor.cli.main import main
from ingestor.native import Native
from ingestor.telemetry.bulkheads import bulkheads
from tests import effort as effort  # its settings are everybody's
from tests.kafka.broker import KafkaBroker, KafkaEndpoint, missing_tools

CAPTURES = Path(__file__).parents[2] / "shared" / "captures"
KAFKA_FIXTURES = {"kafka", "lent_kafka", "private_kafka", "kafka_factory", "kafka_tools"}
USED_BROKER = pytest.StashKey[str]()
BrokerFactory = Callable[..., KafkaBroker]
Call = Callable[..., CompletedProcess[str]]
NO_CAPTURES = "no ../shared/captures"
# Tests that provoke exceptions log many: rich takes a tenth of a second for each traceback.
_RENDERER = structlog.get_config()["processors"][-1]
_RENDERER.exception_formatter = structlog.dev.plain_traceback
pytest_plugins = ["tests.failures", "tests.faults.results"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they ask for, so that no test forgets its marker."""
    for item in items:
        wanted = set(getattr(item, "fixturenames", ()))
        if wanted & KAFKA_FIXTURES:
            item.add_marker("kafka")
        if "captures" in wanted:
            item.add_marker("captures")
        elif item.get_closest_marker("captures") and not CAPTURES.is_dir():
            item.add_marker(pytest.mark.skip(reason=NO_CAPTURES))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under REQUIRE_ALL=1, fail a test that was skipped for anything but absent captures."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that skips itself."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NO_CAPTURES not in reason:
            report.outcome = "failed"
            report.longrepr = f"REQUIRE_ALL=1, but {report.nodeid} was skipped: {reason}"


@pytest.fixture(autouse=True)
def log_settings_of_its_own() -> Iterator[None]:
    """Undo what a test, or a command that it calls, sets for logs: others capture them."""
    before = structlog.get_config()
    yield
    if structlog.get_config() != before:
        structlog.configure(**before)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """No test sees another's, or the user's, configuration through the environment."""
    before = dict(os.environ)
    for name in [name for name in before if name.upper().startswith("INGESTOR__")]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def expected_bugs() -> Counter[str]:
    """Count the bugs, by unit, that a test provokes: those found beyond these fail it."""
    return Counter()


_ASKING = (
    *("ingestor.decode.frame_queue", "ingestor.sinks.kafka.batch_maker", "ingestor.books.lending"),
)


@pytest.fixture
def python_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let frame queues, books and sinks that are made from here on do all in Python."""
    for module in _ASKING:
        monkeypatch.setattr(f"{module}.native", lambda: Native(None, "a test"))


@pytest.fixture(autouse=True)
def _no_bugs(expected_bugs: Counter[str]) -> Iterator[None]:
    """Fail a test in whose process a boundary stopped an exception that the test didn't expect."""
    before = Counter(bulkheads.bugs)
    yield
    assert bulkheads.bugs - before == expected_bugs


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Undo what a test, or a command that it runs, sets up for logs."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_logging: None
) -> Call:
    """`call(*arguments, env=...)` runs a command to its end in this process, which is quicker."""

    def run(*arguments: str, env: dict[str, str]) -> CompletedProcess[str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["ingestor", *arguments])
        capsys.readouterr()
        status = main()
        said = capsys.readouterr()
        return CompletedProcess(arguments, status, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of recorded frames, which lies beside the checkout and is not part of it."""
    if not CAPTURES.is_dir():
        pytest.skip(NO_CAPTURES)
    return CAPTURES


@pytest.fixture(scope="session")
def kafka_tools() -> None:
    """Skip where no broker of our own can be started (a failure under REQUIRE_ALL=1)."""
    absent = missing_tools()
    if absent:
        pytest.skip(f"no Kafka: {absent}")


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaEndpoint]:
    """One cluster for all tests of the session: choose topic names of your own, and leave it up."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    with ExitStack() as stack:
        if given:
            endpoint = KafkaEndpoint(given, f"KAFKA_BOOTSTRAP_SERVERS={given}")
        else:
            request.getfixturevalue("kafka_tools")
            endpoint = stack.enter_context(KafkaBroker())
        request.config.stash[USED_BROKER] = endpoint.description
        yield endpoint


@pytest.fixture
def kafka_factory(request: pytest.FixtureRequest, kafka_tools: None) -> Iterator[BrokerFactory]:
    """`kafka_factory(overrides=None, **options of KafkaBroker)` -> a started broker of one test."""
    with ExitStack() as stack:

        def make(overrides: Mapping[str, str] | None = None, **options: Any) -> KafkaBroker:
            broker = stack.enter_context(KafkaBroker(overrides, **options))
            request.config.stash[USED_BROKER] = broker.description
            return broker

        yield make


@pytest.fixture(scope="session")
def lent_kafka(kafka_tools: None) -> Iterator[KafkaBroker]:
    """The broker behind `private_kafka`: starting one takes seconds."""
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def private_kafka(lent_kafka: KafkaBroker, request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A broker lent to one test, to be killed, paused and started again; topics of others stay."""
    request.config.stash[USED_BROKER] = lent_kafka.description
    yield lent_kafka
    lent_kafka.restore()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under xdist, hand the name of the broker to the process that prints the summary."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["broker"] = session.config.stash.get(USED_BROKER, "")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    broker = getattr(node, "workeroutput", {}).get("broker")
    if broker:
        node.config.stash[USED_BROKER] = broker


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """One line: the broker that the tests used, and what was skipped for lack of something."""
    skipped = [
        report
        for report in terminalreporter.getreports("skipped")
        if isinstance(report, pytest.TestReport)  # a module that skips itself has no keywords
    ]
    no_kafka = sum("kafka" in report.keywords for report in skipped)
    no_captures = sum("captures" in report.keywords for report in skipped)
    broker = config.stash.get(USED_BROKER, "none")
    terminalreporter.write_line(
        f"Kafka used: {broker}; skipped for lack of Kafka: {no_kafka}, "
        f"of ../shared/captures: {no_captures}"
    )
