"""Virtual time: the loop's clock moves when everything waits, and the wall clock moves with it."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import async_solipsism
import time_machine

from ingestor.model.clocks import Clocks

START_S: Final = 1_800_000_000  # the wall clock at the beginning, s since the epoch
_STEADY_S: Final = 1_000.0  # the steady clock at the beginning: no real one ever shows 0
_TICKS_PER_S: Final = 1_000_000  # the resolution of the virtual clock

Result = TypeVar("Result")


class Time:
    """The clocks of one run. `step` sets the wall clock; no other clock notices."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: time_machine.Traveller) -> None:
        self._loop = loop
        self._wall = wall
        self.stepped_s = 0

    @property
    def now_s(self) -> float:
        return self._loop.time() - _STEADY_S

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            steady_ns=lambda: round(self._loop.time() * _TICKS_PER_S) * 1_000, cpu_s=lambda: 0.0
        )

    def step(self, seconds: int) -> None:
        """Set the wall clock forward, or back."""
        self.stepped_s += seconds
        self._wall.shift(seconds)


class _Loop(async_solipsism.EventLoop):  # type: ignore[misc]  # it publishes no types
    """Tells how far its time moved, and moves by a tick at least.

    async-solipsism refuses to wait for less than its resolution; random delays may ask for that.
    """

    def __init__(self, moved: Callable[[int], None]) -> None:
        super().__init__()
        clock = self._selector.clock
        advance = clock.advance

        def advance_all(seconds: float) -> None:
            ticks = max(1, round(seconds * _TICKS_PER_S))
            advance(ticks / _TICKS_PER_S)
            moved(ticks)

        clock.advance = advance_all
        advance(_STEADY_S)


def run(main: Callable[[Time], Coroutine[Any, Any, Result]], seed: int) -> Result:
    """Run a coroutine from beginning to end in virtual time, with seeded global randomness.

    Args:
        main: is given the clocks.
        seed: of the module `random`, whose functions are the defaults of the program.

    Raises:
        AssertionError: when tasks are left at the end.
    """
    state, thresholds = random.getstate(), gc.get_threshold()
    travel = time_machine.travel(START_S, tick=False)
    wall = travel.start()
    loop = _Loop(lambda ticks: wall.shift(ticks / _TICKS_PER_S))
    try:
        random.seed(seed)
        result: Result = loop.run_until_complete(main(Time(loop, wall)))
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks that nobody ended: {left}"
        return result
    finally:
        _cancel_all(loop)
        loop.close()
        travel.stop()
        random.setstate(state)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """End what a run that failed left behind."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
