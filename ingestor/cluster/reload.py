"""A reload of several workers: the parent checks and plans, each worker follows its part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from ingestor.app import settings
from ingestor.app.planning import Planned
from ingestor.app.reload import Configuration, Proposal, propose
from ingestor.cluster.control import Dealt, Streams, streams_of
from ingestor.cluster.dealing import deal
from ingestor.config.model import Config
from ingestor.model.errors import ConfigError, ReloadRefused
from ingestor.sources.rest.catalog import Catalog
from ingestor.sources.rest.pool import RestPools

ANSWER_S: Final = 120.0  # a worker may have to fetch instrument lists


class Reloadable(Protocol):
    """Name what is needed of a worker. streams: those that it was last known to carry."""

    index: int
    streams: Streams
    connections: int

    @property
    def is_up(self) -> bool: ...
    async def call(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]: ...
    def kill(self) -> None: ...


class WorkersFollower:
    """Lets all workers follow a configuration. config: the one in force."""

    def __init__(
        self,
        config: Config,
        planned: Planned,
        file: Path,
        workers: Sequence[Reloadable],
        renew: Callable[[str, Sequence[Dealt]], None],
        is_running: Callable[[], bool],
    ) -> None:
        """Create the workers follower.

        Args:
            config: what the workers began with.
            planned: its plan.
            file: of the configuration.
            workers: all of them.
            renew: has workers that start from now on begin with a configuration and their shares.
            is_running: whether workers may be asked at all.
        """
        self.config = config
        self._planner = planned.planner
        self._file = file
        self._workers = workers
        self._renew = renew
        self._is_running = is_running
        self._text = ""

    @property
    def is_running(self) -> bool:
        return self._is_running()

    async def propose(self, configuration: Configuration) -> Proposal:
        """Read the configuration and plan it. Raises ConfigError."""
        before = _text(self._file)
        pools = RestPools(weight_per_s=self.config.limits.rest_weight_per_s)
        try:
            source = Catalog(settings.catalogue_settings(self.config.catalogue), pools)
            proposal = await propose(configuration, self.config, self._planner, source)
        finally:
            await pools.aclose()
        self._text = _text(self._file)
        if self._text != before:
            raise ConfigError("changed while it was read", where=str(self._file), hint="try again")
        return proposal

    async def follow(self, proposal: Proposal, *, dry_run: bool) -> dict[str, Any]:
        """Let each worker follow; return the sum of their differences.

        Args:
            proposal: a checked configuration and its plan.
            dry_run: only say what would change.
        """
        await asyncio.gather(*(self._learn(worker) for worker in self._workers))
        wanted = streams_of(proposal.plan)
        mine = deal(wanted, [worker.streams for worker in self._workers])
        shares = [Dealt(part, _without(wanted, part)) for part in mine]
        if not dry_run:
            proposal.source.set_up_logs(proposal.config)
            self._renew(self._text, shares)
        answers = await asyncio.gather(
            *(
                self._tell(worker, share, dry_run=dry_run)
                for worker, share in zip(self._workers, shares, strict=True)
            )
        )
        if not dry_run:
            self.config, self._planner = proposal.config, proposal.planner
            for worker, share in zip(self._workers, shares, strict=True):
                worker.streams = share.mine
        _raise_first(self._workers, answers)
        return _together(proposal, self._workers, answers)

    async def _learn(self, worker: Reloadable) -> None:
        """Ask what a worker carries: it may have followed listings."""
        if worker.is_up:
            answer = await worker.call({"do": "streams"}, ANSWER_S)
            worker.streams = [(item[0], item[1], item[2], item[3]) for item in answer["streams"]]

    async def _tell(self, worker: Reloadable, share: Dealt, *, dry_run: bool) -> dict[str, Any]:
        """Let one worker follow.

        One that is down begins with its new share; one that does not follow is ended, and begins
        anew with it.
        """
        if not worker.is_up:
            return {}
        request = {"do": "follow", "config": self._text, "dealt": share, "dry_run": dry_run}
        try:
            answer = await worker.call(request, ANSWER_S)
        except ReloadRefused as failure:
            answer = {"error": failure.reason}
        if "error" in answer and not dry_run:
            worker.kill()
        return answer


def _without(streams: Streams, part: Streams) -> Streams:
    mine = {*part}
    return [stream for stream in streams if stream not in mine]


def _raise_first(workers: Sequence[Reloadable], answers: Sequence[Mapping[str, Any]]) -> None:
    for worker, answer in zip(workers, answers, strict=True):
        if "error" in answer:
            text = answer["error"].removeprefix("not reloaded: ")
            raise ReloadRefused(f"worker {worker.index}: {text}")


def _together(
    proposal: Proposal, workers: Sequence[Reloadable], answers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    steps = [
        {"worker": worker.index, **step}
        for worker, answer in zip(workers, answers, strict=True)
        for step in answer.get("steps", ())
    ]
    sums = {
        name: sum(answer.get(name, 0) for answer in answers)
        for name in ("subscribe", "unsubscribe", "keep")
    }
    waiting = [
        {
            "venue": item.venue,
            "market": item.market,
            "name": item.name,
            "reason": item.reason.value,
            "detail": item.detail,
        }
        for item in proposal.planner.waiting
    ]
    return {"settings": list(proposal.settings), **sums, "steps": steps, "waiting": waiting}


def _text(file: Path) -> str:
    try:
        return file.expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # said by whoever parses it
