"""Tell which partitions take nothing while Kafka takes others, or because it refuses them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from ingestor.sinks.kafka.in_flight import InFlightWindow, Trouble
from ingestor.sinks.kafka.queue import PartitionQueue

# A partition that takes nothing for so long is set apart, if Kafka refuses it or takes others.
APART_AFTER_S: Final = 2.0
OTHERS_ACKED_S: Final = 5.0


def lanes_apart(
    windows: Mapping[PartitionQueue, InFlightWindow],
    before: Collection[PartitionQueue],
    last_ack_s: float,
    now_s: float,
) -> frozenset[PartitionQueue]:
    """Return the lanes to set apart.

    Args:
        windows: of all lanes.
        before: those that were found by the last call; they stay until they take something.
        last_ack_s: when a batch of any lane was acked, by the loop's clock.
        now_s: by the same clock.
    """
    found = set()
    others_acked = now_s - last_ack_s < OTHERS_ACKED_S
    for partition_queue, window in windows.items():
        trouble = trouble_of(window)
        if trouble is None or not partition_queue.held_rows:
            continue
        is_alone = others_acked and last_ack_s > trouble.since_s + APART_AFTER_S / 2
        is_long = now_s - trouble.since_s >= APART_AFTER_S
        if partition_queue in before or (is_long and (trouble.is_own or is_alone)):
            found.add(partition_queue)
    return frozenset(found)


def trouble_of(window: InFlightWindow) -> Trouble | None:
    """Return why a lane takes nothing, None where nothing is wrong."""
    return window.trouble or window.absence
