"""Make the next revision of a plan and say what it means: `ingestor cluster plan` and `apply`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ingestor.app import settings
from ingestor.app.planning import Planned
from ingestor.cluster.packing import (
    PARCELS_PER_SHARD,
    Parcel,
    PoolLimit,
    PoolLoad,
    busiest,
    cut,
    deal,
    pack,
    pool_loads,
)
from ingestor.cluster.records import (
    Routes,
    closing_record,
    connection_record,
    key_of,
    read_connection,
)
from ingestor.cluster.store import Changes, Cluster, closing_of, revision_records
from ingestor.config.model import ClusterConfig, Config
from ingestor.model.errors import ClusterError, PlanUnusable
from ingestor.model.instruments import InstrumentTable
from ingestor.sources.live.plan import Plan, PlannedConnection
from ingestor.sources.live.replan import replan

SESSION_MARGIN_S: Final = 1.0  # from the end of a session until its shards are claimed

_OF_THE_MACHINE: Final = {"source_addresses", "proxy", "allow_plaintext"}

Weights = Mapping[str, float]  # messages per second by instrument key; every other stream counts 1


@dataclass(frozen=True, slots=True)
class Proposal:
    """The next revision.

    added, removed, changed: connections. moved: those that change their shard. busiest: the load
    of the busiest worker in units of the mean. takeover_s: from the loss of a worker until the
    venues have let the others open its connections.
    """

    revision: int
    shards: int
    connections: int
    streams: int
    added: int
    removed: int
    changed: int
    moved: int
    busiest: float
    takeover_s: float
    pools: tuple[PoolLoad, ...]
    changes: Changes

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.moved)

    def to_json(self) -> dict[str, Any]:
        """Return all but the records."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "changes"}
        return {**fields, "pools": [asdict(pool) | {"holds": pool.holds} for pool in self.pools]}


def propose(
    planned: Planned,
    cluster: Cluster,
    config: Config,
    weights: Weights,
    *,
    rebalance: bool = False,
    keep: Callable[[Plan, Plan], Plan] = lambda _running, wanted: wanted,
) -> Proposal:
    """Return what the next revision of the plan is.

    Args:
        planned: what the configuration wants, by the lists of now.
        cluster: what the topics have.
        config: of any worker.
        weights: of instruments that differ much.
        rebalance: pack all connections anew, instead of new ones alone.
        keep: returns what is wanted, by what runs and what the lists say.

    Raises:
        ClusterError: one worker fewer would break a limit of a venue.
    """
    table, shards = InstrumentTable(), len(cluster.shards)
    running = running_plan(cluster, table, settings.routes(config))
    # What the lists say comes after what the topics have: it is the newer revision.
    numbers = {old: table.add(instrument) for old, instrument in enumerate(planned.table)}
    wanted = keep(running, planned.plan.renumbered(numbers))
    after = _cut(wanted, table, weights, shards)
    if len(running):
        after = replan(running, wanted).plan.renumbered(newest(table))
    parcels = [_parcel(item, table, weights) for item in after]
    there = shards_of(cluster)
    packed = pack(parcels, shards, {} if rebalance else there)
    limits = {_pool(item): _limit(item) for item in after}
    loads = pool_loads(
        parcels, packed, config.cluster.workers, limits, config.cluster.workers_per_egress
    )
    check_limits(loads, config.cluster)
    records: dict[int, dict[bytes, bytes]] = {shard: {} for shard in range(shards)}
    for item in after:
        records[packed[item.number]][key_of(item.number)] = connection_record(item, table)
    revision = cluster.revision + 1
    closing = {
        shard: closing_of(closing_record(revision, found, feeds_digest(config)))
        for shard, found in records.items()
    }
    before = {key: value for log in cluster.shards.values() for key, value in log.records.items()}
    now = {key: value for found in records.values() for key, value in found.items()}
    dealt = deal(shards, range(min(config.cluster.workers, shards)))
    session_s = config.cluster.session_timeout_ms / 1e3 + SESSION_MARGIN_S
    return Proposal(
        revision,
        shards,
        connections=len(after),
        streams=sum(len(item.streams) for item in after),
        added=len(now.keys() - before.keys()),
        removed=len(before.keys() - now.keys()),
        changed=sum(before[key] != now[key] for key in now.keys() & before.keys()),
        moved=sum(there.get(number, shard) != shard for number, shard in packed.items()),
        busiest=round(busiest(parcels, packed, dealt), 3),
        takeover_s=round(session_s + max((load.takeover_s for load in loads), default=0.0), 1),
        pools=tuple(loads),
        changes=revision_records(cluster.shards, records, closing),
    )


