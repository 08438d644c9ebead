"""Opens the connections of one venue from one source address, at the venue's pace.

One task takes lines from a schedule and starts an attempt for each as the limiter allows; attempts
are tasks that end with the subscription. So ten thousand connections that wait for their turn after
a storm are entries of a heap.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable

from ingestor.sources.live.connection import ConnectionSlot
from ingestor.sources.live.settings import SupervisorSettings
from ingestor.sources.rate_limiter import RateLimiter
from ingestor.telemetry.bulkheads import bulkheads


class Dialer:
    """schedule: lines and when they may be opened; the rest follows from limiter and slots."""

    def __init__(
        self,
        attempt: Callable[[ConnectionSlot], Awaitable[None]],
        limiter: RateLimiter,
        attempts_max: int,
    ) -> None:
        """attempt: opens a line and handles its failures. attempts_max: at the same time."""
        self._attempt = attempt
        self._limiter = limiter
        self._slots = asyncio.Semaphore(attempts_max)
        self._schedule: list[
            tuple[float, int, int, ConnectionSlot]
        ] = []  # due_s, order, ticket, line
        self._order = 0
        self._wake = asyncio.Event()

    def schedule(self, slot: ConnectionSlot, delay_s: float) -> None:
        """Open `slot` after so long; an earlier entry for it is void."""
        self._order += 1
        slot.ticket = self._order
        due_s = asyncio.get_running_loop().time() + delay_s
        heapq.heappush(self._schedule, (due_s, self._order, self._order, slot))
        self._wake.set()

    def hold(self, delay_s: float) -> None:
        """The venue wants no connection for so long."""
        self._limiter.hold(delay_s)

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                slot = await self._next()
                await self._slots.acquire()
                await self._limiter.acquire()
                task = group.create_task(self._one(slot))
                task.add_done_callback(lambda _task: self._slots.release())

    async def _one(self, slot: ConnectionSlot) -> None:
        await self._attempt(slot)

    async def _next(self) -> ConnectionSlot:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            timer: asyncio.TimerHandle | None = None
            if self._schedule:
                due_s, _, ticket, slot = self._schedule[0]
                if due_s <= loop.time():
                    heapq.heappop(self._schedule)
                    if slot.ticket == ticket:
                        return slot
                    continue
                timer = loop.call_at(due_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()


class Dialers:
    """One dialer for each venue and source address; its limits are those of the slots it serves."""

    def __init__(
        self,
        attempt: Callable[[ConnectionSlot], Awaitable[None]],
        settings: SupervisorSettings,
        workers: int,
        clock_s: Callable[[], float],
    ) -> None:
        """Create the dialers.

        Args:
            attempt: opens a slot's connection and handles its failures.
            settings: how many attempts may run at a time, and limits in place of the venues'.
            workers: processes that share what the venues allow.
            clock_s: seconds of a clock that is never set.
        """
        self._clock_s = clock_s
        self._attempt = attempt
        self._settings = settings
        self._workers = workers
        self._dialers: dict[tuple[str, str | None], Dialer] = {}

    def of(
        self, slot: ConnectionSlot, slots: Iterable[ConnectionSlot], group: asyncio.TaskGroup
    ) -> Dialer:
        """Return who opens a slot's connections; its task is started when it is new.

        Args:
            slot: whose dialer.
            slots: all of them: the strictest limits of those at the same place count.
            group: the owner of the task.
        """
        at = slot.planned.venue, slot.planned.source_address
        dialer = self._dialers.get(at)
        if dialer is None:
            plans = [other.planned for other in slots]
            limits = [plan.limits for plan in plans if (plan.venue, plan.source_address) == at]
            rate = min(limit.connects_per_s for limit in limits)
            burst = min(limit.connects_burst for limit in limits)
            rate, burst = self._settings.connects or (rate, burst)
            limiter = RateLimiter(
                rate / self._workers,
                max(1, burst // self._workers),
                self._clock_s,
                venue=slot.planned.venue,
            )
            dialer = Dialer(self._attempt, limiter, self._settings.attempts_max)
            self._dialers[at] = dialer
            group.create_task(bulkheads.keep("venue", dialer.run, venue=slot.planned.venue))
        return dialer
