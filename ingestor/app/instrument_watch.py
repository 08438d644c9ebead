"""Reads instrument lists again while the program runs, and tells what changed.

Each list is a unit of its own: one that can't be had is asked for with backoff and holds up no
other. A list that came from disk is read again soon after the start, then every `ttl_s`, and sooner
when somebody asks (`request`): for a number that the metadata don't allow, checksums that keep
failing, an announcement of the venue.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from ingestor.adapter.instrument_list import InstrumentList, ListChange, carry, difference, keep
from ingestor.app.planning import InstrumentSource, ListSource, Planner
from ingestor.model.backoff import Backoff
from ingestor.telemetry.bulkheads import bulkheads

UNIT: Final = "instrument list"  # as in docs/bulkheads.md
SHOWN_MAX: Final = 10  # symbols that one log line names

RETRY: Final = Backoff(base_s=5.0, cap_s=600.0, floor_s=1.0)

OnChange = Callable[[ListSource, InstrumentList, ListChange], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchPace:
    """Set how often lists are read.

    ttl_s: seconds between two readings of a list that is there. interval_s: the least time between
    two questions to one market, whoever asks. start_s: within how long after the start a list that
    came from disk is read again. retry: waits for a list that can't be had.
    """

    ttl_s: float
    interval_s: float = 60.0
    start_s: float = 30.0
    retry: Backoff = RETRY


class InstrumentWatch:
    """Keeps a planner's lists fresh."""

    def __init__(
        self,
        planner: Planner,
        pace: WatchPace,
        on_change: OnChange,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """Create the instrument watch.

        Args:
            planner: whose lists are kept; it has the new one before `on_change` is called.
            pace: how often lists are read.
            on_change: called with the list and how it differs from the one before; all is new in
                the first one. What it raises is reported, and the change is told again next time.
            random: returns numbers uniform in [0, 1).
        """
        self._planner = planner
        self._pace = pace
        self._on_change = on_change
        self._random = random
        self._asked: dict[ListSource, asyncio.Event] = {
            source: asyncio.Event() for source in planner.sources
        }
        self._missed: dict[ListSource, set[str]] = {}

    def request(self, venue: str, market: str) -> None:
        """Have a market's list read as soon as the pace allows."""
        for source, asked in self._asked.items():
            if (source.venue, source.market) == (venue, market):
                asked.set()

    async def run(self, source: InstrumentSource) -> None:
        """Read lists until cancelled. source: where they come from, such as an open `Catalog`."""
        async with asyncio.TaskGroup() as group:
            for market in self._asked:
                follow = partial(self._follow, source, market)
                kept = bulkheads.keep(UNIT, follow, venue=market.venue, market=market.market)
                group.create_task(kept, name=f"list {market.venue} {market.market}")

    async def _follow(self, source: InstrumentSource, one: ListSource) -> None:
        """Read one list again and again.

        The sleeps can't be cut short by `request`: they are the least time between two questions.
        """
        pace = self._pace
        failures = 0
        if one not in self._planner.lists:  # it was asked for at the start, in vain
            await asyncio.sleep(pace.retry.delay_s(0, self._random))
        while True:
            if failures == 0:
                await self._wait(one)
            fresh = await source.refresh(one.adapter, one.market, one.rest_url)
            if fresh is None:
                await asyncio.sleep(pace.retry.delay_s(failures, self._random))
                failures += 1
            else:
                failures = 0
                self._take(one, fresh)
                await asyncio.sleep(pace.interval_s)

    def _delay_s(self, one: ListSource) -> float:
        listed = self._planner.lists.get(one)
        if listed is None:
            return 0.0
        if not listed.fresh:
            return self._pace.start_s * self._random()
        return max(self._pace.ttl_s * (0.9 + 0.2 * self._random()) - self._pace.interval_s, 0.0)

    async def _wait(self, one: ListSource) -> None:
        """Wait until a list is due, or somebody asks for it."""
        asked = self._asked[one]
        try:
            async with asyncio.timeout(self._delay_s(one)):
                await asked.wait()
        except TimeoutError:
            pass
        asked.clear()

    def _take(self, one: ListSource, fresh: InstrumentList) -> None:
        lists = self._planner.lists
        old = lists.get(one)
        fresh = self._doubt(one, old, carry(old, fresh))
        change = difference(old or InstrumentList(one.venue, one.market), fresh)
        lists[one] = fresh
        if not change:
            return
        _report(one, change)
        try:
            self._on_change(one, fresh, change)
        except Exception as failure:  # noqa: BLE001  # the boundary
            if old is None:
                del lists[one]
            else:
                lists[one] = old
            bulkheads.bug(UNIT, failure, venue=one.venue, market=one.market)

    def _doubt(
        self, one: ListSource, old: InstrumentList | None, fresh: InstrumentList
    ) -> InstrumentList:
        """Return a list in which symbols stay that are missing for the first time.

        It is asked for again at once: only a second list without them makes a delisting.
        """
        if old is None:
            return fresh
        gone = {*difference(old, fresh).gone}
        new = gone - self._missed.get(one, set())
        self._missed[one] = gone
        if not new:
            return fresh
        self._asked[one].set()
        return keep(fresh, old, new)


def _report(one: ListSource, change: ListChange) -> None:
    symbols = {
        "added": [found.symbol for found in change.added],
        "resumed": [found.symbol for found in change.resumed],
        "changed": [after.symbol for _, after in change.changed],
        "halted": [f"{found.symbol} ({found.status})" for found in change.halted],
        "gone": list(change.gone),
    }
    counts = {name: len(found) for name, found in symbols.items() if found}
    shown = {f"{name}_first": found[:SHOWN_MAX] for name, found in symbols.items() if found}
    log.info("catalogue.changed", venue=one.venue, market=one.market, **counts, **shown)
