"""Opens the connections of one venue from one source address, at the venue's pace.

One task takes lines from a schedule and starts an attempt for each as the limiter allows; attempts
are tasks that end with the subscription. So ten thousand connections that wait for their turn after
a storm are entries of a heap.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from ingestor.sources.live.connection import ConnectionSlot
from ingestor.sources.rate_limiter import RateLimiter


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
