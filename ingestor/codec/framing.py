"""Records as a Kafka record batch holds them (KIP-98, "Record").

| field | |
|---|---|
| length | varint: bytes that follow |
| attributes | 0 |
| timestamp delta | varint: ms since the batch's first record |
| offset delta | varint: place in the batch |
| key | varint length and bytes; length -1 = none |
| value | varint length and bytes |
| headers | varint count; of each the name and the value, as the key |

Varints are zigzag encoded. Records are written one by one here, to be compared with; what is sent
is made by aiokafka's builder.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from ingestor.codec.wire import Headers, Record

_MORE: Final = 0x80  # in each octet of a varint but the last
_NO_KEY: Final = b"\x01"  # the varint of -1


def varint(number: int) -> bytes:
    """Return a zigzag varint. number: 64 bits, signed."""
    rest = number << 1 if number >= 0 else ~(number << 1)
    octets = bytearray()
    while rest >= _MORE:
        octets.append(rest & 0x7F | _MORE)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


def with_length(text: bytes) -> bytes:
    """Return what stands for a key or a value."""
    return varint(len(text)) + text


@lru_cache(maxsize=64)
def headers_text(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    """Return what stands for a record's headers."""
    texts = (with_length(name.encode()) + with_length(value) for name, value in headers)
    return varint(len(headers)) + b"".join(texts)


class Framed(NamedTuple):
    """The first records of a part: their bytes, how many, the first and the latest time."""

    body: bytes
    records: int
    first_ms: int
    latest_ms: int


def frame(records: Iterable[Record], headers: Headers, bytes_max: int) -> Framed:
    """Return the first records, as many as fit, at least one. records: at least one."""
    tail = headers_text(tuple(headers))
    texts: list[bytes] = []
    count = size = first_ms = latest_ms = 0
    for key, value, ts_ms, _ in records:
        if not count:
            first_ms = latest_ms = ts_ms
        parts = (
            b"\0",
            varint(ts_ms - first_ms),
            varint(count),
            _NO_KEY if key is None else with_length(key),
            varint(len(value)),
            value,
            tail,
        )
        length = sum(map(len, parts))
        length_text = varint(length)
        size += length + len(length_text)
        if size > bytes_max and count:
            break
        texts += (length_text, *parts)
        latest_ms = max(latest_ms, ts_ms)
        count += 1
    return Framed(b"".join(texts), count, first_ms, latest_ms)
