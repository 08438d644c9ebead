"""Numbers in any unit, and those that are absent, become integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ingestor.columns.own_exponents import convert_numbers
from ingestor.model.decimals import decimals_in
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import OWN_EXPONENT_MAX, RowClass
from ingestor.model.rows import ABSENT
from tests.fakes.weather import WEATHER, known

TABLE = InstrumentTable([instrument("acme", "perp", "A", "A-USD", "A", "USD", "0.01", "0.001")])


@pytest.fixture(autouse=True)
def weather() -> Iterator[None]:
    with known():
        yield


def convert(row_class: RowClass, *texts: object) -> tuple[list[list[int]], list[int], list[int]]:
    """Return numbers, exponents and bad cells."""
    rows = np.zeros(len(texts) // len(row_class.numbers), row_class.dtype)
    numbers, bad = convert_numbers(row_class, texts, rows, TABLE)
    names = row_class.dtype.names or ()
    return numbers.tolist(), rows["exponent"].tolist() if "exponent" in names else [], bad


def test_units_of_price_size_and_rate() -> None:
    numbers, _, bad = convert(WEATHER, "1.5", "2.25", "-0.5")
    assert (numbers, bad) == ([[150, 2_250, -500_000_000_000_000_000]], [])
    assert convert(WEATHER, "0", "-1", "0")[2] == [0, 1]
    assert convert(WEATHER, None, "1", "0")[2] == [0]


def test_each_row_has_the_fewest_decimals() -> None:
    numbers, exponents, bad = convert(RowClass.FUNDING, "0.0001", "-1e-30", "3", "2.500", 0.25)
    assert numbers == [[1], [-1], [3], [25], [25]]
    assert (exponents, bad) == ([4, OWN_EXPONENT_MAX, 0, 1, 2], [])


def test_a_bad_number_is_bad_alone() -> None:
    _, exponents, bad = convert(RowClass.FUNDING, "x", "0.5", "1e-31", "1" * 20, None, "")
    assert bad == [0, 2, 3, 4, 5]
    assert exponents[1] == 1


def test_numbers_of_a_row_have_room_together_or_are_bad() -> None:
    prices = RowClass.MARK_PRICE
    numbers, exponents, bad = convert(prices, "9" * 9, "0.000000001", None)
    assert (numbers, exponents, bad) == ([[999_999_999_000_000_000, 1, ABSENT]], [9], [])
    assert convert(prices, "9" * 11, "0.000000001", None)[2] == [0]


@pytest.mark.parametrize(
    ("text", "decimals"),
    [("1.50", 1), ("2e-7", 7), ("300", 0), ("0.000", 0), ("1.5e1", 0), ("1.55e1", 1), ("1e3", 0)],
)
def test_decimals_that_are_needed(text: str, decimals: int) -> None:
    assert decimals_in(text) == decimals


def test_what_is_no_number_has_no_decimals() -> None:
    texts: list[Any] = ["", "-", ".", "NaN", "1_0", " 1", None, True, []]
    for text in texts:
        with pytest.raises(ValueError, match="no decimal number"):
            decimals_in(text)
