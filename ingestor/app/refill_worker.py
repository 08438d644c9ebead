"""Refills topics by itself after an outage that shed rows: `recorder.refill`.

Replaying takes a core for a while, so a process of its own does it, at low priority.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client.core import Metric

from ingestor.admin.families import refill_families
from ingestor.app import settings
from ingestor.app.refill import refill
from ingestor.config.model import Config
from ingestor.model.backoff import Backoff
from ingestor.model.errors import IngestError
from ingestor.telemetry import logs

CHECK_S: Final = 5.0
SETTLE_S: Final = 15.0  # until rows come again that say where the shed ones end
ATTEMPTS_MAX: Final = 10
RETRY: Final = Backoff(base_s=30.0, cap_s=3_600.0, floor_s=15.0)
_NICE: Final = 10

log = structlog.get_logger(__name__)


class RefillWorker:
    """Starts a refill once Kafka takes rows again, until nothing is open.

    outcomes: refills by outcome: filled, open (some GAPs stay), failed. rows: published, by kind.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        shed: Callable[[], int],
        is_calm: Callable[[], bool],
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        """Create the refill worker.

        Args:
            config: of the process.
            folder: of its recorder.
            shed: returns how many rows were shed so far.
            is_calm: returns whether Kafka takes rows as they come.
            settle_s: how long it must have been calm.
        """
        self.outcomes: Counter[str] = Counter(filled=0, open=0, failed=0)
        self.rows: Counter[str] = Counter()
        self._config = config
        self._folder = folder
        self._shed = shed
        self._is_calm = is_calm
        self._settle_s = settle_s

    def families(self) -> Iterator[Metric]:
        """Yield what refills did."""
        return refill_families(self.rows, self.outcomes)

    async def run(self) -> None:
        """Run until cancelled."""
        done = 0
        while True:
            await self._until_settled(done)
            shed = self._shed()
            for attempt in range(ATTEMPTS_MAX):
                if await self._refill():
                    break
                await asyncio.sleep(RETRY.delay_s(attempt, random.random))
            else:
                log.warning("refill.given_up", attempts=ATTEMPTS_MAX)
            done = shed

    async def _until_settled(self, done: int) -> None:
        """Wait until more rows were shed than `done`, and none for a while."""
        calm_s = 0.0
        step_s = min(CHECK_S, self._settle_s)
        while calm_s < self._settle_s:
            await asyncio.sleep(step_s)
            is_due = self._shed() > done and self._is_calm()
            calm_s = calm_s + step_s if is_due else 0.0

    async def _refill(self) -> bool:
        """Run one refill; return whether nothing is left to do."""
        found = await _in_process(self._config, self._folder)
        if isinstance(found, str):
            self.outcomes["failed"] += 1
            log.warning("refill.failed", cause=found)
            return False
        self.rows.update(found["rows"])
        outcome = "open" if found["open"] else "filled"
        self.outcomes[outcome] += 1
        log.info("refill.done", gaps=found["ranges"], filled=found["filled"], rows=found["rows"])
        return outcome == "filled"


async def _in_process(config: Config, folder: Path) -> dict[str, Any] | str:
    """Return the report of a refill in a process of its own, or why it failed."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_refill, args=(config, folder, writer), daemon=True)
    await asyncio.to_thread(process.start)
    writer.close()
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(reader.fileno(), is_over.set)  # a report, or the end of the process
    try:
        await is_over.wait()
        with suppress(EOFError):
            found: dict[str, Any] | str = reader.recv()
            return found
        return "the process ended without a report"
    finally:
        loop.remove_reader(reader.fileno())
        reader.close()
        if process.is_alive():
            process.terminate()


def _refill(config: Config, folder: Path, writer: Connection) -> None:
    """Refill, and tell the report: what the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    os.nice(_NICE)
    logs.configure(config.log, settings.secrets(config))
    try:
        writer.send(asyncio.run(refill(config, folder)).to_json())
    except IngestError as failure:
        writer.send(str(failure))
