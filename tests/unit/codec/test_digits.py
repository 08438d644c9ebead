"""Columns of digits equal what is written one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ingestor.codec.digits import decimal_texts, integer_texts
from ingestor.model.decimals import EXPONENT_MAX, INT64_MAX, format_decimal

VALUES = st.one_of(
    st.integers(0, INT64_MAX),
    st.integers(0, 10**6),
    st.integers(0, 18).map(lambda exponent: 10**exponent),
    st.integers(1, 18).map(lambda exponent: 10**exponent - 1),
)


@given(st.lists(st.tuples(VALUES, st.integers(0, EXPONENT_MAX)), min_size=1, max_size=40))
@example([(0, 0), (0, 18), (5, 0), (INT64_MAX, 0), (INT64_MAX, 1), (INT64_MAX, 18), (1, 18)])
@example([(INT64_MAX // 5 - 1, 8), (INT64_MAX // 5 + 1, 8), (12, 2), (1205, 2)])
def test_decimals(cells: list[tuple[int, int]]) -> None:
    values, exponents = (list(column) for column in zip(*cells, strict=True))
    texts = decimal_texts(np.array(values, np.uint64), np.array(exponents, np.int64))
    assert texts == [format_decimal(value, exponent).encode() for value, exponent in cells]


@given(st.lists(st.integers(-INT64_MAX - 1, INT64_MAX), min_size=1))
def test_signed_integers(values: list[int]) -> None:
    assert integer_texts(np.array(values, np.int64)) == [b"%d" % value for value in values]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_unsigned_integers(values: list[int]) -> None:
    assert integer_texts(np.array(values, np.uint64)) == [b"%d" % value for value in values]