def newest(table: InstrumentTable) -> dict[int, int]:
    """Return the revision in force of each instrument that has a newer one, by number."""
    found = {}
    for number, instrument in enumerate(table):
        latest = table.symbols(instrument.venue, instrument.market)[instrument.symbol]
        if latest != number:
            found[number] = latest
    return found


def feeds_digest(config: Config) -> str:
    """Return a digest of what a plan is made of: equal for all workers of one configuration."""
    found = hashlib.sha256()
    for feed in config.feeds:
        found.update(feed.model_dump_json(exclude=_OF_THE_MACHINE).encode())
    return found.hexdigest()[:16]


def check_limits(loads: Iterable[PoolLoad], config: ClusterConfig) -> None:
    """Raise ClusterError where a venue's limit would not hold with one worker fewer."""
    for load in loads:
        if not load.holds:
            raise ClusterError(
                f"{load.pool}: {load.connections:,} connections come to "
                f"{load.per_address:,} at one "
                f"address when one of {config.workers} workers is lost; the venue allows "
                f"{load.limit:,}",
                "run more workers (cluster.workers), give them addresses of their own "
                "(cluster.workers_per_egress), or subscribe to less",
            )


def running_plan(cluster: Cluster, table: InstrumentTable, routes: Routes) -> Plan:
    """Return the connections that the topics have, whole or not.

    One that this program doesn't know how to run is left out: the next revision replaces it.

    Args:
        cluster: what the topics have.
        table: gets the instruments.
        routes: of this configuration.
    """
    found = []
    for records in (log.records for log in cluster.shards.values()):
        for value in records.values():
            with suppress(PlanUnusable):
                found.append(read_connection(value, table, routes))
    return Plan(tuple(sorted(found, key=lambda one: one.number)))


def shards_of(cluster: Cluster) -> dict[int, int]:
    """Return where each connection is, by its number."""
    return {
        int(key): shard
        for shard, log in cluster.shards.items()
        for key in log.records
        if key.isdigit()
    }


def _pool(one: PlannedConnection) -> str:
    return f"{one.venue} {one.market}"


def _limit(one: PlannedConnection) -> PoolLimit:
    limits = one.limits
    return PoolLimit(limits.connections_per_address, limits.connects_per_s)


def _parcel(one: PlannedConnection, table: InstrumentTable, weights: Weights) -> Parcel:
    return Parcel(one.number, _pool(one), sum(_weights(one, table, weights)) or 1.0)


def _weights(one: PlannedConnection, table: InstrumentTable, weights: Weights) -> list[float]:
    """Return what each subscription weighs: an instrument's rate is spread over its channels."""
    channels: dict[int, int] = {}
    for subscription in one.subscriptions:
        channels[subscription.instrument] = channels.get(subscription.instrument, 0) + 1
    return [
        weights[key] / channels[subscription.instrument]
        if (key := table[subscription.instrument].key) in weights
        else 1.0
        for subscription in one.subscriptions
    ]


def _cut(plan: Plan, table: InstrumentTable, weights: Weights, shards: int) -> Plan:
    """Give hot instruments connections of their own, so that they can be packed apart."""
    if not weights:
        return plan
    total = sum(sum(_weights(connection, table, weights)) for connection in plan)
    cap = total / shards / PARCELS_PER_SHARD
    found: list[PlannedConnection] = []
    for connection in plan:
        units: dict[int, list[int]] = {}
        for place, subscription in enumerate(connection.subscriptions):
            units.setdefault(subscription.instrument, []).append(place)
        each = _weights(connection, table, weights)
        groups = list(units.values())
        for part in cut([sum(each[place] for place in unit) for unit in groups], cap):
            held = tuple(connection.subscriptions[place] for unit in part for place in groups[unit])
            found.append(replace(connection, number=len(found), subscriptions=held))
    return replace(plan, connections=tuple(found))
