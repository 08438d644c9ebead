"""The wire format of protobuf, against an encoder written from its description."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import integer_of, message_of, messages_of, parse_message, text_of
from tests.fakes.protobuf import field, varint


def test_fields_of_every_wire_type() -> None:
    payload = field(1, "text") + field(2, 300) + b"\x19" + (7).to_bytes(8, "little")
    payload += b"\x25" + (9).to_bytes(4, "little")
    assert parse_message(payload) == {1: [b"text"], 2: [300], 3: [7], 4: [9]}


def test_the_last_of_a_field_counts_and_repeated_ones_are_kept() -> None:
    message = parse_message(field(1, 5) + field(1, 6) + field(2, field(1, 1)) + field(2, b""))
    assert integer_of(message, 1) == 6
    assert messages_of(message, 2) == [{1: [1]}, {}]
    assert messages_of(message, 3) == []
    assert message_of(parse_message(field(4, field(1, "x"))), 4) == {1: [b"x"]}


def test_missing_fields() -> None:
    message = parse_message(b"")
    assert integer_of(message, 1, 0) == 0
    with pytest.raises(KeyError):
        integer_of(message, 1)
    with pytest.raises(KeyError):
        text_of(message, 1)
    with pytest.raises(KeyError):
        message_of(message, 1)


def test_fields_of_another_type_are_refused() -> None:
    message = parse_message(field(1, 5) + field(2, "x"))
    for wrong in (text_of, message_of, messages_of):
        with pytest.raises(ValueError, match="has no bytes"):
            wrong(message, 1)
    with pytest.raises(ValueError, match="is no integer"):
        integer_of(message, 2)
    with pytest.raises(UnicodeDecodeError):
        text_of(parse_message(field(1, b"\xff")), 1)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x08", "cut short"),
        (b"\x08\x80", "cut short"),
        (b"\x0a\x05abc", "cut short"),
        (b"\x09\x00", "cut short"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x00\x00", "number 0"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "no end"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
    ],
)
def test_what_is_no_message(payload: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_message(payload)


@given(value=st.integers(-(2**63), 2**63 - 1))
def test_signed_integers(value: int) -> None:
    assert integer_of(parse_message(field(1, value)), 1) == value


@given(payload=st.binary(max_size=100))
def test_any_bytes_are_cut_or_refused(payload: bytes) -> None:
    try:
        message = parse_message(payload)
    except ValueError:
        return
    fields = [value for values in message.values() for value in values]
    assert sum(len(one) if isinstance(one, bytes) else 1 for one in fields) <= len(payload)


def test_varints_are_those_of_the_description() -> None:
    assert varint(150) == b"\x96\x01"
