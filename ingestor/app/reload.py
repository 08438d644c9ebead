"""Hot reload: read the configuration again, see what differs, follow it while running.

Reading, checking and fetching lists change nothing; then the difference is applied between two
events of the loop, whole. So a configuration that is wrong, a venue that gives no list, and a stop
at any moment leave the process as it was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import structlog

from ingestor.adapter.instrument_list import keep
from ingestor.app import settings
from ingestor.app.planning import InstrumentSource, ListSource, Planner, check_size, load_list
from ingestor.config.changes import check_followed
from ingestor.config.model import Config, LogConfig
from ingestor.model.errors import IngestError, ReloadRefused
from ingestor.sources.live.plan import Plan, make_plan
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.tracing import tracing

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Say where a process has its configuration from. read: reads it again, or raises ConfigError.

    file: its name, for messages. log: sets logging up by its section, with secrets to hide; None
    where that is somebody else's. part: returns what this process carries of a plan.
    """

    read: Callable[[], Config]
    file: str
    log: Callable[[LogConfig, Sequence[str]], None] | None = None
    part: Callable[[Plan], Plan] = lambda plan: plan

    def set_up_logs(self, config: Config, *others: Config) -> None:
        """Let logs be as a configuration says. others: whose secrets must not show either."""
        if self.log is not None:
            self.log(
                config.log,
                [secret for each in (config, *others) for secret in settings.secrets(each)],
            )

    @property
    def place(self) -> str:
        return f"{self.file}: "


@dataclass(frozen=True, slots=True)
class Proposal:
    """A checked configuration and its plan.

    source: where it came from. planner: what planned it. plan: with the instrument numbers of the
    planner's own table. settings: names of what differs.
    """

    config: Config
    source: Configuration
    planner: Planner
    plan: Plan
    settings: tuple[str, ...]


async def propose(
    configuration: Configuration,
    running: Config,
    planner: Planner | None,
    source: InstrumentSource,
) -> Proposal:
    """Read the configuration again and plan it; nothing that runs is touched.

    Args:
        configuration: what is read.
        running: the configuration in force.
        planner: the one in force, whose lists serve; None where a plan was made by hand.
        source: where other lists come from.

    Raises:
        ConfigError: for what is wrong with it, or can't change while the process runs.
    """
    config = configuration.read()
    changed = check_followed(running, config, configuration.place)
    configuration.set_up_logs(running, config)
    known: dict[tuple[str, str], set[str]] = {}
    for feed in running.feeds:
        known.setdefault((feed.venue, feed.market), set()).update(feed.symbols)
    fresh = Planner(config, configuration.file, known)
    held = planner.lists if planner is not None else {}
    for item in fresh.sources:
        if item in held:
            fresh.lists[item] = held[item]
    await asyncio.gather(*(_load(fresh, source, item) for item in fresh.sources))
    plan = make_plan(fresh.wanted(strict=True), fresh.table)
    check_size(plan, config, configuration.place)
    return Proposal(config, configuration, fresh, configuration.part(plan), tuple(changed))


async def _load(planner: Planner, source: InstrumentSource, one: ListSource) -> None:
    """Load a list that is not there, or ask for a newer one where a name is not in it.

    Of the newer one only what is new counts: all else is for the watch over lists to follow.
    """
    held = planner.lists.get(one)
    if held is None:
        await load_list(planner, source, one)
        return
    planner.lists[one] = replace(held, fresh=False)  # it was, once
    if not planner.unlisted(one):
        planner.lists[one] = held
        return
    newer = await source.refresh(one.adapter, one.market, one.rest_url)
    if newer is not None:
        new = newer.trading.keys() - held.trading.keys() - held.halted.keys()
        planner.lists[one] = replace(keep(held, newer, new), fresh=True)


class Follower(Protocol):
    """The process that follows. follow: returns a `Difference` as JSON."""

    @property
    def is_running(self) -> bool: ...
    async def propose(self, configuration: Configuration) -> Proposal: ...
    async def follow(self, proposal: Proposal, *, dry_run: bool) -> dict[str, Any]: ...


class Reloads:
    """Reloads of one process, one after the other. counts: how they ended."""

    def __init__(self, follower: Follower, configuration: Configuration | None) -> None:
        """configuration: None where there is none to read again."""
        self.counts = Counter(applied=0, refused=0)
        self._follower = follower
        self._configuration = configuration
        self._turn = asyncio.Lock()
        self._asked = asyncio.Event()
        self._stopping = asyncio.Event()

    def request(self) -> None:
        """Reload as soon as the process runs; what comes of it is logged."""
        self._asked.set()

    def stop(self) -> None:
        """Refuse all reloads from now on, also one under way."""
        self._stopping.set()

    async def run(self) -> None:
        """Do what was requested, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            with suppress(IngestError):  # it was logged
                await self.reload()

    async def reload(
        self,
        *,
        dry_run: bool = False,
        configuration: Configuration | None = None,
    ) -> dict[str, Any]:
        """Follow the configuration, as it is now; return the difference as JSON.

        Args:
            dry_run: only return it.
            configuration: another one than the process began with.

        Raises:
            ConfigError: for a configuration that can't be followed.
            ReloadRefused: while the process starts or stops.
        """
        async with self._turn:
            try:
                with tracing.span("reload", dry_run=dry_run):
                    wanted = configuration or self._configuration
                    found = await self._reload(wanted, dry_run=dry_run)
            except IngestError as failure:
                self.counts["refused"] += not dry_run
                text = str(failure)
                log.error("reload.refused", reason=text, dry_run=dry_run)  # noqa: TRY400
                raise
        if not dry_run:
            self.counts["applied"] += 1
            log.info(
                "reload.applied",
                subscribe=found["subscribe"],
                unsubscribe=found["unsubscribe"],
                keep=found["keep"],
                settings=found["settings"],
            )
        return {"applied": not dry_run, "dry_run": dry_run, **found}

    async def _reload(
        self, configuration: Configuration | None, *, dry_run: bool
    ) -> dict[str, Any]:
        if configuration is None:
            raise ReloadRefused("the process has no configuration file to read again")
        if not self._follower.is_running:
            raise ReloadRefused("the process is starting or stopping")
        try:
            proposal = await unless(self._stopping, self._follower.propose(configuration))
            return await self._follower.follow(proposal, dry_run=dry_run)
        except IngestError:
            raise
        except Exception as failure:
            bulkheads.bug("reload", failure)
            raise ReloadRefused("it failed: the log says why") from failure


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` comes to. Raises ReloadRefused when `stopping` is set before that."""
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            raise ReloadRefused("the process is stopping")
        return task.result()
    finally:
        task.cancel()
        stop.cancel()
