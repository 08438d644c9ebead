"""A worker of a cluster: one life after another, until it is stopped.

A life that others fenced has dropped what it held. The next one has a session, a producer id and an
ingestor of its own, and joins the group anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from ingestor.admin.server import AdminServer
from ingestor.app.ingestor import Drained, Ingestor
from ingestor.app.planning import Planned
from ingestor.app.settings import kafka_settings
from ingestor.cluster.claims import Life
from ingestor.cluster.families import cluster_families
from ingestor.cluster.life import WorkerLife
from ingestor.cluster.membership import Group, Membership
from ingestor.cluster.overview import overview
from ingestor.cluster.records import SHARDS, transactional_id
from ingestor.config.model import Config
from ingestor.kafka.settings import STATUS
from ingestor.model.instruments import InstrumentTable
from ingestor.sources.live.plan import Plan
from ingestor.telemetry.status import Phase, Status

log = structlog.get_logger(__name__)

MakeGroup = Callable[[Config, str, str], Membership]


def member_name(config: Config) -> str:
    """Return the name of this worker, for people."""
    host = socket.gethostname().partition(".")[0]
    return config.cluster.member or f"{host}-{os.getpid()}"


class ClusterWorker:
    """Runs like an `Ingestor`; what it carries is what the group gives it."""

    def __init__(self, config: Config, shards: int, make_group: MakeGroup = Group) -> None:
        """Create the cluster worker.

        Args:
            config: of the worker.
            shards: how many the cluster has.
            make_group: returns a place in the group, by configuration, topic and name.
        """
        self.config = config
        self.member = member_name(config)
        self.lives = 0
        self._shards = shards
        self._make_group = make_group
        self._stopping = False
        self.life = self._make_life()

    @property
    def http(self) -> AdminServer | None:
        return self.life.ingestor.http

    def status(self) -> Status:
        """Return the state of the present life."""
        return self.life.ingestor.status()

    def stop(self) -> None:
        """Give all shards to others, then end."""
        self._stopping = True
        self.life.drain()
        if self.life.ingestor.phase is Phase.STARTING:
            self.life.ingestor.stop()

    def request_reload(self) -> None:
        """Say that a cluster's plan comes from elsewhere."""
        log.warning("cluster.reload.ignored", reason="`ingestor cluster apply` changes the plan")

    async def run(self, on_ready: Callable[[], None] | None = None) -> Drained:
        """Run until `stop`. on_ready: called once the first life runs."""
        lost = 0
        while True:
            drained = await self._live(on_ready)
            lost += drained.lost
            if self._stopping or not self.life.over.is_set():
                return replace(drained, lost=lost)
            log.error("cluster.life.over", member=self.member, session=self.life.me.session)
            voids = self.life.ingestor.sink.voids if self.life.ingestor.sink else []
            self.life, on_ready = self._make_life(), None
            self._publish_voids(voids)

    async def _live(self, on_ready: Callable[[], None] | None) -> Drained:
        life = self.life
        running = asyncio.Event()

        def ready() -> None:
            running.set()
            if on_ready is not None:
                on_ready()

        async def take_part() -> None:
            await running.wait()
            try:
                await life.run()
            finally:
                life.ingestor.stop()

        working = asyncio.create_task(take_part(), name="cluster")
        try:
            return await life.ingestor.run(ready)
        finally:
            working.cancel()  # it is done, unless the ingestor failed
            with suppress(asyncio.CancelledError):
                await working

    def _make_life(self) -> WorkerLife:
        self.lives += 1
        session = os.urandom(16)
        me = Life(self.member, session.hex())
        plan = Plan((), workers=self.config.cluster.workers_per_egress)
        ingestor = Ingestor(
            self.config,
            Planned(InstrumentTable(), plan),
            session=session,
            life=transactional_id(self.config.cluster.name, me),
        )
        topic = kafka_settings(self.config.kafka).topic(SHARDS)
        group = self._make_group(self.config, topic, self.member)
        life = WorkerLife(self.config, me, ingestor, group, self._where)
        fenced = self.lives - 1
        ingestor.view.show(
            lambda: cluster_families(life.machine, self._shards, fenced, life.rows_by_shard())
        )
        if ingestor.http is not None:
            ingestor.http.cluster = lambda: overview(
                self.config.cluster.name, life.machine, self._shards, life.connections.revision
            )
        return life

    def _where(self) -> str:
        port = self.http.port if self.http is not None else 0
        return f"{socket.gethostname()}:{port}"

    def _publish_voids(self, voids: list[bytes]) -> None:
        """Say which numbers of the life before will never come."""
        sink = self.life.ingestor.sink
        assert sink is not None  # a worker publishes
        for void in voids:
            sink.publish(STATUS, None, void, ts_ms=int(time.time() * 1e3))
