"""The Kafka sink without Kafka: the real queue and policy before a broker that may pause."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from ingestor.kafka.partitions import Partitions
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import Instruments, TickBatch
from ingestor.model.clocks import Clocks
from ingestor.model.rows import RowClass
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.overload import Budget
from ingestor.sinks.kafka.queue import PartitionQueue, PublishQueue, QueueStatistics

_LATENCY_S: Final = 0.03
_TICK_S: Final = 0.25
_ROWS_MAX: Final = 5_000


class Broker:
    """Takes rows at once, or not at all. deliver: called with what is in the log from then on."""

    def __init__(self, deliver: Callable[[TickBatch], None], clocks: Clocks) -> None:
        self.deliver = deliver
        self.clocks = clocks
        self.records: Counter[str] = Counter()  # of auxiliary topics
        self.is_up = asyncio.Event()
        self.is_up.set()


class SimulatedSink:
    """What `Ingestor` asks of a `KafkaSink`."""

    def __init__(
        self,
        broker: Broker,
        settings: KafkaSettings,
        instruments: Instruments,
        counts: SinkCounts,
        *,
        session: bytes,
        budget: Budget,
        **_others: Any,
    ) -> None:
        self.settings = settings
        self.session = session
        self.failure: str | None = None
        self.producer_resets: Counter[str] = Counter()
        self.on_shed: Callable[[RowClass, int], None] = lambda _row_class, _instrument: None
        self.on_pause: Callable[[], None] = lambda: None
        self.on_resume: Callable[[], None] = lambda: None
        self.queue = PublishQueue(
            budget,
            counts,
            on_shed=lambda row_class, instrument: self.on_shed(row_class, instrument),
            on_pause=lambda: self.on_pause(),
            on_resume=lambda: self.on_resume(),
        )
        self._broker = broker
        self._instruments = instruments
        self._counts = counts
        self._partitions = Partitions(instruments, settings.partitions)
        self._lanes: dict[PartitionQueue, None] = {}
        self._wake = asyncio.Event()

    def submit(self, batch: TickBatch, _now_ns: int) -> None:
        now_ns = self._broker.clocks.steady_ns()
        for partition, rows in self._partitions.split(batch.rows):
            lane = self.queue.partition_queue(batch.row_class, partition)
            self.queue.put(lane, rows, now_ns)
            self._lanes[lane] = None
        self.queue.check(now_ns)
        self._wake.set()

    def publish(self, topic: str, key: bytes | None, value: bytes, *, ts_ms: int) -> None:
        self._broker.records[topic] += 1

    def position(self, row_class: RowClass, instrument: int) -> dict[str, object]:
        return {"topic": row_class.name, "partition": 0, "session": "", "sequence": 0}

    def statistics(self) -> QueueStatistics:
        return self.queue.statistics(self._broker.clocks.steady_ns())

    async def wait_connected(self, _timeout_s: float) -> None:
        await asyncio.sleep(_LATENCY_S)

    async def drain(self, timeout_s: float) -> int:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while self.queue.rows and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(_LATENCY_S)
        return self.queue.rows

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            while True:
                await self._wake.wait()
                await asyncio.sleep(_LATENCY_S)
                await self._broker.is_up.wait()
                self._wake.clear()
                lanes, self._lanes = list(self._lanes), {}
                self._send(lanes)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.queue.check(self._broker.clocks.steady_ns(), with_age=True)

    def _send(self, lanes: Iterable[PartitionQueue]) -> None:
        now_ns = self._broker.clocks.steady_ns()
        for lane in lanes:
            while lane.rows:
                rows, since_ns = self.queue.take(lane, _ROWS_MAX)
                if not len(rows):
                    break
                self.queue.settle(lane, rows)
                self._counts.acked(lane.row_class, rows, now_ns, since_ns)
                self._broker.deliver(TickBatch(lane.row_class, rows, self._instruments))
        self.queue.check(now_ns)
