"""Boundaries of units: an exception costs its unit, is reported once, and never spreads.

`docs/bulkheads.md` has the table of units: what may fail in each, what that costs, and how it
heals. An exception that the code of a unit handles by itself (a refused handshake, a frame that
can't be read) is foreseen and no matter for this module. Any other one is a bug: it is counted
(`ingestor_bugs_total`), logged once with its traceback, and alerted.

Four forms, after how the unit runs:

- `Bulkheads.bug` for an `except Exception` clause of the unit's own;
- `Bulkheads.guard` for a callback that somebody else calls: a timer, a listener, a socket;
- `Bulkheads.once` for a task that does one thing;
- `Bulkheads.keep` for a task that must go on: it is begun again with backoff.

A broken ledger (`LedgerBroken`) is the one exception that passes every boundary.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec

import structlog

from ingestor.model.backoff import Backoff
from ingestor.model.errors import LedgerBroken

log = structlog.get_logger(__name__)

RESTART: Final = Backoff(base_s=0.5, cap_s=30.0, floor_s=0.1)
STABLE_S: Final = 60.0  # a task that ran so long begins again without delay
PLACES_MAX: Final = 256  # places that were logged are remembered, so that each is logged once

# As in docs/bulkheads.md. Each is counted from the start: an alert sees no first bug of a series
# that begins with it.
UNITS: Final = (
    *("HTTP client", "backfill", "book", "book audit", "book snapshots", "cluster"),
    *(
        "cluster claims",
        "cluster lists",
        "connection",
        "derived rows",
        "flush",
        "frame",
        "health",
        "instrument",
        "instrument list",
    ),
    *("last values", "listener", "loop lag", "partition", "producer", "quarantine", "record"),
    *("recorder", "redis", "reload", "repair", "report", "service manager", "sink", "staleness"),
    *("terminal", "topic", "venue"),
)

Parameters = ParamSpec("Parameters")


class Bulkheads:
    """Counts and reports the bugs of one process, by unit."""

    def __init__(self, random: Callable[[], float] = random_module.random) -> None:
        """Create the bulkheads.

        Args:
            random: returns numbers uniform in [0, 1), for the jitter of restarts.
        """
        self.bugs: Counter[str] = Counter()
        self._random = random
        self._logged: set[tuple[str, str, str, int]] = set()

    def bug(self, unit: str, failure: BaseException, **where: object) -> None:
        """Count an exception that nothing foresaw, and log it the first time.

        Args:
            unit: name of the unit as in docs/bulkheads.md, such as "connection".
            failure: the exception.
            where: fields for the log that tell which one, such as `venue` or `topic`.

        Raises:
            LedgerBroken: if that is what failed.
        """
        if isinstance(failure, LedgerBroken):
            raise failure
        self.bugs[unit] += 1
        place = (unit, type(failure).__name__, *_origin(failure))
        if place in self._logged:
            return
        if len(self._logged) < PLACES_MAX:
            self._logged.add(place)
        log.error("bug", unit=unit, cause=repr(failure), **where, exc_info=failure)

    def guard(
        self, unit: str, call: Callable[Parameters, object], **where: object
    ) -> Callable[Parameters, None]:
        """Return `call` with a boundary around it.

        Args:
            unit: name of the unit, as in `bug`.
            call: a function whose result nobody needs.
            where: fields for the log.
        """

        def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
            try:
                call(*args, **kwargs)
            except Exception as failure:  # noqa: BLE001  # the boundary
                self.bug(unit, failure, **where)

        return guarded

    async def once(self, unit: str, run: Callable[[], Awaitable[object]], **where: object) -> None:
        """Run a task to its end, whatever that is.

        Args:
            unit: name of the unit, as in `bug`.
            run: starts the task.
            where: fields for the log.
        """
        try:
            await run()
        except Exception as failure:  # noqa: BLE001  # the boundary
            self.bug(unit, failure, **where)

    async def keep(self, unit: str, run: Callable[[], Awaitable[object]], **where: object) -> None:
        """Run a task until it ends by itself; begin it again, with backoff, whenever it raises.

        Args:
            unit: name of the unit, as in `bug`.
            run: starts the task anew each time it is called.
            where: fields for the log.

        Raises:
            LedgerBroken: if the task does.
        """
        attempt = 0
        clock = asyncio.get_running_loop().time
        while True:
            started_s = clock()
            try:
                await run()
            except Exception as failure:  # noqa: BLE001  # the boundary
                self.bug(unit, failure, **where)
            else:
                return
            attempt = 0 if clock() - started_s > STABLE_S else attempt + 1
            await asyncio.sleep(RESTART.delay_s(attempt, self._random))


def _origin(failure: BaseException) -> tuple[str, int]:
    """Return file and line that raised an exception, ("", 0) where it has no traceback."""
    trace = failure.__traceback__
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno


# The boundaries of this process. (One object for all, as prometheus-client has one registry: a
# unit is anywhere, and whoever finds a bug must not need to be given something to report it.)
bulkheads: Final = Bulkheads()
