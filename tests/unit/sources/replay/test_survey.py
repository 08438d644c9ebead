"""How many decimals a foreign recording's numbers have, absurd ones aside."""

from __future__ import annotations

import pytest

from ingestor.sources.replay.survey import Digits


def exponent(*texts: str) -> int:
    digits = Digits()
    for text in texts:
        digits.see(text)
    return digits.exponent


PRICES = [f"{90_000 + number}.{number % 10}" for number in range(100)]
POISON = "90000.123456789012345678"


@pytest.mark.parametrize("place", [0, 50, 100])
def test_one_absurd_number_widens_nothing(place: int) -> None:
    assert exponent(*PRICES[:place], POISON, *PRICES[place:]) == 1
    assert exponent(*PRICES[:place], POISON, POISON, POISON, *PRICES[place:]) == 1, "again"
    assert exponent(*PRICES[:place], "90000.1234567", *PRICES[place:]) == 1, "though it fits"


def test_several_finer_numbers_are_believed() -> None:
    finer = [f"9000{number}.12345678" for number in range(3)]
    assert exponent(*PRICES, *finer) == 8
    assert exponent(*finer, POISON, *PRICES) == 8


def test_a_number_a_little_finer_is_believed() -> None:
    assert exponent(*PRICES, "90000.125") == 3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_few_numbers_each_is_believed(count: int) -> None:
    assert exponent("0.00012345", *PRICES[:count]) == 8


def test_trailing_zeros_count_and_int64_bounds_them() -> None:
    assert exponent(*(f"{text}000" for text in PRICES)) == 4
    assert exponent(*(f"{number}.10000000000000000000" for number in range(10**9, 10**9 + 50))) == 8


def test_what_is_no_decimal_text_is_passed_over() -> None:
    digits = Digits()
    for text in (None, 7, "1e-7", *PRICES):
        digits.see(text)
    assert digits.exponent == 1
