"""ingestor.sources.replay.column_digits: the digits of what was appended, and of rows made in C."""

from __future__ import annotations

from ingestor.columns.buffer import ColumnBuffer
from ingestor.sources.replay.column_digits import ColumnDigits
from ingestor.sources.replay.market_reading import Nobody


def begun() -> ColumnBuffer:
    buffer = ColumnBuffer()
    buffer.begin(Nobody(), b"")
    return buffer


def exponents(found: ColumnDigits) -> dict[int, tuple[int, int]]:
    return {
        number: (found.of(number)[0].exponent, found.of(number)[1].exponent)
        for number in found.numbers
    }


def test_each_class_shows_the_digits_of_its_numbers() -> None:
    buffer, found = begun(), ColumnDigits()
    buffer.add_trade(0, 1, 1, 5, "100.010", "0.5", 1)
    buffer.add_quote(1, 1, 1, 9, "7", "1", "100.1234", "2.25")
    buffer.add_book_update(0, 1, 1, [["9.0", "1"]], [["100.01", "2.125"]], first=9, last=9)
    found.take(buffer.take_out())
    assert exponents(found) == {0: (3, 3), 1: (4, 2)}
    assert buffer.is_empty


def test_an_instrument_is_usual_once_enough_of_its_numbers_were_seen() -> None:
    buffer, found = begun(), ColumnDigits()
    buffer.add_trade(4, 1, 1, 5, "1.5", "2", 1)
    found.take(buffer.take_out())
    assert (found.has_changed, found.usual()) == (False, [])
    buffer = begun()
    for number in range(30):
        buffer.add_trade(4, 1, 1, 5, f"1{number}.25", f"{number}.125", 1)
    found.take(buffer.take_out())
    assert (found.has_changed, found.usual(), found.has_changed) == (True, [(4, 2, 3)], False)
