"""One life of a worker: an ingestor under a producer id of its own, and its part in the cluster.

The machine (`ingestor.cluster.shards`) decides; here its actions are done and its events told. A
life ends when the worker is stopped, or when another worker fenced it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final

import orjson
import structlog
from aiokafka import AIOKafkaProducer, errors

from ingestor.app import settings
from ingestor.app.ingestor import Ingestor
from ingestor.cluster.claims import Claim, ClaimState, Life
from ingestor.cluster.claims_log import ClaimsLog
from ingestor.cluster.fencing import fence_life
from ingestor.cluster.list_keeper import ListKeeper
from ingestor.cluster.membership import Membership
from ingestor.cluster.rates import rates_key, rates_of
from ingestor.cluster.records import claim_key, claim_record
from ingestor.cluster.shard_connections import ShardConnections
from ingestor.cluster.shards import (
    Action,
    Drop,
    Fence,
    Open,
    Phase,
    Publish,
    Release,
    ShardMachine,
    Write,
)
from ingestor.config.model import Config
from ingestor.kafka.settings import CLAIMS
from ingestor.model.backoff import Backoff
from ingestor.model.errors import IngestError
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.tracing import tracing

log = structlog.get_logger(__name__)

TICK_S: Final = 0.05
OFFER_S: Final = 5.0  # for offers to be acknowledged before the group gives shards away
CATCH_UP_S: Final = 5.0
GIVE_UP_S: Final = 5.0
RETRY: Final = Backoff(base_s=0.1, cap_s=2.0, floor_s=0.05)


class WorkerLife:
    """Ties an ingestor, the group, the claims and the machine together. Made and run once."""

    def __init__(
        self,
        config: Config,
        me: Life,
        ingestor: Ingestor,
        group: Membership,
        where: Callable[[], str],
    ) -> None:
        """Create the worker life.

        Args:
            config: of the worker.
            me: this life.
            ingestor: without connections; its sink publishes under this life's id.
            group: deals shards.
            where: returns the worker's address, for people.
        """
        assert ingestor.gate is not None  # a life has one
        self.me = me
        self.ingestor = ingestor
        self._config = config
        self._kafka = settings.kafka_settings(config.kafka)
        self._group = group
        self._where = where
        asks_first = config.cluster.protocol == "classic"
        self._traced = (0, 0.0)  # takeovers and their seconds that have a span
        self.machine = ShardMachine(
            me,
            time.monotonic,
            asks_first=asks_first,
            handover_parallel=config.cluster.handover_parallel,
        )
        self.connections = ShardConnections(ingestor, ingestor.gate, settings.routes(config))
        self._claims = ClaimsLog(
            self._kafka, self._kafka.topic(CLAIMS), self._read, self._commanded
        )
        self._lists = ListKeeper(
            config, ingestor.changes.source, lambda: self.machine.phases.get(0) is Phase.LIVE
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # of the group's events
        self._started_ms = int(time.time() * 1e3)
        self._draining = asyncio.Event()
        self.over = asyncio.Event()  # another worker fenced this life

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Take part until `drain` has given everything away, or the life is over."""
        sink = self.ingestor.sink
        assert sink is not None  # a worker publishes
        sink.on_fenced = self.over.set
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(bulkheads.keep("cluster claims", self._claims.run))
            ticking = tasks.create_task(bulkheads.keep("cluster", self._tick))
            await self._caught_up()
            keeping = tasks.create_task(bulkheads.keep("cluster lists", self._lists.run))
            measuring = tasks.create_task(bulkheads.keep("cluster", self._measure))
            member = tasks.create_task(self._group.run(self), name="cluster group")
            await self._until_over(member)
            for item in (reading, ticking, keeping, measuring, *self._tasks):
                item.cancel()
        if self.ingestor.gate is not None:
            self.ingestor.gate.end()

    def drain(self) -> None:
        """Give all shards to others and end."""
        self._draining.set()

    async def _caught_up(self) -> None:
        ending = asyncio.create_task(self._draining.wait())
        catching = asyncio.create_task(self._claims.catch_up())
        await asyncio.wait({ending, catching}, return_when=asyncio.FIRST_COMPLETED)
        for item in (ending, catching):
            item.cancel()

    async def _until_over(self, member: asyncio.Task[None]) -> None:
        over = asyncio.create_task(self.over.wait())
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({over, draining}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                self._group.abandon()
                await asyncio.wait({member}, timeout=GIVE_UP_S)
                member.cancel()
                return
            self._group.leave()
            await asyncio.wait({member, over}, return_when=asyncio.FIRST_COMPLETED)
            await self._until_released(over, self._config.limits.drain_s)
            if not self.machine.is_empty and not over.done():
                log.warning("cluster.drain.unasked", shards=len(self.machine.phases))
                self._do(self.machine.give_up())
                await self._until_released(over, GIVE_UP_S)
            member.cancel()
        finally:
            over.cancel()
            draining.cancel()

    async def _until_released(self, over: asyncio.Task[bool], seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while not (self.machine.is_empty or over.done() or time.monotonic() >= deadline_s):  # noqa: ASYNC110
            await asyncio.sleep(TICK_S / 2)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.5, deadline_s - time.monotonic())):
                await self._claims.catch_up()

    # ------------------------------------------------------------------ what the group says

    async def assigned(self, shards: Sequence[int]) -> None:
        """The group gives shards to this worker."""
        if shards:
            self.connections.begin(shards)
            self._spawn(self._begin(shards))

    async def _begin(self, shards: Sequence[int]) -> None:
        async with self._turn:
            await self._claims.catch_up()
            log.info("cluster.assigned", shards=len(shards))
            self._do(self.machine.assigned(shards))

    async def revoked(self, shards: Sequence[int]) -> None:
        """Offer what is live or about to be; the group gives it away once that is acknowledged."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OFFER_S), self._turn:
                log.info("cluster.revoked", shards=len(shards))
                self._do(self.machine.revoked(shards))
                while any(map(self.machine.is_giving_back, shards)):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    async def lost(self, shards: Sequence[int]) -> None:
        """Go on: whoever has these shards now fences this life first."""
        async with self._turn:
            log.warning("cluster.lost", shards=len(shards))
            self._do(self.machine.lost(shards))

    def record(self, shard: int, key: bytes, value: bytes | None) -> None:
        """Follow the plan of a shard.

        Args:
            shard: Number of the shard.
            key: Key of the record.
            value: Value of the record, None where it is deleted.
        """
        if self.connections.record(shard, key, value):
            self._follow(shard)

    def at_end(self, shard: int) -> None:
        """Follow the plan of a shard that was read."""
        self.connections.at_end(shard)
        self._follow(shard)

    # ------------------------------------------------------------------ what others claim

    def _read(self, claim: Claim, ts_ms: int) -> None:
        self._do(self.machine.read(claim, ts_ms))
        if self.machine.is_fenced:
            self.over.set()

    def _commanded(self, _key: bytes, value: bytes | None, ts_ms: int) -> None:
        try:
            command = orjson.loads(value or b"{}")
            is_mine = command["member"] == self.me.member
        except (ValueError, KeyError, TypeError):
            return
        if is_mine and command["command"] == "drain" and ts_ms >= self._started_ms:
            log.warning("cluster.drain.asked")
            self.drain()

    # ------------------------------------------------------------------ actions

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            try:
                self._act(action)
            except Exception as failure:  # noqa: BLE001  # the boundary of a shard
                bulkheads.bug("cluster", failure, action=type(action).__name__)

    def _act(self, action: Action) -> None:
        match action:
            case Write(claim):
                self._write(claim)
            case Open(shard):
                self.connections.open(shard)
                self._follow(shard)
            case Publish(shard, gap, takeover):
                self.connections.publish(shard, gap=gap, takeover=takeover)
                log.info("cluster.shard.live", shard=shard, takeover=takeover, gap=gap)
                if takeover:
                    self._trace_takeover(shard)
            case Release(shard):
                self._spawn(self._release(shard))
            case Drop(shard):
                self.connections.close(shard)
            case Fence(life):
                self._spawn(self._fence(life))

    def _trace_takeover(self, shard: int) -> None:
        counts = self.machine.counts
        before, self._traced = self._traced, (counts.takeovers, counts.takeover_s)
        number = max(counts.takeovers - before[0], 1)  # several at a time took about as long
        tracing.tell("take over", max(counts.takeover_s - before[1], 0.0) / number, shard=shard)

    def _write(self, claim: Claim) -> None:
        sink = self.ingestor.sink
        assert sink is not None  # a worker publishes
        value = claim_record(claim, self._where())
        sink.publish(CLAIMS, claim_key(claim.shard), value, ts_ms=int(time.time() * 1e3))
        if claim.state is ClaimState.REFUSED:
            log.error("cluster.shard.refused", shard=claim.shard, reason=claim.reason)

    def _follow(self, shard: int) -> None:
        outcome = self.connections.follow(shard)
        if outcome.problem:
            self._do(self.machine.refused(shard, outcome.revision, outcome.problem))
        elif outcome.revision:
            self._do(self.machine.runs(shard, outcome.revision))

    async def _release(self, shard: int) -> None:
        """Close a shard, and say so once all of it is acknowledged."""
        self.connections.close(shard)
        await self.connections.settled()
        self._do(self.machine.drained(shard))

    async def _fence(self, life: Life) -> None:
        attempt = 0
        started_s = time.monotonic()
        while True:
            try:
                await self._fence_once(life)
            except (IngestError, errors.KafkaError, OSError) as failure:
                log.warning("cluster.fence.failed", member=life.member, reason=str(failure))
                await asyncio.sleep(RETRY.delay_s(attempt, random.random))
                attempt += 1
            else:
                break
        took_ms = round((time.monotonic() - started_s) * 1e3, 1)
        log.warning("cluster.fenced", member=life.member, session=life.session, ms=took_ms)
        self._do(self.machine.fenced_other(life))

    async def _fence_once(self, life: Life) -> None:
        producer = AIOKafkaProducer(**self._kafka.client_options())
        await producer.start()
        try:
            await fence_life(producer.client, self._kafka, self._config.cluster.name, life)
        finally:
            await producer.stop()

    async def _measure(self) -> None:
        """Tell how many messages the shards have that this life publishes."""
        sink = self.ingestor.sink
        assert sink is not None  # a worker publishes
        while True:
            before = {shard: self._rows_by_key(shard) for shard in self.connections.shards}
            began_s = time.monotonic()
            await asyncio.sleep(self._config.cluster.rates_interval_s)
            took_s = time.monotonic() - began_s
            for shard, rows in before.items():
                if self.machine.phases.get(shard) is Phase.LIVE and rows:
                    streams = len(self.connections.rows_of(shard))
                    found = rates_of(rows, self._rows_by_key(shard), streams, took_s)
                    value, now_ms = orjson.dumps(found), int(time.time() * 1e3)
                    sink.publish(CLAIMS, rates_key(shard), value, ts_ms=now_ms)

    def rows_by_shard(self) -> dict[int, int]:
        """Return how many rows came of each shard that this worker has."""
        return {
            shard: sum(self.connections.rows_of(shard).values())
            for shard in sorted(self.connections.shards)
        }

    def _rows_by_key(self, shard: int) -> Counter[str]:
        table, found = self.ingestor.planned.table, Counter[str]()
        for (_, number), rows in self.connections.rows_of(shard).items():
            found[table[number].key] += rows
        return found

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for shard, phase in self.machine.phases.items():
                if phase is Phase.OPENING and self.connections.stands(shard):
                    self._do(self.machine.opened(shard))
            self._do(self.machine.tick())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        kept = bulkheads.once("cluster", lambda: work)
        task = asyncio.get_running_loop().create_task(kept, name="cluster shard")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
