"""Read protobuf messages: the wire format alone, without generated code.

Adapters say which field has which number; here is only how fields are cut
(https://protobuf.dev/programming-guides/encoding/). Everything is bounded by the payload's length.
"""

from __future__ import annotations

from typing import Final

Field = int | bytes  # a varint or fixed integer, or the bytes of a text or of a message
Message = dict[int, list[Field]]  # by the number of the field, in order

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES_MAX: Final = 10
_FIELD_MAX: Final = 2**29 - 1
_UINT64_END: Final = 1 << 64
_INT64_END: Final = 1 << 63


def parse_message(payload: bytes) -> Message:
    """Cut a message into fields. Raises ValueError for bytes that are none."""
    message: Message = {}
    at, end = 0, len(payload)
    while at < end:
        tag, at = _varint(payload, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _FIELD_MAX:
            raise ValueError(f"a field has the number {number}")
        value: Field
        if wire == _VARINT:
            value, at = _varint(payload, at)
        elif wire == _BYTES:
            size, at = _varint(payload, at)
            value, at = payload[at : at + size], at + size
        elif wire in _FIXED:
            size = _FIXED[wire]
            value, at = int.from_bytes(payload[at : at + size], "little"), at + size
        else:
            raise ValueError(f"field {number} has the wire type {wire}")
        if at > end:
            raise ValueError(f"field {number} is cut short")
        message.setdefault(number, []).append(value)
    return message


def text_of(message: Message, number: int) -> str:
    """Return a text. Raises KeyError where it is missing, ValueError for what is none."""
    return _bytes_of(message, number).decode()


def integer_of(message: Message, number: int, default: int | None = None) -> int:
    """Return a signed integer of up to 64 bits.

    Args:
        message: the message.
        number: of the field.
        default: where it is missing; None = it must be there (proto3 leaves out a 0).

    Raises:
        KeyError: for a field that must be there.
        ValueError: for one that is no integer.
    """
    if number not in message and default is not None:
        return default
    value = message[number][-1]
    if isinstance(value, bytes):
        raise ValueError(f"field {number} is no integer")  # noqa: TRY004  # of a venue's message
    return value - _UINT64_END if value >= _INT64_END else value


def message_of(message: Message, number: int) -> Message:
    """Return the message in a field. Raises KeyError where it is missing."""
    return parse_message(_bytes_of(message, number))


def messages_of(message: Message, number: int) -> list[Message]:
    """Return the messages of a repeated field, none where it is missing."""
    return [parse_message(_checked(value, number)) for value in message.get(number, [])]


def _bytes_of(message: Message, number: int) -> bytes:
    return _checked(message[number][-1], number)


def _checked(value: Field, number: int) -> bytes:
    if isinstance(value, int):
        raise ValueError(f"field {number} has no bytes")  # noqa: TRY004  # of a venue's message
    return value


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for place in range(at, min(at + _VARINT_BYTES_MAX, len(payload))):
        byte = payload[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= _UINT64_END:
                raise ValueError("an integer of more than 64 bits")
            return value, place + 1
        shift += 7
    raise ValueError("an integer is cut short, or has no end")
