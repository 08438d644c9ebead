"""Links of a consumer's spans to those of the publisher: see `ingestor.telemetry.tracing`.

The first record of a sampled batch has a header `traceparent`. A consumer that links makes a span
`receive` for it, with a link to the span `publish`, by the tracer provider of its own program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition

from ingestor.kafka.fetched_batches import FetchedBatch
from ingestor.telemetry.tracing import TRACEPARENT

_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_HEADERS_MAX: Final = 32

Headers = Iterable[tuple[str, bytes]]


class TraceLinks:
    """Makes the linked spans. It needs the extra `otel`, and a tracer provider that is set."""

    def __init__(self) -> None:
        from opentelemetry import trace  # noqa: PLC0415  # an extra

        self._tracer = trace.get_tracer("ingestor.consumer")

    def see(self, partition: TopicPartition, record: ConsumerRecord | FetchedBatch) -> None:
        """Make a span if a record, or the first one of a batch, has the header."""
        if isinstance(record, FetchedBatch):
            offset, headers = record.batch.base_offset, first_headers(record.batch.records)
        else:
            offset, headers = record.offset, record.headers
        for name, value in headers:
            found = _TRACEPARENT.fullmatch(value) if name == TRACEPARENT and value else None
            if found is not None:
                self._link(partition, offset, found)

    def _link(self, partition: TopicPartition, offset: int, found: re.Match[bytes]) -> None:
        from opentelemetry import trace  # noqa: PLC0415  # an extra

        trace_id, span_id, flags = (int(part, 16) for part in found.groups())
        context = trace.SpanContext(trace_id, span_id, True, trace.TraceFlags(flags))
        attributes = {
            "messaging.system": "kafka",
            "messaging.destination.name": partition.topic,
            "messaging.destination.partition.id": str(partition.partition),
            "messaging.kafka.offset": offset,
        }
        links, kind = [trace.Link(context)], trace.SpanKind.CONSUMER
        self._tracer.start_span("receive", kind=kind, links=links, attributes=attributes).end()


def first_headers(records: bytes) -> list[tuple[str, bytes]]:
    """Return the headers of the first record of a batch of format 2; none where it is cut short.

    Args:
        records: The records of the batch, decompressed.
    """
    try:
        _, at = _varint(records, 0)
        at += 1  # attributes
        for _ in range(2):  # deltas of time and offset
            _, at = _varint(records, at)
        for _ in range(2):  # key and value
            length, at = _varint(records, at)
            at += max(length, 0)
        count, at = _varint(records, at)
        found = []
        for _ in range(min(count, _HEADERS_MAX)):
            name, at = _text(records, at)
            value, at = _text(records, at)
            found.append((name.decode("utf-8", "replace"), value))
    except IndexError:
        return []
    return found


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _varint(data, at)
    end = at + max(length, 0)
    return data[at:end], end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a zigzag number and where it ends. Raises IndexError at the end of the data."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            return (value >> 1) ^ -(value & 1), at
