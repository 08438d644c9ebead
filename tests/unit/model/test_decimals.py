"""Text -> int64 equals Decimal for every input, or is refused; nothing is ever rounded."""

from __future__ import annotations

import decimal
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestor.model.decimals import (
    exponent_of,
    format_decimal,
    parse_column,
    parse_decimal,
    plain_decimal,
)
from tests.effort import tried


def reference(text: str, exponent: int) -> int | None:
    """What Decimal says, None where the text must be refused."""
    if not text.isascii() or "_" in text or text.strip() != text:
        return None
    with decimal.localcontext() as context:
        context.prec = 5_000
        context.Emax, context.Emin = decimal.MAX_EMAX, decimal.MIN_EMIN
        try:
            value = Decimal(text)
        except decimal.InvalidOperation:
            return None
        if not value.is_finite():
            return None
        scaled = value.scaleb(exponent)
        whole = scaled == scaled.to_integral_value()
        return int(scaled) if whole and abs(scaled) < 2**63 else None


number_texts = st.one_of(
    st.from_regex(r"[0-9]{1,12}\.[0-9]{1,9}", fullmatch=True),
    st.from_regex(r"[+-]?[0-9]{0,22}\.?[0-9]{0,22}([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(
        ["NaN", "1_000", "", ".", "-", "1e", " 1", "1\n2", "1.2.3", "٣", "0x1", "1e999999"]
    ),
    st.text(max_size=6),
)
cells = st.tuples(number_texts, st.integers(0, 18))


@tried(100, 5_000)
@given(st.lists(cells, max_size=12))
@example([("1.5", 1), ("2", 0)])
@example([("1000000000000000000", 0), ("9223372036854775807", 0), ("9223372036854775808", 0)])
@example([("26000000000000.00000000", 8), ("0.0000000000001", 13)])
def test_columns_equal_decimal(column: list[tuple[str, int]]) -> None:
    values, bad = parse_column(
        [text for text, _ in column], np.array([exponent for _, exponent in column], np.int64)
    )
    for index, (text, exponent) in enumerate(column):
        expected = reference(text, exponent)
        assert (index in bad) == (expected is None), (text, exponent)
        assert values[index] == (expected or 0), (text, exponent)


@tried(100, 5_000)
@given(number_texts, st.integers(0, 18))
def test_one_cell_equals_decimal(text: str, exponent: int) -> None:
    expected = reference(text, exponent)
    if expected is None:
        with pytest.raises(ValueError, match=r"decimal|int64"):
            parse_decimal(text, exponent)
    else:
        assert parse_decimal(text, exponent) == expected


def test_json_numbers_without_their_text() -> None:
    assert parse_decimal(63003, 1) == 630030
    assert parse_decimal(0.1, 8) == 10_000_000
    values, bad = parse_column([63003, "1.5", 2], np.array([1, 1, 0]))
    assert values.tolist() == [630030, 15, 2]
    assert bad == []
    for nonsense in (True, None, [1], 2**63, float("nan")):
        with pytest.raises(ValueError, match=r"decimal|int64"):
            parse_decimal(nonsense, 2)
        assert parse_column([nonsense, "1"], np.array([0, 0]))[1] == [0]


def test_digits_without_end_are_refused_quickly() -> None:
    with pytest.raises(ValueError, match="no decimal"):
        parse_decimal("1" * 100_000, 2)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 18))
def test_formatting_is_the_inverse(value: int, exponent: int) -> None:
    text = format_decimal(value, exponent)
    assert parse_decimal(text, exponent) == value
    assert len(text.partition(".")[2]) == exponent


@pytest.mark.parametrize(
    ("increment", "exponent"),
    [("0.01", 2), ("0.0500", 2), ("10", 0), ("1", 0), ("1e-7", 7), ("0.0000000000001", 13)],
)
def test_exponent_of_an_increment(increment: str, exponent: int) -> None:
    assert exponent_of(increment) == exponent


@pytest.mark.parametrize("increment", ["0", "-0.1", "", "abc", "1e-19", "NaN", "1_0"])
def test_increments_that_are_none(increment: str) -> None:
    with pytest.raises(ValueError, match="increment"):
        exponent_of(increment)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1e-8", "0.00000001"),
        ("1E+3", "1000"),
        ("+5", "5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("0.0500", "0.0500"),
        ("1e999999", "1e999999"),
        ("NaN", "NaN"),
        ("", ""),
        (".", "."),
    ],
)
def test_plain_decimals(text: str, plain: str) -> None:
    assert plain_decimal(text) == plain
