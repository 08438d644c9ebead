"""Writes protobuf messages, for tests of what reads them."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Return an integer as its wire format has it; negative ones in ten bytes."""
    value &= (1 << 64) - 1
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def field(number: int, value: int | str | bytes) -> bytes:
    """Return a field: a varint, or the bytes of a text or of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content
