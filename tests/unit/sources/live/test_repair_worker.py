"""What becomes of repairs between being asked for and being due."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ingestor.model.clocks import Clocks
from ingestor.model.errors import TransportError
from ingestor.model.timestamps import SECOND
from ingestor.sources.live.connection import Connection
from ingestor.sources.live.repair_worker import RepairWorker
from ingestor.sources.rest.pool import RestPools
from tests.fakes.books import ASKS, BIDS, SOCKET, live


class Down:
    """Connections of which none is up: what is done shows in what is dropped."""

    def connection_of(self, instrument: int, channel: str = "book") -> Connection | None:
        return None

    def sent_again(self, connection: Connection, streams: Iterable[str]) -> None: ...

    def replace(self, connection: Connection, reason: TransportError) -> None: ...


async def test_a_repair_whose_snapshot_has_come_is_left_out() -> None:
    """Else a book that is whole would lose its stream, and ask for the next repair by that."""
    times = [0]
    clocks = Clocks(steady_ns=lambda: times[-1])
    worker = RepairWorker(Down(), None, lambda: None, RestPools(), clocks)
    harness = live(SOCKET)
    harness.delta(103, 103, [(8, 1)])
    [first] = harness.flush().repairs
    first.due_ns = SECOND
    worker.submit([first])
    harness.snapshot(200, BIDS, ASKS)
    harness.flush()
    harness.delta(300, 300, [(8, 1)])
    [second] = harness.flush().repairs
    second.due_ns = 2 * SECOND
    worker.submit([second])
    worker.submit([second])  # it waits already
    running = asyncio.create_task(worker.run())
    try:
        for now_ns, counts in ((SECOND, (1, 0)), (2 * SECOND, (1, 1)), (3 * SECOND, (1, 1))):
            times.append(now_ns)
            worker.submit([])
            for _ in range(5):
                await asyncio.sleep(0)
            assert (worker.counts["needless"], worker.counts["dropped"]) == counts
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
