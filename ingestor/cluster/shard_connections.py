"""Opens, changes and closes the connections of shards on one ingestor.

A shard that comes from another worker is opened without GAPs: its rows are held back until that
worker has released it. What is given up for another worker is closed without GAPs too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from ingestor.app.ingestor import Ingestor
from ingestor.cluster.records import Routes, ShardLog, read_connection
from ingestor.model.batch import TickBatch
from ingestor.model.errors import PlanUnusable
from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import Cause, Kind
from ingestor.sinks.row_gate import RowGate, Stream
from ingestor.sources.live.connection import ConnectionSlot
from ingestor.sources.live.plan import PlannedConnection
from ingestor.sources.live.replan import PlanChange, StreamChange

log = structlog.get_logger(__name__)

_SETTLE_S: Final = 0.005
_BY_CHANNEL: Final[Mapping[str, RowClass]] = {
    row_class.channel: row_class for row_class in ROW_CLASSES
}


@dataclass(slots=True)
class _Open:
    """A shard whose connections this worker keeps.

    connections: by number; None while its plan is not whole yet. held: its rows wait at the gate.
    gap: rows may be missing before the first one. takeover: because another worker was lost.
    """

    connections: dict[int, PlannedConnection] | None = None
    revision: int = 0
    held: bool = True
    gap: bool = False
    takeover: bool = False


@dataclass(slots=True)
class PlanOutcome:
    """Hold the result of a revision. problem: why it can't be run, "" where it runs."""

    revision: int = 0
    problem: str = ""
    changed: bool = field(default=False)


