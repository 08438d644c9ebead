"""Lets the process follow its instruments: new metadata, listings, delistings, a new plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from ingestor.adapter import BookRule, FeedAdapter, TradeNumbers
from ingestor.adapter.instrument_list import InstrumentList, ListChange
from ingestor.app import settings
from ingestor.app.auxiliary_records import AuxiliaryRecords
from ingestor.app.instrument_revisions import Revisions
from ingestor.app.instrument_watch import InstrumentWatch, WatchPace
from ingestor.app.planning import InstrumentSource, ListSource, Planned, Planner
from ingestor.app.reload import Proposal
from ingestor.config.model import Config
from ingestor.model.clocks import Clocks
from ingestor.model.rows import Cause
from ingestor.pipeline.flusher import Flusher
from ingestor.pipeline.pipeline import FlushResult, Pipeline
from ingestor.recording.format import forgotten, revision
from ingestor.recording.recorder import Recorder
from ingestor.sources.live.plan import make_plan
from ingestor.sources.live.replan import PlanChange, replan, together, without
from ingestor.sources.live.supervisor import Supervisor
from ingestor.sources.rest.catalog import Catalog
from ingestor.sources.rest.pool import RestPools
from ingestor.telemetry.bulkheads import bulkheads

_PROVISIONAL: Final = 1 << 40  # above the number of any instrument

log = structlog.get_logger(__name__)


class PlanInForce:
    """The plan that runs, and the book rule of each of its markets."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self._rules = planned.plan.book_rules()
        self._trade_numbers = planned.plan.trade_numbers()

    def rule_of(self, number: int) -> BookRule:
        """Return the book rule of an instrument, by its number."""
        found = self.known_rule_of(number)
        assert found is not None, "its market is, or was, in the plan"
        return found

    def known_rule_of(self, number: int) -> BookRule | None:
        """Return the same, None where the market was in no plan yet."""
        instrument = self.planned.table[number]
        market = (instrument.venue, instrument.market)
        return self._rules.get((*market, instrument.symbol)) or self._rules.get((*market, ""))

    def trade_numbers_of(self, number: int) -> TradeNumbers:
        """Return what the trade numbers of an instrument say, by its number."""
        instrument = self.planned.table[number]
        return self._trade_numbers.get((instrument.venue, instrument.market), TradeNumbers.NONE)

    def apply(self, change: PlanChange) -> None:
        """Take a new plan. The rules of markets that ended stay, for rows under way."""
        self._rules.update(change.plan.book_rules())
        self._trade_numbers |= change.plan.trade_numbers()
        self.planned = replace(self.planned, plan=change.plan)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self.planned = replace(self.planned, plan=self.planned.plan.renumbered(numbers))


