"""Numbers as venues write them: equal to Decimal, to the digit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import (
    INT64_MAX,
    MILLISECOND,
    SECOND,
    TIME_MAX,
    TIME_MIN,
    decimal_ns,
    parse_decimal,
    scaled_text,
    unsigned,
)


@given(value=st.integers(-INT64_MAX, INT64_MAX), exponent=st.integers(0, 18))
def test_scaled_integers(value: int, exponent: int) -> None:
    text = scaled_text(value, exponent)
    assert Decimal(text) == Decimal(value).scaleb(-exponent)
    assert parse_decimal(text, exponent) == value


@pytest.mark.parametrize("value", [True, 1.0, "1", None, INT64_MAX + 1, -(2**63)])
def test_what_is_no_scaled_integer(value: object) -> None:
    with pytest.raises(ValueError, match="no integer"):
        scaled_text(value, 4)  # type: ignore[arg-type]


def test_signs() -> None:
    assert unsigned("-1.50") == ("1.50", True)
    assert unsigned("1.50") == ("1.50", False)
    assert unsigned(-3) == ("3", True)
    assert unsigned("--1") == ("-1", True)  # refused when its column is sealed
    for wrong in ("", None, 1.5, True, [1]):
        with pytest.raises(ValueError, match="is no number"):
            unsigned(wrong)


@given(ns=st.integers(TIME_MIN, TIME_MAX))
def test_decimal_seconds(ns: int) -> None:
    text = f"{ns // SECOND}.{ns % SECOND:09}"
    assert decimal_ns(text, SECOND) == ns
    assert decimal_ns(text.rstrip("0"), SECOND) == ns
    assert decimal_ns(ns // SECOND, SECOND) == ns // SECOND * SECOND


def test_decimal_milliseconds_and_digits_below_a_nanosecond() -> None:
    assert decimal_ns("1767225600123.456", MILLISECOND) == 1_767_225_600_123_456_000
    assert decimal_ns("1767225600.1234567899", SECOND) == 1_767_225_600_123_456_789


@pytest.mark.parametrize(
    "value",
    ["", "-1", "1e9", "1_0", "NaN", ".5", "1767225600,5", "0", 0, "9" * 30, True, 1.5, None],
)
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(ValueError, match="no time"):
        decimal_ns(value, SECOND)
