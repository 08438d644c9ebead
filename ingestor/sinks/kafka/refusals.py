"""Decide what becomes of a batch that Kafka refuses for good.

| what is refused | what happens |
|---|---|
| a record for its content | its batch is halved until it is alone; it becomes a dead letter |
| records of the partition, one after another | the partition waits |
| the topic or partition (rights, absence) | the partition waits |
| the time of rows that our own clock stamped | the partition waits: the clock is wrong |
| the numbers of the partition | it begins again with the next epoch |
| the producer | it is replaced |

A partition that waits tries its oldest batch again, with backoff. Rows of a clock that was wrong
are sent with the time of sending as the record's timestamp; the row itself stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka import errors

from ingestor.codec import Record
from ingestor.kafka.error_codes import error_name
from ingestor.model.backoff import Backoff
from ingestor.sinks.kafka.clock_steps import ClockSteps
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.producer import DeliveryAction, classify_failure, is_of_topic
from ingestor.sinks.kafka.queue import PartitionQueue

log = structlog.get_logger(__name__)

BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0)
REFUSED_IN_A_ROW_MAX: Final = 2  # records; then it is the topic that refuses them
CLOCK_REASON: Final = "InvalidTimestamp: our clock, or the broker's, is wrong"
_FRESH_MS: Final = 60_000
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """Say what happens next.

    delay_s: until the batch is tried again. replaces: the producer ends.
    """

    reason: str
    delay_s: float = 0.0
    is_own: bool = False
    replaces: bool = False


class Refusals:
    """Judges the oldest batch of a partition."""

    def __init__(
        self,
        steps: ClockSteps,
        clock: Callable[[], int],
        dead_letter: Callable[[PartitionQueue, InFlightBatch, str], None],
    ) -> None:
        """Create the refusals.

        Args:
            steps: of the wall clock.
            clock: ns since the epoch.
            dead_letter: called with a batch of one row that Kafka will never take, and the reason.
        """
        self._steps = steps
        self._clock = clock
        self._dead_letter = dead_letter

    def judge(
        self, window: InFlightWindow, in_flight: InFlightBatch, failure: Exception
    ) -> Decision:
        """Return what happens next.

        Args:
            window: of the partition.
            in_flight: its oldest batch.
            failure: Kafka's error, or what was raised while the batch was made.
        """
        in_flight.failures += 1
        failures, reason = in_flight.failures, error_name(failure)
        waiting = BACKOFF.delay_s(failures, random.random)
        if isinstance(failure, errors.InvalidTimestampError) and self._is_of_clock(in_flight):
            if window.trouble is None:
                log.error("kafka.clock_refused", topic=window.place.topic, reason=CLOCK_REASON)
            window.clamps_times = window.needs_renewal = True
            return Decision(CLOCK_REASON, waiting)
        action = classify_failure(failure, failures)
        if action is DeliveryAction.REPLACE:
            return Decision(reason, waiting, replaces=True)
        if action is DeliveryAction.HOLD:
            return Decision(reason, waiting, is_own=True)
        window.needs_renewal = True
        if action is DeliveryAction.RESEND:
            return Decision(reason, waiting if failures > 1 else 0.0)
        if window.bisect(in_flight):
            return Decision(reason)
        if is_of_topic(failure) and window.refused_in_a_row >= REFUSED_IN_A_ROW_MAX:
            return Decision(reason, waiting, is_own=True)
        window.refused_in_a_row += 1
        self._dead_letter(window.partition_queue, in_flight, reason)
        window.drop(in_flight)
        return Decision(reason)

    def _is_of_clock(self, in_flight: InFlightBatch) -> bool:
        return self._steps.explains(in_flight.rows["ts_recv"])

    def clamp_times(self, records: Sequence[Record]) -> list[Record]:
        """Return records with the time of now where theirs is far from it."""
        now_ms = self._clock() // _NS_PER_MS
        return [
            (key, value, ts_ms if abs(ts_ms - now_ms) < _FRESH_MS else now_ms, rows)
            for key, value, ts_ms, rows in records
        ]

    def is_clamped(self, in_flight: InFlightBatch) -> bool:
        """Tell whether an acked batch was sent with other times than its rows have."""
        newest_ms = int(in_flight.rows["ts_recv"].max()) // _NS_PER_MS
        return abs(newest_ms - self._clock() // _NS_PER_MS) >= _FRESH_MS
