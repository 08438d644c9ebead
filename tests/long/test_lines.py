"""Two lines under load: one is killed again and again, and a million rows are complete (D2)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestor.app import Ingestor
from ingestor.model.errors import PeerClosed
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Kind
from ingestor.pipeline.pipeline import FlushResult
from tests.e2e.harness import make_config, running
from tests.e2e.processes import simulated_venue
from tests.e2e.test_lines import settled
from tests.faults.results import RowRecorder

pytestmark = pytest.mark.long(minutes=4)

SYMBOLS = 50
RATE_PER_S = 10_000
ROWS = 1_000_000


class Numbers:
    """The numbers of all rows, judged flush by flush."""

    def __init__(self) -> None:
        self.rows = self.missing = self.twice = self.gaps = 0
        self._last: dict[tuple[RowClass, int], int] = {}

    def attach(self, ingestor: Ingestor) -> None:
        ingestor.flusher.observe(self._observe)

    def _observe(self, result: FlushResult, _now_ns: int) -> None:
        for batch in result.batches:
            rows = batch.rows
            self.gaps += int((rows["kind"] == Kind.GAP).sum())
            plain = rows[rows["kind"] == batch.row_class.id]
            self.rows += len(plain)
            for instrument in np.unique(plain["instrument"]).tolist():
                self._judge(batch.row_class, instrument, plain[plain["instrument"] == instrument])

    def _judge(self, row_class: RowClass, instrument: int, rows: Any) -> None:
        numbers = rows["sequence"].astype(np.int64)
        if row_class is RowClass.LEVEL:
            numbers = numbers[np.concatenate(([True], np.diff(numbers) != 0))]
        place = row_class, instrument
        steps = np.diff(np.concatenate(([self._last.get(place, int(numbers[0]) - 1)], numbers)))
        self.missing += int((steps[steps > 1] - 1).sum())
        self.twice += int((steps < 1).sum())
        self._last[place] = int(numbers[-1])


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
            while numbers.rows < ROWS:
                await asyncio.sleep(1.0)
                await settled(one)
                slots = list(one.ingestor.supervisor.slots)
                victim = slots[kills % len(slots)].connection
                assert victim is not None
                victim.fail(PeerClosed("ws://killed", 1006))
                kills += 1
            drained = await one.stop()
    assert drained.status.unaccounted == 0
    assert (numbers.missing, numbers.twice, numbers.gaps) == (0, 0, 0)
    row(
        "D2",
        promised="0 missing, 0 twice, no gap",
        measured=f"{numbers.rows:,} rows, {kills} kills at {RATE_PER_S:,} messages/s: 0, 0, 0",
    )
