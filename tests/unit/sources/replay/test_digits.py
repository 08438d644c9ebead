from __future__ import annotations

import pytest

from ingestor.sources.replay.digits import Digits


@pytest.mark.parametrize(
    ("texts", "exponent"),
    [
        ([], 0),
        (["1", "20"], 0),
        (["0.10", "5.123"], 3),
        (["0.00005100"], 8),
        (["61737.63000000"], 8),
        (["26000000000000.00000000"], 4),  # int64 has no room for what is printed
        (["26000000000000.00000001"], 0),  # fits nowhere, and takes no room from others
        (["1e-3", 5, None], 3),
    ],
)
def test_digits_become_an_exponent(texts: list[object], exponent: int) -> None:
    digits = Digits()
    for text in texts:
        digits.see(text)
    assert digits.exponent == exponent


def exponent_of(*texts: str) -> int:
    digits = Digits()
    for text in texts:
        digits.see(text)
    return digits.exponent


PRICES = [f"{90_000 + number}.{number % 10}" for number in range(100)]
POISON = "90000.123456789012345678"


@pytest.mark.parametrize("place", [0, 50, 100])
def test_one_absurd_number_widens_nothing(place: int) -> None:
    assert exponent_of(*PRICES[:place], POISON, *PRICES[place:]) == 1
    assert exponent_of(*PRICES[:place], POISON, POISON, POISON, *PRICES[place:]) == 1, "again"
    assert exponent_of(*PRICES[:place], "90000.1234567", *PRICES[place:]) == 1, "though it fits"


def test_several_finer_numbers_are_believed() -> None:
    finer = [f"9000{number}.12345678" for number in range(3)]
    assert exponent_of(*PRICES, *finer) == 8
    assert exponent_of(*finer, POISON, *PRICES) == 8


def test_a_number_a_little_finer_is_believed() -> None:
    assert exponent_of(*PRICES, "90000.125") == 3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_few_numbers_each_is_believed(count: int) -> None:
    assert exponent_of("0.00012345", *PRICES[:count]) == 8


def test_trailing_zeros_count_and_int64_bounds_them() -> None:
    assert exponent_of(*(f"{text}000" for text in PRICES)) == 4
    assert (
        exponent_of(*(f"{number}.10000000000000000000" for number in range(10**9, 10**9 + 50))) == 8
    )


def test_what_is_no_decimal_text_is_passed_over() -> None:
    digits = Digits()
    for text in (None, 7, "1e-7", *PRICES):
        digits.see(text)
    assert digits.exponent == 1


def test_one_number_with_many_whole_digits_takes_no_room() -> None:
    wide = "123456789012345678.5"
    cents = [f"{number}.25" for number in range(100)]
    assert exponent_of(*cents[:50], wide, *cents[50:]) == 2
    assert exponent_of(*(f"9{number:016}.5" for number in range(30))) == 1


def test_what_is_listed_is_raised_to_what_is_needed() -> None:
    digits = Digits()
    digits.see_all([*PRICES, POISON])
    assert (digits.fitted(0), digits.fitted(2)) == (1, 2)


def test_numbers_with_an_exponent_have_digits_too() -> None:
    digits = Digits()
    digits.see_all(["0.5", "1E-08", "2.5e-3", "3e2"])
    assert (digits.needed, digits.exponent, digits.whole) == (8, 8, 3)
    digits.see_all(["1e400", "1e-400", "e5", "1e5000000000"])
    assert digits.exponent == 8
