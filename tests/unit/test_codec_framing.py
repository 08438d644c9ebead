"""Varints are aiokafka's; what is kept for each instrument is made once."""

from __future__ import annotations

import numpy as np
from aiokafka.record.util import decode_varint
from hypothesis import example, given
from hypothesis import strategies as st

from ingestor.codec.framing import varint
from ingestor.codec.wire import Pieces


@given(st.integers(-(2**63), 2**63 - 1))
@example(63)
@example(64)
@example(-64)
@example(-65)
def test_varints(number: int) -> None:
    text = varint(number)
    assert decode_varint(bytearray(text), 0) == (number, len(text))


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
