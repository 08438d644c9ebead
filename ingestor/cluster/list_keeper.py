"""Keeps the plan up to the venues' instrument lists: the work of whoever has shard 0.

Workers load no lists for themselves: two with different lists would leave streams twice or nowhere.
One of them reads all lists again, and appends what began, ended or changed to the plan, as
`ingestor cluster apply` does; all others follow. It does so only where its own configuration is the
one that was applied: in the middle of a change of it, the plan is left alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

import structlog

from ingestor.adapter.instrument_list import carry
from ingestor.app import settings
from ingestor.app.planning import InstrumentSource, ListSource, Planned, Planner, check_size
from ingestor.cluster.proposal import Proposal, feeds_digest, propose
from ingestor.cluster.store import Cluster, read_cluster, write_plan
from ingestor.config.model import Config
from ingestor.model.errors import DecodeError, IngestError, TransportError
from ingestor.sources.live.plan import Plan, make_plan
from ingestor.sources.live.replan import together
from ingestor.telemetry.bulkheads import bulkheads

UNIT: Final = "instrument list"  # as in docs/bulkheads.md
INTERVAL_S: Final = 60.0  # the least time between two questions to one market
WATCH_S: Final = 1.0  # how often it is looked whether shard 0 has come

Stream = tuple[str, str, str, str]  # venue, market, symbol, channel

log = structlog.get_logger(__name__)


def keep_doubted(
    running: Plan,
    wanted: Plan,
    unread: Collection[tuple[str, str]],
    doubted: Collection[Stream],
) -> tuple[Plan, frozenset[Stream]]:
    """Return what is wanted, and what of it is running only because it is missing for the first
    time: a single list without a symbol makes no delisting.

    Args:
        running: The plan in force.
        wanted: By the lists of now.
        unread: Venues and markets whose lists can't be had: what runs there stays.
        doubted: Streams that were missing the time before.
    """
    have = streams_of(wanted)
    left = {stream for stream in streams_of(running) - have if stream[:2] not in unread}
    stay = {item for item in streams_of(running) - have if item not in left or item not in doubted}
    return together(wanted, running.only(stay)), frozenset(left)


def streams_of(plan: Plan) -> set[Stream]:
    """Return all streams of a plan."""
    return {
        (planned.venue, planned.market, item.symbol, item.channel)
        for planned in plan
        for item in planned.subscriptions
    }


class ListKeeper:
    """Reads lists each `catalogue.ttl_s`, and sooner where one can't be had or is doubted."""

    def __init__(
        self, config: Config, source: InstrumentSource, is_asked: Callable[[], bool]
    ) -> None:
        """Create the list keeper.

        Args:
            config: of the worker.
            source: gives lists, within what the venues allow this process.
            is_asked: returns whether this worker has shard 0.
        """
        self._source = source
        self._config = config
        self._kafka = settings.kafka_settings(config.kafka)
        self._is_asked = is_asked
        self._digest = feeds_digest(config)
        self._planner = self._new_planner(None)
        self._doubted: frozenset[Stream] = frozenset()
        self._unread: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Keep the plan until cancelled."""
        if self._planner is None:
            return
        while True:
            while not self._is_asked():  # noqa: ASYNC110
                await asyncio.sleep(WATCH_S)
            await asyncio.sleep(self._pause_s())
            if self._is_asked():
                await self._round(self._planner)

    def _pause_s(self) -> float:
        ttl_s = max(self._config.catalogue.ttl_s, WATCH_S)
        if self._unread or self._doubted:
            ttl_s = min(ttl_s, INTERVAL_S)
        return ttl_s * random.uniform(0.9, 1.1)

    async def _round(self, planner: Planner) -> None:
        """Read all lists, and write what they change."""
        self._unread.clear()
        read = partial(self._read, planner)
        await asyncio.gather(*(read(source) for source in planner.sources))
        try:
            cluster = await read_cluster(self._kafka, self._config.cluster.name)
            if cluster.config != self._digest:
                log.warning("cluster.lists.ignored", reason="another configuration was applied")
                return
            found = self._propose(cluster)
            if not found.is_empty:
                expected = found.revision - 1
                await write_plan(self._kafka, cluster.name, found.changes, expected)
                log.info(
                    "cluster.lists.followed",
                    revision=found.revision,
                    added=found.added,
                    removed=found.removed,
                    changed=found.changed,
                )
        except IngestError as failure:
            log.warning("cluster.lists.failed", reason=str(failure))

    async def _read(self, planner: Planner, one: ListSource) -> None:
        """Read one list; a failure costs this market alone."""
        try:
            fresh = await self._source.refresh(one.adapter, one.market, one.rest_url)
        except (TransportError, DecodeError) as failure:
            log.warning("cluster.list.failed", market=one.market, reason=str(failure))
            fresh = None
        except Exception as failure:  # noqa: BLE001  # the boundary of a list
            bulkheads.bug(UNIT, failure, venue=one.venue, market=one.market)
            fresh = None
        if fresh is None:
            self._unread.add((one.venue, one.market))
        else:
            planner.lists[one] = carry(planner.lists.get(one), fresh)

    def _propose(self, cluster: Cluster) -> Proposal:
        """Return what the lists of now change. Raises ClusterError, ConfigError."""
        planner = self._new_planner(self._planner)
        assert planner is not None  # there are feeds
        plan = make_plan(planner.wanted(), planner.table)
        check_size(plan, self._config, planner.place)
        planner.count_waiting()
        planned = Planned(planner.table, plan)
        return propose(planned, cluster, self._config, {}, keep=self._keep)

    def _keep(self, running: Plan, wanted: Plan) -> Plan:
        kept, self._doubted = keep_doubted(running, wanted, self._unread, self._doubted)
        return kept

    def _new_planner(self, before: Planner | None) -> Planner | None:
        """Return a planner that has handed nothing out yet, with the lists that were read."""
        if not self._config.feeds:
            return None
        planner = Planner(self._config)
        if before is not None:
            planner.lists = before.lists
        return planner
