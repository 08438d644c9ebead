"""When the flusher decodes and flushes, and who hears of its errors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from feeds.simulated import Simulated
from ingestor.decode.frame_queue import FRAMES_FULL, FrameQueue
from ingestor.decode.session import Session, SessionEvents
from ingestor.model.batch import TickBatch
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.pipeline.flusher import Flusher
from ingestor.pipeline.linger import Linger
from ingestor.pipeline.pipeline import Pipeline

LINGER_S = 0.02
TRADE = b'{"ch":"trade","s":"A","t":1,"i":%d,"p":"1.00","q":"0.50","m":"buy"}'


@dataclass
class Bench:
    """A flusher with a sink that keeps what it gets."""

    adapter: type[Simulated] = Simulated
    rows_max: int = 1_000
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        one = instrument("simulated", "spot", "A", "A-USD", "A", "USD", "0.01", "0.01")
        table = InstrumentTable([one])
        self.pipeline = Pipeline(table, lambda _number: Simulated.markets["spot"].book)
        self.flusher = Flusher(
            self.pipeline,
            [self],
            rows_max=self.rows_max,
            linger=Linger(LINGER_S, LINGER_S),
        )
        self.frame_queue: FrameQueue = self.pipeline.frame_queues.of(self.adapter, "spot")
        symbols = table.symbols("simulated", "spot")
        self.session = Session(
            *(
                1,
                self.adapter("spot", symbols),
                [],
                self.frame_queue.buffer,
                self.frame_queue.counts,
            ),
            *(SessionEvents(), "spot", self.frame_queue.decode),
        )
        self.on_read_complete = self.flusher.read_complete_of(self.frame_queue)

    async def drain(self, timeout_s: float) -> int:
        return 0

    def submit(self, batch: TickBatch, now_ns: int) -> None:
        self.rows.append(len(batch))

    def arrive(self, frames: int) -> None:
        """One burst of so many trades."""
        for number in range(frames):
            self.frame_queue.arrive((self.session, TRADE % number, 1))
        self.on_read_complete()


async def test_what_arrived_waits_for_the_linger() -> None:
    bench = Bench()
    bench.arrive(1)
    bench.arrive(2)
    assert bench.frame_queue.counts.frames == 0, "nothing is decoded yet"
    assert bench.rows == []
    await asyncio.sleep(3 * LINGER_S)
    assert bench.rows == [3]
    assert bench.flusher.flushes == 1, "and nothing when nothing arrives"


async def test_many_frames_are_decoded_at_once_and_flushed_when_the_batch_is_full() -> None:
    bench = Bench(rows_max=2 * FRAMES_FULL)
    bench.arrive(FRAMES_FULL)
    assert bench.frame_queue.counts.frames == FRAMES_FULL
    assert bench.rows == []
    bench.arrive(FRAMES_FULL)
    assert bench.rows == [2 * FRAMES_FULL]
    await asyncio.sleep(3 * LINGER_S)
    assert bench.flusher.flushes == 1, "its timer was taken back"
