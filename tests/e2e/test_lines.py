"""Two lines of one feed (hot-hot): either may go, and nothing is missing or twice (D2)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.app import Ingestor
from ingestor.model.errors import PeerClosed
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sinks.digest import AuditSink
from ingestor.sources.live.connection import Connection, PlannedReconnect
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.e2e.harness import Running, make_config, running

SYMBOLS = 8
CLASSES = (RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL)


def faults_of(row_class: RowClass, rows: Any) -> tuple[int, int]:
    """Return how many numbers of one instrument are missing, and how many come twice.

    A line that comes back ahead of the other brings some trades and quotes before earlier ones, and
    begins a book anew.
    """
    if row_class is not RowClass.LEVEL:
        numbers = np.sort(rows["sequence"][rows["kind"] == row_class.id].astype(np.int64))
        steps = np.diff(numbers)
    else:
        first = np.concatenate(([True], np.diff(rows["sequence"]) != 0))
        first |= rows["kind"] == Kind.RESET
        heads = rows[first]
        steps = np.diff(heads["sequence"].astype(np.int64))[heads["kind"][1:] != Kind.RESET]
    return int((steps[steps > 1] - 1).sum()), int((steps < 1).sum())


class Heard:
    """All rows of a run, by instrument and class."""

    def __init__(self) -> None:
        self.audit = AuditSink()
        self._rows: dict[tuple[RowClass, str], list[Any]] = {}

    def attach(self, ingestor: Ingestor) -> None:
        ingestor.flusher.observe(self._observe)

    def _observe(self, result: FlushResult, _now_ns: int) -> None:
        for batch in result.batches:
            self.audit.submit(batch, 0)
            for number in np.unique(batch.rows["instrument"]).tolist():
                place = batch.row_class, batch.instruments[number].key
                chosen = batch.rows[batch.rows["instrument"] == number]
                self._rows.setdefault(place, []).append(chosen)

    @property
    def places(self) -> list[tuple[RowClass, str]]:
        return list(self._rows)

    def rows(self, row_class: RowClass, symbol: str) -> Any:
        return np.concatenate(self._rows[row_class, symbol])


async def settled(one: Running) -> None:
    """Wait until all connections are up, and have been confirmed for a moment."""

    def all_settled() -> bool:
        since_ns = time.time_ns() - 300_000_000
        supervisor = one.ingestor.supervisor
        return not supervisor.statistics().pending and all(
            slot.connection is not None and slot.connection.opened_ns < since_ns
            for slot in supervisor.slots
        )

    await one.until(all_settled)


class Bench:
    """An ingestor on two lines."""

    def __init__(self, one: Running, simulator: Simulator, heard: Heard) -> None:
        self.one = one
        self.simulator = simulator
        self.heard = heard

    def line(self, number: int) -> Connection:
        """Return an open connection of a line."""
        return next(
            slot.connection
            for slot in self.one.ingestor.supervisor.slots
            if slot.planned.line == number and slot.connection is not None
        )

    async def more(self, count: int) -> None:
        """Wait for so many trades of each symbol."""
        last = self.one.ingestor.pipeline.metrics.last_seen
        before = {number: last.of(RowClass.TRADE, number)[0] for number in range(SYMBOLS)}
        await self.one.until(
            lambda: all(
                last.of(RowClass.TRADE, number)[0] >= before[number] + count
                for number in range(SYMBOLS)
            )
        )

    async def gone(self, connection: Connection) -> None:
        """Wait until a connection's socket is closed."""
        await self.one.until(lambda: connection.link is None)

    async def back(self) -> None:
        """Wait until both lines carry everything again."""
        await settled(self.one)

    def check(self) -> None:
        """Nothing is missing, twice, or out of order, and no gap is declared."""
        for row_class, symbol in self.heard.places:
            rows = self.heard.rows(row_class, symbol)
            assert not (rows["kind"] == Kind.GAP).any(), (row_class.name, symbol)
            assert faults_of(row_class, rows) == (0, 0), (row_class.name, symbol)


@asynccontextmanager
async def two_lines(
    tmp_path: Path, *, rate_per_s: float = 50.0, **sections: Any
) -> AsyncIterator[Bench]:
    options = SimulatorOptions(symbols=SYMBOLS, rate_per_s=rate_per_s)
    async with Simulator(options) as simulator:
        feed = {
            "venue": "simulated",
            "symbols": ["*"],
            "url": simulator.addresses[0],
            "rest_url": simulator.rest,
            "lines": 2,
            "streams_per_connection": 3 * SYMBOLS // 2,
        }
        config = make_config("127.0.0.1:9", [feed], tmp_path / "cache", **sections)
        heard = Heard()
        async with running(config, publish=False, before=heard.attach) as one:
            await settled(one)
            found = Bench(one, simulator, heard)
            await found.more(10)
            yield found
            drained = await one.stop()
            assert drained.status.unaccounted == 0
            assert drained.status.rows_appended > 0


async def test_each_row_comes_once_and_its_twin_is_counted(tmp_path: Path) -> None:
    async with two_lines(tmp_path) as found:
        assert len(found.one.ingestor.supervisor.slots) == 4
        await found.more(50)
        found.one.ingestor.flusher.flush()
        ledger = found.one.ingestor.pipeline.ledger()
        assert ledger.unaccounted == 0
        assert ledger.duplicate > 0.4 * ledger.decoded
        shown = [(one.symbol, one.channel) for one in found.one.ingestor.view.streams()]
        assert len(shown) == len({*shown}) == 3 * SYMBOLS
        found.check()


@pytest.mark.rows("D2")
@pytest.mark.parametrize("line", [0, 1])
async def test_a_line_that_is_killed_costs_nothing(tmp_path: Path, line: int) -> None:
    async with two_lines(tmp_path, rate_per_s=100.0) as found:
        for _ in range(3):
            killed = found.line(line)
            killed.fail(PeerClosed("ws://killed", 1006))
            await found.gone(killed)
            await found.more(30)
            await found.back()
        assert sum(found.one.ingestor.supervisor.statistics().reconnects.values()) == 3
        found.check()


@pytest.mark.rows("D2")
async def test_a_planned_cut_of_each_line_leaves_no_hole(tmp_path: Path) -> None:
    async with two_lines(tmp_path) as found:
        for line in (0, 1, 0, 1):
            old = found.line(line)
            found.one.ingestor.supervisor.replace(old, PlannedReconnect("ws://old", "24 hours"))
            await found.gone(old)
            await found.more(20)
            await found.back()
        found.check()


async def test_both_lines_down_is_a_gap_in_everything(tmp_path: Path) -> None:
    async with two_lines(tmp_path) as found:
        found.simulator.cut(0.0)
        await asyncio.sleep(0.2)
        await found.back()
        await found.more(10)
        found.one.ingestor.flusher.flush()
        for row_class, symbol in found.heard.places:
            kinds = found.heard.rows(row_class, symbol)["kind"].tolist()
            assert Kind.GAP in kinds, (row_class.name, symbol)


async def test_a_recording_of_two_lines_replays_to_the_same_rows(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    async with two_lines(tmp_path, recorder={"path": folder}) as found:
        for line in (0, 1):
            found.line(line).fail(PeerClosed("ws://killed", 1006))
            await found.more(10)
            await found.back()
            await found.more(10)
        heard = found.heard
    run = Replay(ReplayOptions((folder,)))
    again = audit(run)
    assert not run.problems.kept
    assert again["rows"] == heard.audit.rows
    assert again["digest"] == heard.audit.digest.hexdigest()
