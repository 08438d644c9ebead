"""A supervisor and a simulated venue in one test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic_ns, time_ns
from typing import Any

from feeds.simulated import Simulated
from ingestor.adapter import FeedAdapter
from ingestor.adapter.instrument_list import read_list
from ingestor.decode.session import Session
from ingestor.model.backoff import Backoff
from ingestor.model.batch import TickBatch
from ingestor.model.errors import TransportError
from ingestor.model.instruments import InstrumentTable
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import Pipeline
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.health import HealthTimeouts
from ingestor.sources.live.plan import Plan, PlannedConnection, Route, Wanted, make_plan
from ingestor.sources.live.settings import SupervisorSettings
from ingestor.sources.live.supervisor import Supervisor
from ingestor.sources.live.tap import FrameTap
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.testbed.simulated.server import Simulator
from ingestor.testbed.simulated.state import SimulatorOptions
from tests.faults.proxy import FaultProxy

PATIENCE_S = 60.0
QUICK = Backoff(base_s=0.05, cap_s=0.2)
ALL = ("trades", "quotes", "book")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def settings(**more: Any) -> SupervisorSettings:
    quick: dict[str, Any] = {
        "backoff": QUICK,
        "lasting": QUICK,
        "attempt_interval_s": 0.05,
        "open_timeout_s": 5.0,
    }
    return SupervisorSettings(**(quick | more))


@dataclass
class Heard(SupervisorEvents):
    """What the supervisor told the application."""

    ups: int = 0
    downs: list[TransportError] = field(default_factory=list)
    refusals: list[tuple[Sequence[str], str]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    def up(self, planned: PlannedConnection, session: Session) -> None:
        self.ups += 1

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        self.downs.append(failure)

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        self.refusals.append((streams, text))

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        self.unanswered.extend(streams)


@dataclass
class Bench:
    """A running supervisor; `flush` takes what arrived through the pipeline."""

    simulator: Simulator
    supervisor: Supervisor
    pipeline: Pipeline
    heard: Heard
    task: asyncio.Task[None]
    plan: Plan
    kinds: dict[tuple[int, int], int] = field(default_factory=dict)
    observe: Callable[[TickBatch], None] = lambda _batch: None

    def flush(self) -> None:
        self.take()

    def listen(self, events: SupervisorEvents) -> None:
        """Let others be notified too, from now on."""
        self.supervisor.listeners.add(events)

    def take(self) -> list[TickBatch]:
        """Flush; return what was published."""
        result = self.pipeline.flush(time_ns(), monotonic_ns())
        for failure in result.frame_bugs:
            bulkheads.bug("frame", failure)
        self.supervisor.repair_worker.observe(result, 0)
        for batch in result.batches:
            self.observe(batch)
            for kind in batch.rows["kind"].tolist():
                key = (batch.row_class.id, kind)
                self.kinds[key] = self.kinds.get(key, 0) + 1
        return result.batches

    def count(self, kind: Kind) -> int:
        return sum(number for (_, one), number in self.kinds.items() if one == kind)

    @property
    def frames(self) -> int:
        return sum(counts.frames for counts in self.supervisor.counts.values())

    @property
    def connected(self) -> int:
        return self.states.get("connected", 0)

    @property
    def states(self) -> dict[str, int]:
        return {
            state: number for (_, state), number in self.supervisor.statistics().connections.items()
        }

    @property
    def causes(self) -> dict[str, int]:
        return {
            cause: number for (_, cause), number in self.supervisor.statistics().reconnects.items()
        }

    async def more_frames(self, count: int = 50) -> None:
        """Flush until so many more frames have come."""
        wanted = self.frames + count

        def come() -> bool:
            self.flush()
            return self.frames >= wanted

        await until(come)


@asynccontextmanager
async def bench(
    options: SimulatorOptions | None = None,
    *,
    adapter: type[FeedAdapter] = Simulated,
    channels: Sequence[str] = ALL,
    route: Route | None = None,
    instruments: int | None = None,
    tap: FrameTap | None = None,
    paused: bool = False,
    before: Callable[[Simulator], None] = lambda _simulator: None,
    also_through: FaultProxy | None = None,
    **more: Any,
) -> AsyncIterator[Bench]:
    """Serve and connect.

    Args:
        instruments: How many are in the plan; None = all of the venue's.
        before: Called with the simulator before the first connect.
        also_through: A proxy that every other connection takes to the simulator.
    """
    options = options or SimulatorOptions(symbols=4, rate_per_s=100.0)
    async with Simulator(options) as simulator:
        dialect = simulator.dialect
        body = dialect.instruments(simulator.symbols)[1]
        table = InstrumentTable(read_list(adapter, "spot", [body]).instruments)
        origins = origins_of(simulator, also_through)
        chosen = replace(route or Route(), origins=origins, rest_origin=simulator.rest)
        planned = range(len(table) if instruments is None else instruments)
        plan = make_plan([Wanted(adapter, "spot", planned, channels, chosen)], table)
        rule = adapter.markets["spot"].book
        pipeline = Pipeline(table, lambda _instrument: rule)
        heard = Heard()
        supervisor = Supervisor(
            plan,
            table,
            pipeline.frame_queues,
            lambda frame_queue: bulkheads.guard("frame", frame_queue.decode),
            lambda: None,
            tap=tap,
            settings=settings(**more),
            listeners=[heard],
        )
        if paused:
            supervisor.pause()
        before(simulator)
        task = asyncio.create_task(supervisor.run())
        try:
            yield Bench(simulator, supervisor, pipeline, heard, task, plan)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not simulator.clients)


def origins_of(simulator: Simulator, proxy: FaultProxy | None) -> tuple[str, ...]:
    """Return the addresses of a simulator, and that of a proxy which leads to it."""
    if proxy is None:
        return tuple(simulator.addresses)
    proxy.target = simulator.addresses[0].removeprefix("ws://")
    return (*simulator.addresses, f"ws://{proxy.address}")


def impatient(**seconds: float) -> HealthTimeouts:
    return HealthTimeouts(**seconds)
