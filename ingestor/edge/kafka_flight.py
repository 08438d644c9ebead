"""Rows on their way to one partition: taken from the queue, numbered, not yet settled."""

from __future__ import annotations

import base64
from collections import deque
from itertools import accumulate
from typing import Final

import orjson

from ingestor.codec import Encoder, Record
from ingestor.rows import RowClass, Rows

RAW_BYTES_MAX: Final = 64 << 10  # of a refused value, kept in its dead letter


class Flight:
    """Rows with their sequence numbers, and which of their records are still to be delivered.

    Records are not kept: encoding is pure, and a resend encodes again. `spans` are ranges of
    record indices, in order; a refused one is halved until the culprit is alone.
    """

    __slots__ = ("_ends", "failures", "first_sequence", "row_class", "rows", "spans")

    def __init__(self, row_class: RowClass, rows: Rows, first_sequence: int) -> None:
        self.row_class = row_class
        self.rows = rows
        self.first_sequence = first_sequence
        self.spans: deque[tuple[int, int]] = deque()
        self.failures = 0  # of the first span, in a row
        self._ends: list[int] = []  # rows up to and with each record

    def encode(self, encoder: Encoder) -> list[Record]:
        """Return all records of the flight, delivered ones included."""
        records = encoder.encode(self.row_class, self.rows, self.first_sequence)
        if not self._ends:
            self._ends = list(accumulate(record[3] for record in records))
            self.spans.append((0, len(records)))
        return records

    def cut(self, at: int) -> None:
        """Let the first span end before record `at`; the rest becomes the next span."""
        start, stop = self.spans[0]
        if at < stop:
            self.spans[0] = (at, stop)
            self.spans.appendleft((start, at))

    def bisect(self) -> bool:
        """Halve the first span; return False when it is one record already."""
        start, stop = self.spans[0]
        if stop - start == 1:
            return False
        self.cut((start + stop) // 2)
        return True

    def settle(self) -> tuple[Rows, int]:
        """Take the first span off; return its rows and the sequence number of the first one."""
        start, stop = self.spans.popleft()
        self.failures = 0
        first = self._ends[start - 1] if start else 0
        return self.rows[first : self._ends[stop - 1]], self.first_sequence + first


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
