"""What is kept for each instrument is made once."""

from __future__ import annotations

import numpy as np

from ingestor.codec.record import Pieces


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
