"""What becomes of repairs between being asked for and being due."""

from __future__ import annotations

import asyncio

from ingestor.columns.buffer import ColumnBuffer
from ingestor.decode.frame_queue import FrameQueues
from ingestor.model.clocks import Clocks
from ingestor.model.timestamps import SECOND
from ingestor.pipeline.pipeline import FlushResult
from ingestor.sources.live.plan import Plan
from ingestor.sources.live.supervisor import Supervisor
from tests.fakes.books import ASKS, BIDS, SOCKET, live


async def test_a_repair_whose_snapshot_has_come_is_left_out() -> None:
    """Else a book that is whole would lose its stream, and ask for the next repair by that.

    No connection carries the book: what would be done is counted as dropped.
    """
    times, harness = [0], live(SOCKET)
    supervisor = Supervisor(
        Plan(()),
        harness.table,
        FrameQueues(harness.table, ColumnBuffer()),
        lambda _queue: lambda: None,
        lambda: None,
        clocks=Clocks(steady_ns=lambda: times[-1]),
    )
    worker = supervisor.repair_worker
    harness.delta(103, 103, [(8, 1)])
    [first] = harness.flush().repairs
    first.due_ns = SECOND
    worker.observe(FlushResult(repairs=[first]), 0)
    harness.snapshot(200, BIDS, ASKS)
    harness.flush()
    harness.delta(300, 300, [(8, 1)])
    [second] = harness.flush().repairs
    second.due_ns = 2 * SECOND
    worker.observe(FlushResult(repairs=[second]), 0)
    worker.observe(FlushResult(repairs=[second]), 0)  # it waits already
    running = asyncio.create_task(worker.run())
    try:
        for now_ns, counts in ((SECOND, (1, 0)), (2 * SECOND, (1, 1)), (3 * SECOND, (1, 1))):
            times.append(now_ns)
            worker.observe(FlushResult(), 0)
            for _ in range(5):
                await asyncio.sleep(0)
            assert (worker.counts["needless"], worker.counts["dropped"]) == counts
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
