"""Two lines under load: one is killed again and again, and a million rows are complete (D2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ingestor.model.errors import PeerClosed
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import FlushResult
from tests.e2e.harness import make_config, running
from tests.e2e.processes import simulated_venue
from tests.e2e.test_lines import Heard, faults_of, settled
from tests.faults.results import RowRecorder

SYMBOLS = 50
RATE_PER_S = 10_000
ROWS = 1_000_000


class Numbers(Heard):
    """All rows, counted as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def _observe(self, result: FlushResult, now_ns: int) -> None:
        super()._observe(result, now_ns)
        self.count += result.rows


@pytest.mark.long(minutes=4)
@pytest.mark.rows("D2")
async def test_a_line_is_killed_under_load_and_a_million_rows_are_complete(
    tmp_path: Path, row: RowRecorder
) -> None:
    with simulated_venue(symbols=SYMBOLS, rate_per_s=RATE_PER_S / SYMBOLS / 3) as venue:
        feed = venue.feed | {"lines": 2, "streams_per_connection": 75}
        config = make_config("127.0.0.1:9", [feed], tmp_path)
        numbers = Numbers()
        async with running(config, publish=False, before=numbers.attach) as one:
            await settled(one)
            kills = 0
            while numbers.count < ROWS:
                await asyncio.sleep(1.0)
                await settled(one)
                slots = list(one.ingestor.supervisor.slots)
                victim = slots[kills % len(slots)].connection
                assert victim is not None
                victim.fail(PeerClosed("ws://killed", 1006))
                kills += 1
            drained = await one.stop()
    assert drained.status.unaccounted == 0
    faults = [faults_of(one, numbers.rows(one, symbol)) for one, symbol in numbers.places]
    assert {*faults} == {(0, 0)}
    gaps = sum(
        int((numbers.rows(one, symbol)["kind"] == Kind.GAP).sum()) for one, symbol in numbers.places
    )
    assert gaps == 0
    row(
        "D2",
        promised="0 missing, 0 twice, no gap",
        measured=f"{numbers.count:,} rows, {kills} kills at {RATE_PER_S:,} messages/s: 0, 0, 0",
    )
