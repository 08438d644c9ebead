"""Records framed by columns are those framed one by one; varints are aiokafka's."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from aiokafka.record.util import decode_varint
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.codec import ENCODINGS, encoder, headers
from ingestor.codec.framing import Columns, Pieces, frame, varint, with_length
from ingestor.rows import RowClass
from tests.tick_rows import MAKERS, table_of

HEADERS = [("schema", b"md.trades.v1+json/1"), ("more", b"")]
ROOMY = 1 << 30


@given(st.integers(-(2**63), 2**63 - 1))
@example(63)
@example(64)
@example(-64)
@example(-65)
def test_varints(number: int) -> None:
    text = varint(number)
    assert decode_varint(bytearray(text), 0) == (number, len(text))


KEYS = st.binary(min_size=1, max_size=70)
VALUES = st.lists(st.binary(max_size=80) | st.just(b"x" * 5_000), min_size=2, max_size=2)
RECORDS = st.lists(st.tuples(KEYS, VALUES, st.integers(-10_000, 10_000)), min_size=1, max_size=60)


@given(parts=st.lists(RECORDS, min_size=1, max_size=4), room=st.integers(0, 3_000), replaced=KEYS)
@settings(deadline=None)
def test_columns_are_framed_as_records(
    parts: list[list[tuple[bytes, list[bytes], int]]], room: int, replaced: bytes
) -> None:
    records = [record for part in parts for record in part]
    texts = [with_length(key) for key, _, _ in records]
    columns = Columns(
        (texts, np.array([len(text) for text in texts])),
        np.array([1_700_000_000_000 + ms for _, _, ms in records]),
        [[value[0] for _, value, _ in records], b"between", [value[1] for _, value, _ in records]],
        np.array([len(b"between".join(value)) for _, value, _ in records]),
        np.arange(len(records)),
        np.array([0, *accumulate(map(len, parts))]),
    )
    columns.replace(len(records) - 1, replaced)
    at = 0
    for given_part, part in zip(parts, columns.parts(), strict=True):
        plain = list(part)
        for index, (key, value, ms) in enumerate(given_part, at):
            text = replaced if index == len(records) - 1 else b"between".join(value)
            assert plain[index - at] == (key, text, 1_700_000_000_000 + ms, index)
        at += len(given_part)
        assert part[-1:] == plain[-1:]
        assert part[0] == plain[0]
        for bytes_max in (ROOMY, room):
            framed = frame(part, HEADERS, bytes_max)
            assert framed == frame(plain, HEADERS, bytes_max)
            assert framed.records == len(plain) or bytes_max == room
        assert frame(part, [], ROOMY) == frame(plain, [], ROOMY)  # not with the headers of before


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("row_class", RowClass)
def test_encoded_parts_are_framed_as_their_records(row_class: RowClass, encoding: str) -> None:
    rows = MAKERS[row_class](300)
    parts = [(rows[:10], 0), (rows[10:200], 70), (rows[200:], 9_000)]
    for part in encoder(encoding, table_of(), bytes(16)).encode_parts(row_class, parts):
        of_class = headers(row_class, encoding)
        assert frame(part, of_class, ROOMY) == frame(list(part), of_class, ROOMY)


def test_pieces_are_made_once_and_for_instruments_added_later() -> None:
    made: list[int] = []
    instruments = [0, 1]

    def make(number: int) -> bytes:
        made.append(number)
        return b"x" * (number + 1)

    pieces = Pieces(make, instruments)
    for numbers in ([1, 0, 1], [0], [2, 1]):
        instruments += [2] * (max(numbers) == 2)
        texts, lengths = pieces.take(np.array(numbers))
        assert texts == [b"x" * (number + 1) for number in numbers]
        assert lengths.tolist() == [number + 1 for number in numbers]
    assert sorted(made) == [0, 1, 2]
