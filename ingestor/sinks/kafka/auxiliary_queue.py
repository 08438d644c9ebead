"""The side queue: status, instruments, snapshots, quarantine, dead letters. Small and rare."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

import orjson
from aiokafka import AIOKafkaProducer, errors

from ingestor.codec import Record
from ingestor.sinks.kafka.producer import DeliveryAction, classify_failure

SIDE_RECORDS_MAX: Final = 20_000
SIDE_BYTES_MAX: Final = 16 << 20
_WINDOW: Final = 256  # records sent before their acks are awaited


@dataclass(frozen=True, slots=True)
class AuxiliaryRecord:
    topic: str
    key: bytes | None
    value: bytes
    ts_ms: int

    @property
    def size(self) -> int:
        return len(self.value) + len(self.key or b"")


class AuxiliaryQueue:
    """Bounded; what doesn't fit is dropped and counted by topic. Order is kept by key."""

    def __init__(self, progress: asyncio.Event) -> None:
        """progress: set whenever records were acked or dropped."""
        self._progress = progress
        self.dropped: Counter[str] = Counter()
        self.acked: Counter[str] = Counter()
        self._queue: deque[AuxiliaryRecord] = deque()
        self._in_flight: list[AuxiliaryRecord] = []
        self._bytes = 0
        self.failures = 0  # in a row
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue) + len(self._in_flight)

    def put(self, record: AuxiliaryRecord) -> None:
        if len(self) >= SIDE_RECORDS_MAX or self._bytes + record.size > SIDE_BYTES_MAX:
            self.dropped[record.topic] += 1
            return
        self._queue.append(record)
        self._bytes += record.size
        self._wake.set()

    async def send(self, producer: AIOKafkaProducer) -> None:
        """Send until a delivery fails; what was not acked is sent first by the next call.

        Raises the KafkaError. After a failure records go one by one, so that one that is refused
        for itself is found; it is dropped.
        """
        self._queue.extendleft(reversed(self._in_flight))
        self._in_flight = []
        while True:
            self._wake.clear()
            if not self._queue:
                await self._wake.wait()
            count = min(1 if self.failures else _WINDOW, len(self._queue))
            self._in_flight = [self._queue.popleft() for _ in range(count)]
            await self._deliver(producer)

    async def _deliver(self, producer: AIOKafkaProducer) -> None:
        acks: list[asyncio.Future[object]] = []
        try:
            for one in self._in_flight:
                ack = await producer.send(one.topic, one.value, one.key, timestamp_ms=one.ts_ms)
                acks.append(ack)
            await asyncio.gather(*acks)
        except errors.KafkaError as failure:
            asyncio.gather(*acks, return_exceptions=True)  # marks their exceptions as seen
            self.failures += 1
            alone = len(self._in_flight) == 1
            if alone and classify_failure(failure, self.failures) is DeliveryAction.BISECT:
                self.dropped[self._in_flight[0].topic] += 1
                self._forget(self._in_flight.pop())
            raise
        self.failures = 0
        for one in self._in_flight:
            self.acked[one.topic] += 1
            self._forget(one)
        self._in_flight = []
        self._progress.set()

    def _forget(self, record: AuxiliaryRecord) -> None:
        self._bytes -= record.size


RAW_BYTES_MAX: Final = 64 << 10  # of a refused value, kept in its dead letter


def dead_letter(
    topic: str, partition: int, session: bytes, first: int, record: Record, reason: str
) -> bytes:
    """Return the value of a record for the topic `deadletter`: who, where, why, and the bytes."""
    key, value, ts_ms, rows = record
    return orjson.dumps(
        {
            "topic": topic,
            "partition": partition,
            "session": session.hex(),
            "seq": first,
            "rows": rows,
            "ts_ms": ts_ms,
            "reason": reason,
            "key": None if key is None else key.decode(),
            "value_bytes": len(value),
            "value_base64": base64.b64encode(value[:RAW_BYTES_MAX]).decode(),
        }
    )


def void(topic: str, partition: int, session: bytes, first: int, rows: int, reason: str) -> bytes:
    """Return the value of a status record: these sequence numbers will never be in the topic."""
    return orjson.dumps(
        {
            "kind": "void",
            "topic": topic,
            "partition": partition,
            "session": session.hex(),
            "first": first,
            "last": first + rows - 1,
            "reason": reason,
        }
    )
