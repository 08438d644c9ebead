"""Make record batches of rows: the next ones of several partitions together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ingestor.codec import Encoder, Headers, Record
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.produce_request import ProduceClient
from ingestor.sinks.kafka.queue import PartitionQueue
from ingestor.sinks.kafka.refusals import Refusals
from ingestor.telemetry.bulkheads import bulkheads

_JSON_ROW_BYTES: Final = 350  # the first guess; each class learns its own

Started = Sequence[tuple[InFlightWindow, InFlightBatch]]


class BatchMaker:
    """Encodes rows and builds batches of them, and learns how large they are."""

    def __init__(
        self,
        settings: KafkaSettings,
        encoder: Encoder,
        headers: Mapping[RowClass, Headers],
        refusals: Refusals,
    ) -> None:
        """Args:
        settings: of the producer.
        encoder: makes records of rows.
        headers: of each record, by class.
        refusals: gives the records of a wrong clock other times.
        """
        self._bytes_max = settings.max_batch_bytes
        self._encoder = encoder
        self._headers = headers
        self._refusals = refusals
        self.row_bytes = {  # before compression
            row_class: float(
                row_class.dtype.itemsize if settings.encoding == "binary" else _JSON_ROW_BYTES
            )
            for row_class in ROW_CLASSES
        }

    def rows_max(self, partition_queue: PartitionQueue) -> int:
        """Return how many rows of a class one batch has room for."""
        return max(int(self._bytes_max / self.row_bytes[partition_queue.row_class]), 1)

    def size_bytes(self, window: InFlightWindow) -> int:
        """Return about how many bytes a partition's next batch will have before compression."""
        in_flight = window.next()
        rows = len(in_flight.rows) if in_flight is not None else window.partition_queue.rows
        return min(int(rows * self.row_bytes[window.partition_queue.row_class]), self._bytes_max)

    def make(
        self,
        produce: ProduceClient,
        row_class: RowClass,
        started: Started,
        unmade: dict[InFlightWindow, Exception],
    ) -> None:
        """Make the batches of a class.

        Args:
            produce: builds them in the name of its producer.
            row_class: whose rows they have.
            started: the batches, which have no payload yet.
            unmade: gets what was raised while a batch was made; others are made all the same.
        """
        try:
            self._make(produce, row_class, started)
        except Exception:  # noqa: BLE001  # of one of them: the next step tells which
            self._make_each(produce, row_class, started, unmade)

    def _make(self, produce: ProduceClient, row_class: RowClass, started: Started) -> None:
        parts = [in_flight.part() for _, in_flight in started]
        encoded = self._encoder.encode_parts(row_class, parts)
        for (window, in_flight), records in zip(started, encoded, strict=True):
            self._build(produce, window, in_flight, records)

    def _make_each(
        self,
        produce: ProduceClient,
        row_class: RowClass,
        started: Started,
        unmade: dict[InFlightWindow, Exception],
    ) -> None:
        """Make each batch by itself, so that an exception costs its own partition."""
        for window, in_flight in started:
            if in_flight.payload is None:
                try:
                    self._make(produce, row_class, [(window, in_flight)])
                except Exception as failure:  # noqa: BLE001  # the boundary
                    bulkheads.bug("record", failure, topic=window.place.topic)
                    window.needs_renewal = True  # numbers may be used up
                    unmade[window] = failure

    def _build(
        self,
        produce: ProduceClient,
        window: InFlightWindow,
        in_flight: InFlightBatch,
        records: Sequence[Record],
    ) -> None:
        """Make the batch of a flight, or of as much of it as one batch holds."""
        row_class = window.partition_queue.row_class
        if window.clamps_times:
            records = self._refusals.clamp_times(records)
        payload, count, size_bytes = produce.build(
            window.numbering, records, self._headers[row_class], self._bytes_max
        )
        rows = sum([record[3] for record in records[:count]])
        if count < len(records):
            window.cut(in_flight, rows)
        self.row_bytes[row_class] = max(size_bytes / rows, 1.0)
        in_flight.payload = payload
