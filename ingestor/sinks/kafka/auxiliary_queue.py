"""Queue and send the side records: status, instruments, snapshots, quarantine, dead letters.

They are small and rare. Each topic has its own bound and its own task, so that one that Kafka
refuses costs no other. Records have a share of nothing else's budget.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import orjson
import structlog

from ingestor.codec import Record
from ingestor.sinks.kafka.auxiliary_topic import BACKOFF, AuxiliaryRecord, AuxiliaryTopic
from ingestor.sinks.kafka.life import LifeEnded
from ingestor.sinks.kafka.produce_request import ProduceClient
from ingestor.sinks.kafka.sender import ProducerFailed
from ingestor.telemetry.bulkheads import bulkheads

log = structlog.get_logger(__name__)


class AuxiliaryQueue:
    """All side records, by topic."""

    def __init__(
        self,
        progress: asyncio.Event,
        *,
        clock: Callable[[], int] = time.time_ns,
        bytes_max: int = 512 << 10,
    ) -> None:
        """Create the auxiliary queue.

        Args:
            progress: set whenever records were acked or dropped.
            clock: ns since the epoch.
            bytes_max: size of a batch.
        """
        self.topics: dict[str, AuxiliaryTopic] = {}
        self._progress = progress
        self._clock = clock
        self._bytes_max = bytes_max
        self._run: Callable[[AuxiliaryTopic], None] | None = None
        self._has_ended = False

    def __len__(self) -> int:
        return sum(map(len, self.topics.values()))

    @property
    def acked(self) -> Counter[str]:
        return Counter({name: topic.acked for name, topic in self.topics.items()})

    @property
    def dropped(self) -> Counter[str]:
        return +Counter({name: topic.dropped for name, topic in self.topics.items()})

    @property
    def refused(self) -> Counter[str]:
        return +Counter({name: topic.refused for name, topic in self.topics.items()})

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return the number of records by (topic, outcome), the outcome `pending` included."""
        return {
            (name, outcome): count
            for name, topic in self.topics.items()
            for outcome, count in (
                ("acked", topic.acked),
                ("dropped", topic.dropped),
                ("refused", topic.refused),
                ("fenced", topic.fenced),
                ("pending", len(topic)),
            )
        }

    def put(self, record: AuxiliaryRecord) -> None:
        """Queue a record."""
        topic = self.topics.get(record.topic)
        if topic is None:
            topic = AuxiliaryTopic(
                record.topic, record.schema, self._progress, self._clock, self._bytes_max
            )
            self.topics[record.topic] = topic
            if self._has_ended:
                topic.end()
            if self._run is not None:
                self._run(topic)
        topic.put(record)

    def start(self, produce: ProduceClient, group: asyncio.TaskGroup) -> None:
        """Send, in a task of `group` for each topic; one of them may raise ProducerFailed."""

        def run(topic: AuxiliaryTopic) -> None:
            running = _kept(topic, produce)
            try:
                group.create_task(running)
            except RuntimeError:  # the group's tasks are being cancelled: `stop` is next
                running.close()

        for topic in self.topics.values():
            topic.begin()
            run(topic)
        self._run = run

    def stop(self) -> None:
        """The tasks have ended: send nothing until the next `start`."""
        self._run = None

    def end(self) -> None:
        """Give up all records, and those that come: this life is over."""
        self._has_ended = True
        for topic in self.topics.values():
            topic.end()


async def _kept(topic: AuxiliaryTopic, produce: ProduceClient) -> None:
    """Run a topic; begin it again after an exception that nothing foresaw."""
    attempt = 0
    while True:
        try:
            await topic.run(produce)
        except (ProducerFailed, LifeEnded):
            raise
        except OSError as failure:
            log.warning("kafka.topic_held", topic=topic.name, reason=repr(failure))
        except Exception as failure:  # noqa: BLE001  # the boundary
            bulkheads.bug("topic", failure, topic=topic.name)
        attempt += 1
        await asyncio.sleep(BACKOFF.delay_s(attempt, random.random))


RAW_BYTES_MAX: Final = 64 << 10  # of a refused value, kept in its dead letter


def dead_letter(
    topic: str, partition: int, session: bytes, first: int, record: Record, reason: str
) -> bytes:
    """Return the value of a record for the topic `deadletter`: who, where, why, and the bytes.

    Args:
        topic: Topic that refused the record.
        partition: Its partition.
        session: 16 bytes that identify this run.
        first: Number of the record's first row.
        record: The record.
        reason: Kafka's reason.
    """
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
    """Return the value of a status record: these sequence numbers will never be in the topic.

    Args:
        topic: The topic.
        partition: Its partition.
        session: 16 bytes that identify this run.
        first: First number.
        rows: How many numbers.
        reason: Kafka's reason.
    """
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
