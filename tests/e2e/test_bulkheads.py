"""The table of docs/bulkheads.md, walked: what is raised at a boundary costs what the table says.

Each walk runs a whole ingestor on the simulated venue and the embedded broker, and lets one unit
raise six types of exception, one after the other. The process must live, the units beside it must
go on, and the ledger must balance.
"""

from __future__ import annotations

import ast
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from feeds.simulated import Simulated
from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.app.book_snapshots import BookSnapshotPublisher
from ingestor.app.status_report import StatusReporter
from ingestor.model.backoff import Backoff
from ingestor.model.errors import TransportError
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause
from ingestor.sinks.kafka.queue import PublishQueue
from ingestor.sinks.kafka.sink import KafkaSink
from ingestor.sources.live.health import HealthChecker
from ingestor.sources.live.repair_worker import RepairWorker
from ingestor.sources.live.staleness_monitor import StalenessMonitor
from ingestor.sources.live.supervisor import Supervisor
from ingestor.telemetry import bulkheads as module
from ingestor.telemetry.bulkheads import UNITS, bulkheads
from ingestor.testbed.broker import DevBroker
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import Running, make_config, running

ROOT = Path(__file__).parents[2]
FAILURES = (RuntimeError, OSError, StopIteration, struct.error, ArithmeticError, MemoryError)
SYMBOLS = 8
# How many of these a unit handles by itself: packing numbers raises struct.error.
FORESEEN = {"frame": 1}


def units_of_the_table() -> set[str]:
    """The first column, and the names of boundaries in the third."""
    text = (ROOT / "docs" / "bulkheads.md").read_text().split("\n| unit |")[1]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([A-Za-z][A-Za-z -]*)`", row[2])}
    return named | {name for row in rows for name in row[0].removeprefix("| ").split(", ")}


def units_of_the_code() -> Iterator[tuple[str, str]]:
    """Every unit that a boundary names, and where."""
    for path in (ROOT / "ingestor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"bug", "guard", "keep", "once"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "bulkheads"
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value), f"{path.name}:{node.lineno}"


def test_every_boundary_is_a_row_of_the_table() -> None:
    found = list(units_of_the_code())
    assert len(found) > 10
    assert [place for unit, place in found if unit not in UNITS] == []
    assert set(UNITS) <= units_of_the_table()


class Raising:
    """Lets a method raise once with each type of exception, then work again."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        owner: type[Any],
        name: str,
        concerns: Callable[..., bool] = lambda *_args, **_options: True,
    ) -> None:
        """concerns: which calls raise, told by their arguments (self included)."""
        self._left = list(FAILURES)
        method = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            if self._left and concerns(*args, **options):
                raise self._left.pop(0)("injected")
            return method(*args, **options)

        patch.setattr(owner, name, call)

    @property
    def is_done(self) -> bool:
        return not self._left


@asynccontextmanager
async def at_work(tmp_path: Path, **sections: Any) -> AsyncIterator[Running]:
    async with Simulator(SimulatorOptions(symbols=SYMBOLS, rate_per_s=200.0)) as simulator:
        feed = {
            "venue": "simulated",
            "symbols": ["*"],
            "url": simulator.addresses[0],
            "rest_url": simulator.rest,
            "streams_per_connection": 3,
        }
        with DevBroker() as broker:
            config = make_config(broker.bootstrap_servers, [feed], tmp_path, **sections)
            async with running(config) as one:
                yield one


def trades_of(one: Running) -> list[int]:
    seen = one.ingestor.pipeline.metrics.last_seen
    return [seen.of(RowClass.TRADE, number)[0] for number in range(SYMBOLS)]


async def all_go_on(one: Running) -> None:
    """Every instrument gets trades from here on, and every book becomes valid."""
    before = trades_of(one)
    await one.until(
        lambda: all(now > then for now, then in zip(trades_of(one), before, strict=True))
    )
    books = one.ingestor.pipeline.books
    await one.until(lambda: all(books.is_valid(number) for number in range(SYMBOLS)))


def break_a_book(one: Running) -> None:
    """Break one valid book after the other: a book that fails again and again is repaired late."""
    books = one.ingestor.pipeline.books
    valid = [number for number in range(SYMBOLS) if books.is_valid(number)]
    if valid:
        books.invalidate(valid[-1], Cause.STALE, one.ingestor.status().time_ns)


def break_a_connection(one: Running) -> None:
    slot = next(iter(one.ingestor.supervisor.slots))
    if slot.connection is not None:
        slot.connection.fail(TransportError(slot.planned.url, "cut by the test"))


def wait(_one: Running) -> None:
    """The unit is called all the time, or while everything starts."""


# Unit -> what raises, and what makes it run.
WALKS: dict[str, tuple[type[Any], str, Callable[[Running], None]]] = {
    "frame": (Simulated, "decode", break_a_connection),
    "sink": (KafkaSink, "submit", wait),
    "partition": (PublishQueue, "put", wait),
    "partition: after its rows are queued": (PublishQueue, "check", wait),
    "listener": (AuxiliaryRecords, "up", break_a_connection),
    "connection": (Supervisor, "_make_connection", wait),
    "health": (HealthChecker, "look", wait),
    "repair": (RepairWorker, "_repair", break_a_book),
    "staleness": (StalenessMonitor, "look", wait),
    "report": (StatusReporter, "sample", wait),
    "book snapshots": (BookSnapshotPublisher, "_publish", break_a_book),
}


@pytest.mark.rows("I1")
@pytest.mark.parametrize("walk", WALKS)
async def test_an_exception_costs_its_unit(
    walk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_bugs: Counter[str]
) -> None:
    monkeypatch.setattr(module, "RESTART", Backoff(base_s=0.01, cap_s=0.05))
    before = Counter(bulkheads.bugs)
    owner, method, prod = WALKS[walk]
    unit = walk.partition(":")[0]
    # The sink's own tick checks the queue with ages: it is another unit's call.
    raising = Raising(
        monkeypatch, owner, method, lambda *_args, **options: "with_age" not in options
    )
    async with at_work(tmp_path) as one:

        def is_done() -> bool:
            prod(one)
            return raising.is_done

        await one.until(is_done)
        await all_go_on(one)
        drained = await one.stop()
    found = bulkheads.bugs - before
    expected_bugs.update(found)
    assert set(found) <= {unit}, "no neighbor failed"
    assert found[unit] == len(FAILURES) - FORESEEN.get(unit, 0)
    assert drained.status.unaccounted == 0
    assert drained.lost == 0
