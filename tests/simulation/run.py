"""One run: the whole ingestor between a simulated venue and a simulated broker, and what must hold.

    python -m tests.simulation.run --seconds 3600 17 18

runs some seeds and prints what happened.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from time import process_time
from typing import Final, TextIO, TypeVar
from unittest import mock

import structlog

from ingestor.adapter import FeedAdapter
from ingestor.adapter.contract import Subscription
from ingestor.app import book_snapshots, instrument_changes
from ingestor.app import ingestor as app_ingestor
from ingestor.app.ingestor import Drained, Ingestor
from ingestor.app.instrument_watch import WatchPace
from ingestor.app.planning import Planned, make_planned
from ingestor.config.model import Config
from ingestor.decode.session import Session
from ingestor.model.backoff import Backoff
from ingestor.model.errors import FeedStale, PeerClosed, TransportError
from ingestor.model.instruments import Instrument
from ingestor.model.row_classes import STANDARD_CLASSES, RowClass
from ingestor.model.rows import Cause
from ingestor.sinks.kafka import sink
from ingestor.sources.live import health, staleness_monitor, supervisor
from ingestor.sources.live.connection import PingTimeout, PlannedReconnect
from ingestor.sources.live.events import SupervisorEvents
from ingestor.sources.live.plan import PlannedConnection
from ingestor.telemetry import loop_lag
from ingestor.telemetry.bulkheads import bulkheads
from tests.simulation.broker import Broker, simulated_kafka
from tests.simulation.consumer import Consumer
from tests.simulation.faults import Faults
from tests.simulation.venue import Link, Venue
from tests.simulation.virtual import Time, run

SETTLE_S: Final = 75.0  # after the last fault, for back-offs, repairs and silence; times the pace
_CAP_S: Final = 10.0  # of both
_PARTITIONS: Final = 3  # of a topic
_LOOK_S: Final = 1.5  # between two looks at what arrived; times the pace
_RESUMED_S: Final = 10.0  # within which a market that goes on has spoken; times the pace
_OPEN_S: Final = 400.0  # the longest wait for connections that were refused for lasting reasons
_LIST_S: Final = 10.0  # between two questions for the list of instruments, at least
_STILL_S: Final = 3.0  # between the last update and the end


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. trace: hash of all events and rows."""

    trace: str
    rows: dict[str, int]
    gaps: dict[str, int]
    faults: dict[str, int]
    downs: dict[str, int]