class ShardConnections:
    """All connections of one life, by shard."""

    def __init__(self, ingestor: Ingestor, gate: RowGate, routes: Routes) -> None:
        """Create the shard connections.

        Args:
            ingestor: whose connections they are.
            gate: between its flush and Kafka.
            routes: how this machine reaches venues.
        """
        self._ingestor = ingestor
        self._gate = gate
        self._routes = routes
        self._plans: dict[int, ShardLog] = {}
        self._read: set[int] = set()  # shards whose plan was read to its end
        self._open: dict[int, _Open] = {}

    # ------------------------------------------------------------------ the plan

    def begin(self, shards: Iterable[int]) -> None:
        """The plans of these shards are read from their beginning."""
        for shard in shards:
            self._plans[shard] = ShardLog()
            self._read.discard(shard)

    def record(self, shard: int, key: bytes, value: bytes | None) -> bool:
        """Take the next record of a shard's plan.

        Args:
            shard: Number of the shard.
            key: Key of the record.
            value: Value of the record, None where it is deleted.

        Returns:
            True if a whole revision stands.
        """
        plan = self._plans.setdefault(shard, ShardLog())
        return plan.take(key, value) and shard in self._read

    def at_end(self, shard: int) -> None:
        """The plan of a shard was read to its end."""
        self._read.add(shard)

    def follow(self, shard: int) -> PlanOutcome:
        """Bring an open shard to the newest whole revision of its plan."""
        held, plan = self._open.get(shard), self._plans.get(shard)
        if held is None or plan is None or shard not in self._read:
            return PlanOutcome()
        if held.connections is not None and plan.revision == held.revision:
            return PlanOutcome(held.revision)
        table = self._ingestor.planned.table
        known = len(table)
        try:
            wanted = {
                item.number: item
                for item in (
                    read_connection(value, table, self._routes)
                    for value in (plan.complete or {}).values()
                )
            }
        except PlanUnusable as failure:
            return PlanOutcome(plan.revision, str(failure))
        self._revise(known)
        self._change(shard, held, wanted)
        held.revision = plan.revision
        return PlanOutcome(plan.revision, changed=True)

    def _revise(self, known: int) -> None:
        """Let everything follow instruments that have a new revision."""
        planned = self._ingestor.planned
        newest = {one.key: number for number, one in enumerate(planned.table)}
        numbers = (
            {
                subscription.instrument: newest[planned.table[subscription.instrument].key]
                for connection in planned.plan
                for subscription in connection.subscriptions
                if newest[planned.table[subscription.instrument].key] != subscription.instrument
            }
            if len(planned.table) > known
            else {}
        )
        if numbers:
            self._ingestor.flusher.flush()
            self._ingestor.changes.revisions.announce(numbers)
            self._gate.replace_instruments(numbers)

    # ------------------------------------------------------------------ connections

    def open(self, shard: int) -> None:
        """Open the connections of a shard, as soon as its plan is whole, and hold their rows."""
        self._open[shard] = _Open()

    def publish(self, shard: int, *, gap: bool, takeover: bool) -> None:
        """Publish what is held of a shard, and all that follows.

        Args:
            shard: which.
            gap: rows may be missing before the first one.
            takeover: because another worker was lost.
        """
        held = self._open.get(shard)
        if held is None or not held.held:
            return
        held.gap, held.takeover, held.held = gap, takeover, False
        if held.connections is not None:
            self._ingestor.flusher.flush()
            self._declare(held, held.connections.values())
            self._pass(shard, held)

    def _pass(self, shard: int, held: _Open) -> None:
        if self._gate.open(shard):
            log.warning("cluster.rows.dropped", shard=shard, reason="no room to hold them")
            self._declare(replace(held, gap=True), (held.connections or {}).values())

    def close(self, shard: int) -> None:
        """Close the connections of a shard for another worker; what is held is forgotten."""
        held = self._open.pop(shard, None)
        if held is not None and held.connections:
            removed = tuple(self._current(held.connections))
            gone = {item.number for item in removed}
            plan = self._ingestor.planned.plan
            left = tuple(connection for connection in plan if connection.number not in gone)
            new = replace(plan, connections=left)
            self._ingestor.changes.apply(PlanChange(new, (), removed, (), continues=True))
        self._gate.drop(shard)

    def stands(self, shard: int) -> bool:
        """Say whether all connections of a shard are subscribed, or can't be had now."""
        held = self._open.get(shard)
        if held is None or held.connections is None:
            return False
        slots = self._ingestor.supervisor.slots
        return all(_stands(slot) for slot in slots if slot.planned.number in held.connections)

    def rows_of(self, shard: int) -> dict[Stream, int]:
        """Return how many rows of each stream of a shard came to this worker so far."""
        held = self._open.get(shard)
        last = self._ingestor.pipeline.metrics.last_seen
        counts = {row_class: last.rows(row_class) for row_class in ROW_CLASSES}
        return {
            (row_class, number): int(counts[row_class][number])
            for row_class, number in _streams((held.connections or {}).values() if held else ())
            if number < len(counts[row_class])
        }

    @property
    def revision(self) -> int:
        """The newest whole revision that was read of any shard's plan."""
        return max((plan.revision for plan in self._plans.values()), default=0)

    @property
    def shards(self) -> Mapping[int, int]:
        """The open shards, and how many connections each has."""
        return {shard: len(held.connections or ()) for shard, held in self._open.items()}

    def _current(self, connections: Mapping[int, PlannedConnection]) -> list[PlannedConnection]:
        """Return connections as they are now: with the revisions of their instruments."""
        return [
            connection
            for connection in self._ingestor.planned.plan
            if connection.number in connections
        ]

    def _change(self, shard: int, held: _Open, wanted: Mapping[int, PlannedConnection]) -> None:
        """Open, change and close so that a shard has these connections."""
        is_first = held.connections is None
        now = {item.number: item for item in self._current(held.connections or {})}
        added = tuple(one for number, one in wanted.items() if number not in now)
        removed = tuple(one for number, one in now.items() if number not in wanted)
        changed = tuple(
            StreamChange(
                one,
                tuple(sub for sub in one.subscriptions if sub not in now[number].subscriptions),
                tuple(sub for sub in now[number].subscriptions if sub not in one.subscriptions),
            )
            for number, one in wanted.items()
            if number in now and set(one.subscriptions) != set(now[number].subscriptions)
        )
        held.connections = dict(wanted)
        if held.held:
            self._gate.hold(shard, _streams(wanted.values()))
        elif is_first:
            self._declare(held, wanted.values())
        plan = self._ingestor.planned.plan
        rest = tuple(
            connection
            for connection in plan
            if connection.number not in now and connection.number not in wanted
        )
        new = replace(plan, connections=(*rest, *wanted.values()))
        change = PlanChange(new, added, removed, changed, continues=is_first)
        self._ingestor.changes.apply(change)

    def _declare(self, held: _Open, connections: Iterable[PlannedConnection]) -> None:
        """Put a GAP before the first row of each stream."""
        if not held.gap:
            return
        cause = Cause.TAKEOVER if held.takeover else Cause.RESTART
        table, metrics = self._ingestor.planned.table, self._ingestor.pipeline.metrics
        assert self._ingestor.sink is not None  # a worker publishes
        now_ns = self._ingestor.clocks.wall_ns()
        for row_class, number in sorted(_streams(connections), key=lambda one: one[1]):
            row = control_row(row_class, Kind.GAP, number, now_ns, cause=cause)
            metrics.declared(row_class, row)
            self._ingestor.sink.submit(TickBatch(row_class, row, table), now_ns)

    async def settled(self) -> None:
        """Wait until all rows that Kafka was given up to now are acknowledged."""
        sink = self._ingestor.sink
        assert sink is not None  # a worker publishes
        self._ingestor.flusher.flush()
        targets = {
            queue: queue.next_sequence + queue.rows
            for queue in sink.queue.partition_queues.values()
            if queue.held_rows
        }
        for queue, target in targets.items():
            while queue.held_rows and queue.next_sequence - queue.rows_in_flight < target:  # noqa: ASYNC110
                await asyncio.sleep(_SETTLE_S)


def _stands(slot: ConnectionSlot) -> bool:
    connection = slot.connection
    if connection is None:
        return slot.attempt > 0  # the venue doesn't let us in: the other worker fares no better
    return connection.is_open and not connection.session.pending


def _streams(connections: Iterable[PlannedConnection]) -> set[Stream]:
    """Return what connections bring: quotes too where a venue has them in its books."""
    found = set()
    for connection in connections:
        for subscription in connection.subscriptions:
            found.add((_BY_CHANNEL[subscription.channel], subscription.instrument))
    return found
