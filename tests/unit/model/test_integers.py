"""Columns of 64-bit integers: the same values and refusals as one integer at a time."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from ingestor.model.decimals import INT64_MAX
from ingestor.model.integers import fits_63_bits, int64_column


@pytest.mark.parametrize(
    "values", [[], [0], [-1], [INT64_MAX], [-(2**63)], [1, -5, 2**62], list(range(100))]
)
def test_a_column_of_integers(values: list[int]) -> None:
    column = int64_column(values)
    assert column.dtype == np.int64
    assert column.tolist() == values


@pytest.mark.parametrize("odd", [2**63, 2**64 - 1, 2**64, -(2**63) - 1, 1.5, "7", None])
def test_what_is_no_int64_raises_as_an_array_does(odd: int) -> None:
    with pytest.raises((TypeError, OverflowError)) as wanted:
        array("q", [1, odd])
    with pytest.raises((TypeError, OverflowError)) as raised:
        int64_column([1, odd])
    assert type(raised.value) is type(wanted.value)


def test_a_column_that_is_one_stays_as_it_is() -> None:
    column = np.array([1, 2])
    assert int64_column(column) is column


@pytest.mark.parametrize("number", [INT64_MAX + 1, 2**64 - 1])
def test_the_highest_bit_of_any_word_is_found(number: int) -> None:
    words = np.zeros((3, 8), np.uint64)
    words[:, 1] = INT64_MAX
    words[2, 3] = number
    assert fits_63_bits(words[:, :3])
    assert not fits_63_bits(words)
    assert not fits_63_bits(words[:, 3])
