"""Rows on their way to one partition: taken from the queue, numbered, not yet settled."""

from __future__ import annotations

import base64
from typing import Final

import orjson

from ingestor.codec import Part, Record
from ingestor.model.rows import Rows

RAW_BYTES_MAX: Final = 64 << 10  # of a refused value, kept in its dead letter


class Flight:
    """Rows with their sequence numbers that are sent as one batch.

    Records are not kept: encoding is pure, and for another producer they are made again.
    since_ns: when the first row was submitted. payload: the record batch, made in the name of the
    producer in force, once it was; that producer can send it again as it is.
    """

    __slots__ = ("failures", "first_sequence", "is_under_way", "payload", "rows", "since_ns")

    def __init__(self, rows: Rows, first_sequence: int, since_ns: int) -> None:
        self.rows = rows
        self.first_sequence = first_sequence
        self.since_ns = since_ns
        self.failures = 0  # in a row
        self.payload: bytearray | None = None
        self.is_under_way = False

    def part(self) -> Part:
        """Return the rows, and the sequence number of the first one."""
        return self.rows, self.first_sequence

    def settle(self) -> Part:
        """Forget the payload; return the rows and the sequence number of the first one."""
        self.payload = None
        return self.part()

    def cut(self, rows: int) -> Flight:
        """Keep the first `rows` rows; return the others as a flight of their own."""
        rest = Flight(self.rows[rows:], self.first_sequence + rows, self.since_ns)
        self.rows = self.rows[:rows]
        return rest


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