class Trace(SupervisorEvents):
    """Hears the supervisor, and judges why connections ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.hash = hashlib.sha256()
        self.lines: list[str] = []
        self.downs: Counter[str] = Counter()
        self.holes: Counter[tuple[str, RowClass]] = Counter()  # ends of what carried a stream
        self.probes: Counter[tuple[str, RowClass]] = Counter()

    def note(self, *what: object) -> None:
        line = f"{self._world.time.now_s:.6f} {' '.join(map(str, what))}\n"
        self.hash.update(line.encode())
        self.lines.append(line)

    def up(self, planned: PlannedConnection, session: Session) -> None:
        self.note("up", planned.number)

    def down(
        self, planned: PlannedConnection, session: Session | None, failure: TransportError
    ) -> None:
        self.note("down", planned.number, failure)
        self.downs[type(failure).__name__] += 1
        if session is None:
            return
        for subscription in session.subscriptions:
            self._hole(subscription)
        self._world.judge_end(session, failure)

    def changed(
        self,
        planned: PlannedConnection,
        session: Session,
        added: Sequence[Subscription],
        removed: Sequence[Subscription],
    ) -> None:
        self.note("changed", planned.number, added, removed)
        for subscription in (*added, *removed):
            self._hole(subscription)

    def silent(
        self, planned: PlannedConnection, subscription: Subscription, silence_s: float
    ) -> None:
        self.note("silent", subscription.stream)
        self.downs["silent"] += 1

    def spoke_again(self, planned: PlannedConnection, subscription: Subscription) -> None:
        self.note("spoke again", subscription.stream)

    def refused(self, planned: PlannedConnection, streams: Sequence[str], text: str) -> None:
        self.note("refused", streams)

    def unacknowledged(self, planned: PlannedConnection, streams: Sequence[str]) -> None:
        self.note("unacknowledged", sorted(streams))

    def probed(self, symbol: str, channel: str) -> None:
        """A stream is subscribed to again: a hole when that is sent, and when it is confirmed."""
        for row_class in STANDARD_CLASSES:
            if row_class.channel == channel != "book":
                self.probes[symbol, row_class] += 2

    def _hole(self, subscription: Subscription) -> None:
        for row_class in STANDARD_CLASSES:
            if row_class.channel == subscription.channel:
                self.holes[subscription.symbol, row_class] += 1


class World:
    """Everything of one run."""

    def __init__(self, time: Time, random: Random, pace: float) -> None:
        self.time = time
        self.random = random
        self._pace = pace
        self.venue = self._make_venue()
        self.consumer = Consumer(self.venue, partial(self._expect, False), self._conflates)
        wrong = partial(self._expect, False)
        self.broker = Broker(_PARTITIONS, self.consumer.take, wrong)
        self.trace = Trace(self)
        self.faults = self._make_faults()
        self.wrong: list[str] = []
        self._spoke_s: dict[str, float] = {}
        self._ingestor: Ingestor | None = None
        self._config = self._make_config()

    def _make_venue(self) -> Venue:
        random = self.random
        return Venue(random.randint(6, 14), random, random.uniform(0.3, 1.0), self._pace)

    def _make_faults(self) -> Faults:
        random = Random(self.random.random())
        return Faults(self.venue, self.broker, self.time, self.trace.note, random)

    def _make_config(self) -> Config:
        random = self.random
        return Config.model_validate(
            {
                "kafka": {
                    "partitions": _PARTITIONS,
                    "encoding": "binary",
                    "request_timeout_ms": random.choice((5_000, 30_000)),
                },
                "http": {"enabled": False},
                "budget": {"rows": random.choice((1_500, 8_000_000)), "age_max_s": 40.0},
                "books": {
                    "snapshot_interval_s": random.choice((0.0, 60.0)),
                    "repair_backoff_max_s": _CAP_S,
                },
                "catalogue": {"ttl_s": 30.0},
                "limits": {"backoff_cap_s": _CAP_S},
                "feeds": [
                    {
                        "venue": "simulated",
                        "symbols": ["*"],
                        "streams_per_connection": random.choice((5, 6, 9, 12)),
                    }
                ],
            }
        )

    async def run(self, seconds: float, between_s: float) -> Outcome:
        """Run, let things go wrong for so long, settle, and check what must hold."""
        planned = await make_planned(self._config, self.venue)
        ingestor = self._ingestor = self._make_ingestor(planned)
        running = asyncio.create_task(ingestor.run())
        venue = asyncio.create_task(self.venue.run())
        watching = asyncio.create_task(self._watch())
        await self.faults.run(seconds, between_s)
        async with asyncio.timeout(_OPEN_S):
            while not self._is_open():
                await asyncio.sleep(1.0)
        await asyncio.sleep(SETTLE_S * self._pace)
        self.venue.is_still = True
        await asyncio.sleep(_STILL_S)
        venue.cancel()
        watching.cancel()
        ingestor.stop()
        drained = await running
        await asyncio.gather(venue, watching, return_exceptions=True)
        await asyncio.sleep(1.0)  # for links that are being closed
        self._check(drained)
        trace = hashlib.sha256(self.trace.hash.digest() + self.consumer.hexdigest().encode())
        return Outcome(
            trace.hexdigest(),
            {kind.name: count for kind, count in sorted(self.consumer.rows.items())},
            dict(
                sorted(Counter(cause.name for _, _, cause in self.consumer.gaps.elements()).items())
            ),
            dict(sorted(self.faults.happened.items())),
            dict(sorted(self.trace.downs.items())),
        )

    def _make_ingestor(self, planned: Planned) -> Ingestor:
        venue = self.venue
        ingestor = Ingestor(self._config, planned, session=bytes(16), clocks=self.time.clocks)
        ingestor.supervisor.listeners.add(self.trace)

        async def refresh(adapter: type[FeedAdapter], market: str) -> list[Instrument]:
            listed = await venue.refresh(adapter, market)
            return [] if listed is None else listed.instruments

        act_on = ingestor.supervisor.stale

        def stale(instrument: int, channel: str, silence_s: float, *, probed: bool) -> None:
            connection = ingestor.supervisor.connection_of(instrument, channel)
            if connection is not None and probed and not ingestor.supervisor.is_paused:
                stream = f"{channel} of {ingestor.planned.table[instrument].symbol}"
                self._judge_stale(connection.session, stream, silence_s)
            if connection is not None and not probed:
                self.trace.probed(ingestor.planned.table[instrument].symbol, channel)
            act_on(instrument, channel, silence_s, probed=probed)

        ingestor.supervisor.stale = stale  # type: ignore[method-assign]
        changes = ingestor.changes
        changes.run = partial(changes.watch, venue)  # type: ignore[method-assign]
        changes.revisions.refresh = refresh  # type: ignore[method-assign]
        return ingestor

    # ------------------------------------------------------------------ what must hold

    def _expect(self, is_so: object, what: str) -> None:
        if not is_so:
            self.trace.note("WRONG", what)
            self.wrong.append(f"at {self.time.now_s:.1f} s: {what}")

    def judge_end(self, session: Session, failure: TransportError) -> None:
        """A connection ended: did the venue give a reason?"""
        link = self._link_of(session)
        match failure:
            case PeerClosed():
                return
            case PingTimeout():
                self._expect(link is None or link.is_stalled, f"a pong came: {failure}")
            case PlannedReconnect(reason=reason):
                self._expect(self._judge_reconnect(reason), f"{failure}")
            case FeedStale():
                return  # judged when it was decided: `_judge_stale`
            case _:
                self._expect(False, f"an end without a reason: {failure!r}")

    def _judge_reconnect(self, reason: str) -> bool:
        """Whether the venue, or a new plan, gave this reason to open a connection anew."""
        return reason in {"removed", "maintenance", "replaced"}

    def _allowed(self, symbol: str, row_class: RowClass, cause: Cause) -> int | None:
        """How many GAPs of other causes there may be; None: the usual rule says."""
        return None

    def _judge_stale(self, session: Session, stream: str, silence_s: float) -> None:
        """A stream that is halted alone must not cost its siblings the connection."""
        link, now_s = self._link_of(session), asyncio.get_running_loop().time()
        siblings = {
            one.symbol
            for one in session.subscriptions
            if not (market := self.venue.markets[one.symbol]).is_halted
            and market.is_listed
            and now_s - market.resumed_s > _RESUMED_S * self._pace
        }
        quiet = link is None or link.is_mute or link.is_stalled or not siblings
        if link is not None:  # what passed at last has not been looked at yet
            quiet |= now_s - link.passed_s < _LOOK_S * self._pace
        what = f"siblings {sorted(siblings)} lose their connection: {stream} silent {silence_s} s"
        self._expect(quiet, what)

    def _is_open(self) -> bool:
        assert self._ingestor is not None
        slots = list(self._ingestor.supervisor.slots)
        connections = [slot.connection for slot in slots]
        return all(
            connection is not None
            and connection.is_open
            and not any(map(self.venue.knows, connection.session.refused_streams))
            for connection in connections
        )

    def _link_of(self, session: Session) -> Link | None:
        return next((one for one in self.venue.links if one.handler.session is session), None)

    def _conflates(self) -> bool:
        kafka = self._ingestor.sink if self._ingestor is not None else None
        return kafka is not None and kafka.statistics().steps["conflate"] > 0

    async def _watch(self) -> None:
        """Look at what is bounded."""
        while True:
            await asyncio.sleep(5.0)
            ingestor = self._ingestor
            assert ingestor is not None
            queue = ingestor.sink.queue if ingestor.sink is not None else None
            assert queue is not None
            # A mark may take the place of each instrument's rows.
            self._expect(
                queue.rows <= queue.budget.rows_max + 3 * len(ingestor.planned.table),
                f"{queue.rows} rows are queued",
            )
            self._expect(queue.bytes <= queue.budget.bytes_max, f"{queue.bytes} bytes are queued")
            self._expect(len(asyncio.all_tasks()) < 120, f"{len(asyncio.all_tasks())} tasks")

    def _check(self, drained: Drained) -> None:
        status = drained.status
        self._expect(not drained.lost, f"{drained.lost} rows were lost at the end")
        self._expect(not status.unaccounted, f"the ledger is out of balance: {status.unaccounted}")
        self._expect(not status.pending, f"{status.pending} rows are pending")
        for market in self.venue.markets.values():
            if market.is_listed:
                is_same = self.consumer.is_up_to_date(market)
                self._expect(is_same, f"the last book of {market.symbol} is not the venue's")
        self._check_gaps()

    def _check_gaps(self) -> None:
        """No more holes are declared than there were reasons, of each kind."""
        excuses = self.venue.excuses
        for (symbol, row_class, cause), count in self.consumer.gaps.items():
            other = self._allowed(symbol, row_class, cause)
            match cause:
                case _ if other is not None:
                    allowed = other
                case Cause.DISCONNECT:
                    allowed = self.trace.holes[symbol, row_class]
                case Cause.STALE:
                    allowed = self.trace.probes[symbol, row_class]
                case Cause.SEQUENCE:
                    allowed = excuses.dropped[symbol]
                case Cause.REJECTED:
                    allowed = excuses.malformed[symbol] + 1_000 * excuses.revised[symbol]
                case Cause.SHED:
                    allowed = 1_000 * self.faults.happened["pause"]
                case _:
                    allowed = 0
            self._expect(
                count <= allowed,
                f"{count} GAPs of {symbol} {row_class.name}, cause {cause.name}: "
                f"there were {allowed} reasons",
            )


@contextmanager
def simulated(broker: Broker, pace: float) -> Iterator[None]:
    """Put the simulated broker in the place of Kafka; run rare things rarely.

    pace: how many times longer than usual looks and timers wait.
    """
    look_s = staleness_monitor.LOOK_S * pace
    with (
        simulated_kafka(broker),
        mock.patch.object(
            instrument_changes,
            "WatchPace",
            partial(WatchPace, interval_s=_LIST_S, retry=Backoff(base_s=5.0, cap_s=_CAP_S)),
        ),
        mock.patch.object(book_snapshots, "PAUSE_S", 1.0),
        mock.patch.object(loop_lag, "INTERVAL_S", 10.0),
        mock.patch.object(staleness_monitor, "LOOK_S", look_s),
        mock.patch.object(staleness_monitor, "_LOOK_NS", round(look_s * 1e9)),
        mock.patch.object(health, "_SLICES", max(1, round(10 / pace))),
        mock.patch.object(health, "_SLICE_S", 0.1 * pace),
        mock.patch.object(sink, "TICK_S", sink.TICK_S * pace),
        mock.patch.object(app_ingestor, "REPORT_S", app_ingestor.REPORT_S * pace),
    ):
        yield


@contextmanager
def _connected(world: World, pace: float) -> Iterator[None]:
    """Put the simulated venue in the place of sockets, too."""
    transports = {**supervisor.TRANSPORTS, "picows": world.venue.connect}
    with (
        simulated(world.broker, pace),
        mock.patch.object(supervisor, "TRANSPORTS", transports),
    ):
        yield


def simulate(
    seed: int,
    seconds: float,
    between_s: float,
    pace: float = 1.0,
    story: TextIO | None = None,
) -> Outcome:
    """Run one seed.

    Args:
        seed: of everything that is drawn.
        seconds: virtual seconds in which things go wrong.
        between_s: from one fault to the next, on average.
        pace: seconds between two moves of the markets, on average: more is cheaper.
        story: gets a line for each event.

    Raises:
        AssertionError: with all that did not hold.
    """
    return simulation(
        seed,
        seconds,
        between_s,
        lambda time, random: World(time, random, pace),
        lambda world: _connected(world, pace),
        story,
    )


AnyWorld = TypeVar("AnyWorld", bound=World)


def simulation(
    seed: int,
    seconds: float,
    between_s: float,
    make: Callable[[Time, Random], AnyWorld],
    around: Callable[[AnyWorld], AbstractContextManager[None]],
    story: TextIO | None = None,
) -> Outcome:
    """Run a world.

    Args:
        seed: of everything that is drawn.
        seconds: virtual seconds in which things go wrong.
        between_s: from one fault to the next, on average.
        make: the world.
        around: what takes the place of the outside while it runs.
        story: gets a line for each event.

    Raises:
        AssertionError: with all that did not hold.
    """
    bugs = Counter(bulkheads.bugs)

    async def main(time: Time) -> Outcome:
        world = make(time, Random(seed))
        with around(world):
            outcome = await world.run(seconds, between_s)
        found = Counter(bulkheads.bugs) - bugs
        if story is not None:
            story.writelines(world.trace.lines)
        wrong = [*world.wrong, *(f"{count} bugs of {unit}" for unit, count in found.items())]
        assert not wrong, f"seed {seed}, {seconds:g} s:\n" + "\n".join(wrong)
        return outcome

    return run(main, seed)


def main() -> None:
    """`python -m tests.simulation.run`."""
    parser = argparse.ArgumentParser(description="Simulate some seeds.")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, default=3_600.0, help="virtual time of faults")
    parser.add_argument("--between", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two moves")
    parser.add_argument("--story", action="store_true", help="print each event")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    failed = []
    for seed in given.seeds:
        started_s = process_time()
        try:
            story = sys.stdout if given.story else None
            outcome = simulate(seed, given.seconds, given.between, given.pace, story)
        except AssertionError as failure:
            failed.append(seed)
            sys.stdout.write(f"{failure}\n")
        else:
            sys.stdout.write(f"{seed} {process_time() - started_s:.1f} s {outcome}\n")
        sys.stdout.flush()
    sys.exit(f"failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