class InstrumentChanges:
    """Applies what changes to all parts that keep state by instrument or stream."""

    def __init__(
        self,
        config: Config,
        in_force: PlanInForce,
        pipeline: Pipeline,
        flusher: Flusher,
        supervisor: Supervisor,
        recorder: Recorder | None,
        records: AuxiliaryRecords | None,
        clocks: Clocks,
        pools: RestPools,
    ) -> None:
        """Create the instrument changes.

        Args:
            config: of the process.
            in_force: the plan that runs; it is replaced here.
            pipeline: whose books and trades follow new revisions.
            flusher: flushed before each change, so that a replay finds it at the same place.
            supervisor: whose connections and streams follow.
            recorder: keeps each change for the replay; None where nothing is recorded.
            records: publishes new metadata; None where nothing is published.
            clocks: of the process.
            pools: ask the venues.
        """
        self._config = config
        self._in_force = in_force
        self._pipeline = pipeline
        self._flusher = flusher
        self._supervisor = supervisor
        self._recorder = recorder
        self._records = records
        self._pools = pools
        self._wall_ns = clocks.wall_ns
        catalogue = config.catalogue
        self.revisions = Revisions(
            in_force.planned.table,
            pools,
            settings.catalogue_settings(catalogue),
            _rest_urls(config),
            clocks.steady_s,
        )
        self._lists = self._watch_over(in_force.planned.planner)
        self._refreshing: set[asyncio.Task[None]] = set()
        self._replaced = asyncio.Event()  # the lists are other ones now
        self.revisions.subscribe(supervisor.replace_instruments)
        self.revisions.subscribe(self._revise)

    @property
    def source(self) -> InstrumentSource:
        """Return the source of instrument lists."""
        return Catalog(settings.catalogue_settings(self._config.catalogue), self._pools)

    async def run(self) -> None:
        """Read instrument lists again until cancelled."""
        await self.watch(self.source)

    async def watch(self, source: InstrumentSource) -> None:
        """Read instrument lists again until cancelled. source: where they come from."""
        try:
            while True:
                self._replaced.clear()
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(self._watch_lists(source))
                    await self._replaced.wait()
                    watching.cancel()
        finally:
            for task in self._refreshing:
                task.cancel()

    async def _watch_lists(self, source: InstrumentSource) -> None:
        if self._lists is not None:
            await self._lists.run(source)

    def _watch_over(self, planner: Planner | None) -> InstrumentWatch | None:
        if planner is None:
            return None
        pace = WatchPace(self._config.catalogue.ttl_s)
        return InstrumentWatch(planner, pace, self._follow_list)

    def observe_broken(self, result: FlushResult, _now_ns: int) -> None:
        """Ask for new metadata where checksums fail: they may have changed without a word."""
        for error in result.errors:
            if error.cause == Cause.CHECKSUM.name.lower() and self._lists is not None:
                venue, market, _ = error.instrument.split(":", 2)
                self._lists.request(venue, market)

    def observe_rejected(self, result: FlushResult, _now_ns: int) -> None:
        """Ask for new metadata where frames were refused for numbers that are too fine."""
        for adapter, market in self.revisions.suspects(result.rejected):
            refresh = bulkheads.once("instrument list", partial(self._refresh, adapter, market))
            task = asyncio.get_running_loop().create_task(refresh, name="instruments")
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)

    def apply(self, change: PlanChange) -> None:
        """Follow a new plan: add, remove and change connections and streams while running."""
        self._flusher.flush()
        rules = {
            item.instrument: self._in_force.known_rule_of(item.instrument)
            for item in change.subscribed
        }
        self._in_force.apply(change)
        self._supervisor.apply(change)
        self._flusher.flush()  # the GAPs of what is given up, before its books are forgotten
        ended = [
            one for one, rule in rules.items() if rule not in (None, self._in_force.rule_of(one))
        ]
        needed = {
            subscription.instrument
            for connection in change.plan
            for subscription in connection.subscriptions
            if subscription.channel in connection.book.channels
        }
        for subscription in change.unsubscribed:
            number = subscription.instrument
            is_of_book = subscription.channel in self._in_force.rule_of(number).channels
            if is_of_book and number not in needed:
                ended.append(number)
        self._forget(dict.fromkeys(ended))
        if self._records is not None:
            table = self._in_force.planned.table
            fresh = {subscription.instrument for subscription in change.subscribed}
            self._records.instruments(table[number] for number in sorted(fresh))

    def _forget(self, numbers: Iterable[int]) -> None:
        """Drop books, in the recording too, so that a replay declares the same gaps."""
        by_venue: dict[str, list[str]] = {}
        for number in numbers:
            one = self._in_force.planned.table[number]
            by_venue.setdefault(one.venue, []).append(one.key)
            self._pipeline.books.forget(number)
        if self._recorder is not None:
            for keys in by_venue.values():
                self._recorder.record_decision(None, self._wall_ns(), forgotten(keys))

    def change_to(self, proposal: Proposal) -> PlanChange:
        """Return how the plan in force becomes another one. Nothing is applied.

        Instruments that nothing is subscribed to yet have numbers that no table has.
        """
        return self._change(proposal, lambda number: _PROVISIONAL + number)

    def adopt(self, proposal: Proposal) -> PlanChange:
        """Follow another configuration and its plan, from the next event of the loop on."""
        table, instruments = self._in_force.planned.table, proposal.planner.table
        change = self._change(proposal, lambda number: self.revisions.add(instruments[number]))
        proposal.planner.table = table
        planned = self._in_force.planned
        self._in_force.planned = replace(
            planned, planner=proposal.planner, waiting=proposal.planner.waiting
        )
        self._config = proposal.config
        self.revisions.rest_urls = _rest_urls(proposal.config)
        if not change.is_empty:
            self.apply(change)
        proposal.planner.count_waiting()
        self._lists = self._watch_over(proposal.planner)
        self._replaced.set()
        return change

    def _change(self, proposal: Proposal, number_of: Callable[[int], int]) -> PlanChange:
        """number_of: gives an instrument that is not carried a number, by its own there."""
        planned = self._in_force.planned
        carried = {
            subscription.instrument for each in planned.plan for subscription in each.subscriptions
        }
        numbers = {}
        for number, instrument in enumerate(proposal.planner.table):
            symbols = planned.table.symbols(instrument.venue, instrument.market)
            mine = symbols.get(instrument.symbol)
            numbers[number] = mine if mine in carried and mine is not None else number_of(number)
        return replan(planned.plan, proposal.plan.renumbered(numbers))

    def _follow_list(self, source: ListSource, _listed: InstrumentList, change: ListChange) -> None:
        """Take what changed in an instrument list: metadata, symbols that begin, and that end."""
        planned = self._in_force.planned
        planner = planned.planner
        assert planner is not None  # who watches lists has one
        # What was halted may have changed meanwhile, and it may have run all along.
        fresh = [*(after for _, after in change.changed), *change.resumed]
        numbers = self.revisions.revise(fresh)
        if numbers:
            self._flusher.flush()
            self.revisions.announce(numbers)
        running = self._in_force.planned.plan
        planner.retire(source.venue, source.market, change.gone)
        wanted = [wish.of(running.is_mine, planned.table) for wish in planner.wanted(source)]
        planner.count_waiting()
        rest = without(running, source.venue, source.market, change.gone)
        plan_change = replan(running, together(rest, make_plan(wanted, planned.table)))
        if len(plan_change.plan) > self._config.limits.connections_max:
            log.error("plan.too_large", connections=len(plan_change.plan), venue=source.venue)
        elif not plan_change.is_empty:
            self.apply(plan_change)

    async def _refresh(self, adapter: type[FeedAdapter], market: str) -> None:
        """A number was finer than its instrument allows: take the venue's new metadata."""
        fresh = await self.revisions.refresh(adapter, market)
        self._flusher.flush()  # from here on no frame comes between, so that a replay can follow
        numbers = self.revisions.revise(fresh)
        if numbers:
            self.revisions.announce(numbers)

    def _revise(self, numbers: Mapping[int, int]) -> None:
        """Let pipeline, recording and topics follow new revisions. numbers: old -> new."""
        now_ns = self._wall_ns()
        self._in_force.replace_instruments(numbers)
        self._pipeline.replace_instruments(numbers, now_ns)
        table = self._in_force.planned.table
        revised = [table[new] for new in numbers.values()]
        if self._recorder is not None:
            self._recorder.record_decision(None, now_ns, revision(revised))
        if self._records is not None:
            self._records.instruments(revised)


def _rest_urls(config: Config) -> dict[tuple[str, str], str | None]:
    return {(feed.venue, feed.market): feed.rest_url for feed in config.feeds}
