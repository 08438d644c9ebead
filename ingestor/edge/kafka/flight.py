"""Rows on their way to one partition: taken from the queue, numbered, not yet settled."""

from __future__ import annotations

import base64
from collections import deque
from typing import Final

import orjson

from ingestor.codec import Part, Record
from ingestor.rows import RowClass, Rows

RAW_BYTES_MAX: Final = 64 << 10  # of a refused value, kept in its dead letter


class Flight:
    """Rows with their sequence numbers, and which of them are still to be delivered.

    `spans` are ranges of row indices, in order, each sent as one batch; a refused one is halved
    until the culprit is alone. Records are not kept: encoding is pure, and for another producer
    they are made again.
    since_ns: when the first row was submitted. payload: the first span as a record batch, made in
    the name of the producer in force, once it was; that producer can send it again as it is.
    """

    __slots__ = ("failures", "first_sequence", "payload", "row_class", "rows", "since_ns", "spans")

    def __init__(self, row_class: RowClass, rows: Rows, first_sequence: int, since_ns: int) -> None:
        self.row_class = row_class
        self.rows = rows
        self.first_sequence = first_sequence
        self.since_ns = since_ns
        self.spans: deque[tuple[int, int]] = deque([(0, len(rows))])
        self.failures = 0  # of the first span, in a row
        self.payload: bytearray | None = None

    def part(self) -> Part:
        """Return the rows of the first span, and the sequence number of its first row."""
        start, stop = self.spans[0]
        rows = self.rows if stop - start == len(self.rows) else self.rows[start:stop]
        return rows, self.first_sequence + start

    def cut(self, rows: int) -> None:
        """Let the first span end after `rows` rows; the rest becomes the next span."""
        start, stop = self.spans[0]
        self.spans[0] = (start + rows, stop)
        self.spans.appendleft((start, start + rows))

    def bisect(self) -> bool:
        """Halve the first span; return False when it is one row already."""
        start, stop = self.spans[0]
        if stop - start == 1:
            return False
        self.cut((stop - start) // 2)
        return True

    def settle(self) -> tuple[Rows, int]:
        """Take the first span off; return its rows and the sequence number of the first one."""
        start, stop = self.spans.popleft()
        self.failures = 0
        self.payload = None
        return self.rows[start:stop], self.first_sequence + start


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
