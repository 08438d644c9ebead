"""A symbol that is halted costs its neighbors on the connection nothing (I4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from ingestor.adapter.contract import Subscription
from ingestor.model.errors import FeedStale
from ingestor.model.rows import Cause, Kind
from ingestor.sources.live import staleness_monitor as module
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.staleness import Staleness, StalenessSettings
from ingestor.sources.live.staleness_monitor import StalenessMonitor
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.network.harness import PATIENCE_S, Bench, bench, until

SETTINGS = StalenessSettings(floor_s=1.0, ceiling_s=9.0, silent_look_s=1.0, silent_look_max_s=1.0)
OPTIONS = SimulatorOptions(symbols=8, rate_per_s=100.0)
HALTED = "S00001-USD"
LEARNING_S = 2.0


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is usual is learned look by look: with short ones a stream is known in seconds."""
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "CHECK_S", 0.1)


@dataclass
class Reports(SupervisorEvents):
    """What is said of silent streams."""

    silent_streams: list[str] = field(default_factory=list)
    spoke: list[str] = field(default_factory=list)

    def silent(
        self, planned: PlannedConnection, subscription: Subscription, silence_s: float
    ) -> None:
        self.silent_streams.append(subscription.stream)

    def spoke_again(self, planned: PlannedConnection, subscription: Subscription) -> None:
        self.spoke.append(subscription.stream)


@asynccontextmanager
async def monitored(one: Bench) -> AsyncIterator[tuple[StalenessMonitor, Reports]]:
    """Let a monitor with short times watch the streams, once it has learned what is usual."""
    reports = Reports()
    monitor = StalenessMonitor(Staleness(SETTINGS), one.pipeline.metrics.last_seen)
    one.listen(monitor)
    one.listen(reports)
    await until(lambda: one.connected == len(one.supervisor.slots))
    for slot in one.supervisor.slots:
        assert slot.connection is not None
        monitor.up(slot.planned, slot.connection.session)
    watching = asyncio.create_task(monitor.run(one.supervisor))
    try:
        await flushed(one, LEARNING_S)
        yield monitor, reports
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def flushed(one: Bench, seconds: float, met: Callable[[], bool] = lambda: True) -> int:
    """Flush for some time, and until something is so; return the GAPs of symbols not halted."""
    gaps, loop = 0, asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while loop.time() < until_s or not met():
        assert loop.time() < until_s + PATIENCE_S, "it never came true"
        for batch in one.take():
            numbers = batch.rows["instrument"][batch.rows["kind"] == Kind.GAP]
            gaps += sum(
                batch.instruments[number].key.endswith(HALTED) is False for number in numbers
            )
        await asyncio.sleep(0.02)
    return gaps


@pytest.mark.rows("I4")
@pytest.mark.parametrize("channels", [("book",), ("trades", "quotes", "book")])
async def test_a_halted_symbol_is_marked_and_costs_its_neighbors_nothing(
    channels: tuple[str, ...],
) -> None:
    async with bench(OPTIONS, channels=channels) as one, monitored(one) as (monitor, reports):
        one.simulator.halt(HALTED)
        gaps = await flushed(one, 2.0, lambda: len(monitor.silent_streams) == len(channels))
        assert {stream.partition(":")[2] for stream in reports.silent_streams} == {HALTED}
        assert len(reports.silent_streams) == len(channels), "each is reported once"
        assert len(monitor.silent_streams) == len(channels)
        assert gaps == 0
        assert one.causes == {}, "no connection was opened anew"
        one.simulator.halt()
        await flushed(one, 0.1, lambda: len(reports.spoke) == len(channels))
        assert not monitor.silent_streams


@pytest.mark.rows("X3")
async def test_a_stale_connection_is_replaced_before_it_is_given_up() -> None:
    async with bench(SimulatorOptions(symbols=2, rate_per_s=100.0)) as one:
        await one.more_frames()
        [slot] = list(one.supervisor.slots)
        old = slot.connection
        assert old is not None
        one.supervisor.stale(0, "book", 9.0, probed=True)
        assert slot.connection is old, "it goes on until its successor is up"
        await until(lambda: slot.connection is not old)
        assert slot.connection is not None
        assert one.simulator.statistics.accepted == 2
        assert isinstance(one.heard.downs[0], FeedStale)
        assert one.causes == {"stale": 1}
        await one.more_frames()


async def test_an_invalid_book_whose_frames_arrive_is_not_silent() -> None:
    async with bench(OPTIONS, channels=("book",)) as one, monitored(one) as (monitor, reports):
        for _ in range(50):
            one.pipeline.books.invalidate(0, Cause.CHECKSUM, 0)
            await flushed(one, 0.03)
        assert monitor.probes == 0
        assert reports.silent_streams == []
