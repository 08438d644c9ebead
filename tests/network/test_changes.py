"""Streams are added and removed while running, on real sockets: it costs the others nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from feeds.simulated import Simulated
from ingestor.adapter.contract import Subscription
from ingestor.adapter.instrument_list import read_list
from ingestor.model.batch import TickBatch
from ingestor.model.errors import TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Kind
from ingestor.recording.format import Decided
from ingestor.recording.reader import Problems, read_lines
from ingestor.recording.recorder import Recorder, RecorderSettings
from ingestor.sinks.digest import AuditSink
from ingestor.sources.live.connection import PlannedReconnect
from ingestor.sources.live.plan import Route, TransportName, Wanted, make_plan
from ingestor.sources.live.replan import PlanChange, replan
from ingestor.sources.replay.options import ReplayOptions
from ingestor.sources.replay.replay import Replay
from ingestor.sources.replay.report import audit
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.network.harness import ALL, Bench, bench, impatient, until

BEFORE, ADDED, REMOVED = 40, 10, 10
OPTIONS = SimulatorOptions(symbols=BEFORE + ADDED, rate_per_s=10.0)
SEVERAL = Route(streams_per_connection=24)  # all three channels of eight symbols


@dataclass
class Rows:
    """What came, by symbol."""

    ticks: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    audit: AuditSink = field(default_factory=AuditSink)

    def observe(self, batch: TickBatch) -> None:
        self.audit.submit(batch, 0)
        for number, kind in zip(
            batch.rows["instrument"].tolist(), batch.rows["kind"].tolist(), strict=True
        ):
            counted = self.gaps if kind == Kind.GAP else self.ticks
            counted[batch.instruments[number].key.rpartition(":")[2]] += 1


def symbols(one: Bench, numbers: Iterable[int]) -> set[str]:
    return {one.pipeline.table[number].symbol for number in numbers}


def change_to(one: Bench, numbers: Iterable[int]) -> PlanChange:
    """Apply the plan that has these instruments, between two flushes as the application does."""
    route = one.plan.connections[0].route
    wanted = make_plan([Wanted(Simulated, "spot", [*numbers], ALL, route)], one.pipeline.table)
    change = replan(one.plan, wanted)
    one.flush()
    one.supervisor.apply(change)
    one.plan = change.plan
    one.flush()
    return change


async def more_of_all(one: Bench, rows: Rows, wanted: set[str]) -> None:
    """Wait until each of these symbols had rows again."""
    before = rows.ticks.copy()

    def come() -> bool:
        one.flush()
        return all(rows.ticks[symbol] > before[symbol] for symbol in wanted)

    await until(come)


@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_ten_come_and_ten_go_and_thirty_notice_nothing(transport: TransportName) -> None:
    rows = Rows()
    route = Route(transport=transport, streams_per_connection=24)
    async with bench(OPTIONS, route=route, instruments=BEFORE) as one:
        one.observe = rows.observe
        stay = symbols(one, range(REMOVED, BEFORE))
        gone, new = symbols(one, range(REMOVED)), symbols(one, range(BEFORE, BEFORE + ADDED))
        await until(lambda: one.connected == 5)
        await more_of_all(one, rows, stay | gone)
        assert not rows.gaps
        change = change_to(one, range(REMOVED, BEFORE + ADDED))
        assert change.changed
        await more_of_all(one, rows, stay | new)
        await until(lambda: streams_heard(one) == 3 * BEFORE)
        one.flush()
        at_rest = rows.ticks.copy()
        await more_of_all(one, rows, stay | new)
        await more_of_all(one, rows, stay | new)
        assert not rows.gaps.keys() & stay
        assert {symbol for symbol in gone if rows.ticks[symbol] > at_rest[symbol]} == set()
        assert rows.gaps.keys() == gone | new
        assert not [failure for failure in one.heard.downs if not is_removal(failure)]
        assert not one.causes
        assert one.pipeline.books.statistics()["simulated", "spot"].mismatched == 0
        counts = one.supervisor.counts["simulated", "spot"]
        assert counts.unaccounted == 0
        assert one.pipeline.ledger().unaccounted == 0


def streams_heard(one: Bench) -> int:
    return one.simulator.measured().streams


def is_removal(failure: TransportError) -> bool:
    return isinstance(failure, PlannedReconnect) and failure.reason == "removed"


async def test_what_went_comes_again_behind_a_gap() -> None:
    """Trades came meanwhile: the one after the pause must not look like the next one."""
    rows = Rows()
    async with bench(OPTIONS, route=SEVERAL, instruments=BEFORE) as one:
        one.observe = rows.observe
        await until(lambda: one.connected == 5)
        everything = symbols(one, range(BEFORE))
        again = symbols(one, range(3))
        await more_of_all(one, rows, everything)
        change_to(one, range(3, BEFORE))
        await until(lambda: streams_heard(one) == 3 * (BEFORE - 3))
        before = rows.gaps.copy()
        change_to(one, range(BEFORE))
        await more_of_all(one, rows, everything)
        assert rows.gaps.keys() == again
        # Of trades and quotes; a book's GAP is in force until its next snapshot.
        assert all(rows.gaps[symbol] - before[symbol] >= 2 for symbol in again)


async def test_whole_connections_come_and_go() -> None:
    rows = Rows()
    async with bench(OPTIONS, route=SEVERAL, instruments=8) as one:
        one.observe = rows.observe
        await until(lambda: one.connected == 1)
        first = symbols(one, range(8))
        await more_of_all(one, rows, first)
        change = change_to(one, range(BEFORE))
        assert len(change.added) == 4
        assert not change.changed
        await more_of_all(one, rows, symbols(one, range(BEFORE)))
        change = change_to(one, range(8))
        assert len(change.removed) == 4
        await until(lambda: len(one.simulator.clients) == 1)
        await more_of_all(one, rows, first)
        assert one.connected == 1
        assert not rows.gaps.keys() & first
        assert all(map(is_removal, one.heard.downs))


def table() -> InstrumentTable:
    """The instruments of the simulated venue, with the numbers that `bench` gives them."""
    simulator = Simulator(OPTIONS)
    body = simulator.dialect.instruments(simulator.symbols)[1]
    return InstrumentTable(read_list(Simulated, "spot", [body]).instruments)


async def test_a_recording_of_changes_replays_to_the_same_rows(tmp_path: Path) -> None:
    rows, benches = Rows(), list[Bench]()

    def subscriptions(connection: int) -> Sequence[Subscription]:
        return benches[0].supervisor.subscriptions_of(connection)

    recorder = Recorder(RecorderSettings(tmp_path), "changes", table(), subscriptions)
    async with bench(OPTIONS, route=SEVERAL, instruments=BEFORE, tap=recorder) as one:
        benches.append(one)
        one.observe = rows.observe
        recorder.start()
        await until(lambda: one.connected == 5)
        await more_of_all(one, rows, symbols(one, range(BEFORE)))
        change_to(one, range(REMOVED, BEFORE + ADDED))
        await more_of_all(one, rows, symbols(one, range(REMOVED, BEFORE + ADDED)))
        change_to(one, range(BEFORE))
        await more_of_all(one, rows, symbols(one, range(BEFORE)))
    one.flush()
    await recorder.stop()
    run = Replay(ReplayOptions((tmp_path,)))
    found = audit(run)
    assert not run.problems.kept
    assert found["rows"] == rows.audit.rows
    assert found["digest"] == rows.audit.digest.hexdigest()
    decisions = [
        line.decision
        for path in sorted(tmp_path.rglob("*.jsonl*"))
        for lines in read_lines(path, Problems())
        for line in lines
        if isinstance(line, Decided) and line.decision.get("action") == "streams"
    ]
    assert decisions


async def test_a_stream_that_is_refused_for_a_while_comes_later() -> None:
    """Not listed yet, or again: its neighbors notice nothing of that."""
    rows = Rows()
    bad = "S00001-USD"
    async with bench(
        OPTIONS,
        route=SEVERAL,
        instruments=8,
        before=lambda simulator: simulator.faults.bad_symbols.add(bad),
        patience=impatient(refused_s=0.5),
    ) as one:
        one.observe = rows.observe
        await until(lambda: one.connected == 1)
        others = symbols(one, range(8)) - {bad}
        await more_of_all(one, rows, others)
        await until(lambda: len(one.heard.refusals) >= 2 * len(ALL))  # asked again, in vain
        assert not rows.ticks[bad]
        one.simulator.faults.bad_symbols.clear()
        await more_of_all(one, rows, others | {bad})
        assert not rows.gaps.keys() & others
        assert one.connected == 1
        assert not one.heard.downs
