"""Drop what a life still holds once it is over: whoever took over publishes the same."""

from __future__ import annotations

from collections.abc import Mapping

from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.sinks.interface import SinkCounts
from ingestor.sinks.kafka.auxiliary_queue import void
from ingestor.sinks.kafka.queue import PublishQueue
from ingestor.sinks.kafka.sender import Sender


def drop_all(
    sender: Sender,
    queue: PublishQueue,
    counts: SinkCounts,
    topics: Mapping[RowClass, str],
    session: bytes,
    reason: str,
) -> tuple[list[bytes], int]:
    """Drop and count all rows.

    Args:
        sender: stopped; gives up its batches.
        queue: forgets all rows.
        counts: told of each one.
        topics: by class.
        session: whose numbers the batches have, 16 bytes.
        reason: why they will never come.

    Returns:
        A record for the topic `status.v1` for each range of numbers that will never come, and how
        many rows were dropped.
    """
    voids, dropped = [], 0
    for row_class in ROW_CLASSES:
        for partition_queue, in_flight in sender.withdraw(row_class):
            rows, first = in_flight.settle()
            where = (topics[row_class], partition_queue.partition, session, first)
            voids.append(void(*where, len(rows), reason))
            queue.settle(partition_queue, rows)
            counts.fenced(row_class, rows)
            dropped += len(rows)
    for partition_queue, rows in queue.abandon():
        counts.fenced(partition_queue.row_class, rows)
        dropped += len(rows)
    return voids, dropped
