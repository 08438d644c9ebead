"""Numbers as venues write them: equal to Decimal, to the digit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.adapter import (
    INT64_MAX,
    optional_ns,
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


def test_a_time_that_may_be_left_out() -> None:
    assert [optional_ns(value) for value in (None, "", 0, "0")] == [None] * 4
    assert (
        optional_ns(1_767_225_600_123) == optional_ns("1767225600123") == 1_767_225_600_123_000_000
    )
    with pytest.raises(ValueError, match="no time between"):
        optional_ns("17")
