"""Make record batches of rows: the next ones of several partitions together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ingestor.codec import Encoder, Headers, Record
from ingestor.codec.json_batches import JsonBatches
from ingestor.codec.json_encoder import JsonEncoder
from ingestor.kafka.lz4_frames import BLOCK_MAX, frame_of
from ingestor.kafka.settings import KafkaSettings
from ingestor.model.batch import Instruments
from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.native import native
from ingestor.sinks.kafka.in_flight import InFlightBatch, InFlightWindow
from ingestor.sinks.kafka.produce_request import ProduceClient
from ingestor.sinks.kafka.queue import PartitionQueue
from ingestor.sinks.kafka.record_batch import HEAD_BYTES
from ingestor.sinks.kafka.refusals import Refusals
from ingestor.telemetry.bulkheads import bulkheads
from ingestor.telemetry.tracing import tracing

_MS: Final = 1_000_000
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
        json_batches: JsonBatches | None = None,
    ) -> None:
        """Create the batch maker.

        Args:
            settings: of the producer.
            encoder: makes records of rows.
            headers: of each record, by class.
            refusals: gives the records of a wrong clock other times.
            json_batches: writes what it can of JSON records, in place of the encoder.
        """
        self._bytes_max = settings.max_batch_bytes
        self._encoder = encoder
        self._headers = headers
        self._refusals = refusals
        self._json_batches = json_batches
        self._packs = settings.compression == "lz4"
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
        if tracing.is_on:
            _sample(started)
        try:
            self._make(produce, row_class, started)
        except Exception:  # noqa: BLE001  # of one of them: the next step tells which
            self._make_each(produce, row_class, started, unmade)

    def _make(self, produce: ProduceClient, row_class: RowClass, started: Started) -> None:
        if self._json_batches is not None:
            started = [batch for batch in started if not self._write(produce, *batch)]
            if not started:
                return
        parts = [in_flight.part() for _, in_flight in started]
        encoded = self._encoder.encode_parts(row_class, parts)
        for (window, in_flight), records in zip(started, encoded, strict=True):
            self._build(produce, window, in_flight, records)

    def _write(
        self, produce: ProduceClient, window: InFlightWindow, in_flight: InFlightBatch
    ) -> bool:
        """Make a batch with the compiled library; return whether that was possible."""
        assert self._json_batches is not None
        row_class = window.partition_queue.row_class
        if window.clamps_times or in_flight.span is not None:
            return False
        rows, first_sequence = in_flight.part()
        found = self._json_batches.write(
            row_class, rows, first_sequence, self._bytes_max, lz4=self._packs
        )
        if found is None:
            return False
        written, starts = found
        data = frame_of(written.data) if self._packs else written.data
        ts_ms = rows["ts_recv"][starts[1:] - 1] // _MS
        payload = produce.wrap(
            window.numbering, data, written.records, int(ts_ms[0]), int(ts_ms.max())
        )
        count = int(starts[-1])
        if count < len(rows):
            window.cut(in_flight, count)
        self.row_bytes[row_class] = max((written.plain_bytes + HEAD_BYTES) / count, 1.0)
        in_flight.payload = payload
        return True

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
            window.numbering,
            records,
            self._headers[row_class],
            self._bytes_max,
            [in_flight.span.header] if in_flight.span is not None else (),
        )
        rows = sum([record[3] for record in records[:count]])
        if count < len(records):
            window.cut(in_flight, rows)
        self.row_bytes[row_class] = max(size_bytes / rows, 1.0)
        in_flight.payload = payload


def _sample(started: Started) -> None:
    """Begin the spans of batches that are of the sample."""
    for window, in_flight in started:
        if in_flight.span is None:
            place = window.place
            in_flight.span = tracing.batch(place.topic, place.partition, len(in_flight.rows))


def json_batches_of(
    settings: KafkaSettings,
    encoder: Encoder,
    instruments: Instruments,
    headers: dict[RowClass, Headers],
) -> JsonBatches | None:
    """Return what writes JSON records with the compiled library, None where nothing does.

    Args:
        settings: of the producer.
        encoder: whose values they are.
        instruments: by number, may grow.
        headers: of each record, by class.
    """
    library, is_packed = native().library, settings.compression == "lz4"
    if library is None or not isinstance(encoder, JsonEncoder):
        return None
    if not (settings.compression is None or (is_packed and settings.max_batch_bytes <= BLOCK_MAX)):
        return None
    return JsonBatches(library, encoder, instruments, headers, settings.max_batch_bytes)
