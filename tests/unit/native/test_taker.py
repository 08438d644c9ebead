"""Each hole at its edges, arrays that fill up, and names of every kind."""

from __future__ import annotations

import pytest

from ingestor.adapter.shapes import level_pairs, shape
from ingestor.model.row_classes import RowClass
from ingestor.native import CompiledShape, FrameTaker, TakenRows, native
from ingestor.native.taker import OTHERS_MAX

LIBRARY = native().library
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=native().reason)

TS = 1_790_000_000_000_000_000
TRADE = shape(
    RowClass.TRADE, '{"s":"<symbol>","p":"<price:price>","q":"<size:size>","m":<side:b=1|s=2>}'
)
BOOK = shape(
    RowClass.LEVEL, f'{{"s":"<symbol>","b":{level_pairs("bids")},"a":{level_pairs("asks")}}}'
)


def taker_of(*shapes: CompiledShape, rows: TakenRows | None = None) -> FrameTaker:
    assert LIBRARY is not None
    taker = FrameTaker(LIBRARY, shapes, rows or TakenRows())
    taker.set_symbols([("A", 7, 2, 0), ("WIDE", 8, 18, 18), ("币", 9, 0, 0), ('"', 10, 0, 0)])
    return taker


def price_of(text: str, symbol: str = "A") -> int | None:
    """Return what a price becomes, None where the frame is not taken."""
    taker = taker_of(TRADE)
    frame = f'{{"s":"{symbol}","p":"{text}","q":"1","m":b}}'.encode()
    if taker.take_each([frame], [TS], 0):
        return None
    return int(taker.rows.take_out().trades["price"][0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            ("1", 100),
            ("1.5", 150),
            ("0.01", 1),
            ("1.500000", 150),
            ("9999999999999999", 10**18 - 100),
        ),
        *((text, None) for text in ("0", "0.00", "1.005", "01", ".5", "1.", "-1", "+1", "1e2", "")),
        *((text, None) for text in ("99999999999999999", "1" * 18, "1" * 19, "1" * 20, " 1", "1 ")),
        ("1.0000000000000000", 100),  # 17 digits, all in excess but one
        ("1.00000000000000000000", None),
    ],
)
def test_prices(text: str, expected: int | None) -> None:
    assert price_of(text) == expected


def test_the_finest_exponent() -> None:
    taker = taker_of(TRADE)
    frame = b'{"s":"WIDE","p":"0.000000000000000001","q":"0.000000000000000009","m":s}'
    assert taker.take_each([frame], [TS], 0) == [0], (
        "18 digits at most, and the one before the point"
    )
    frame = b'{"s":"WIDE","p":"0.00000000000000001","q":"0.00000000000000009","m":s}'
    assert taker.take_each([frame], [TS], 0) == [0], "a digit before the point makes it 19"


@pytest.mark.parametrize(
    ("hole", "text", "expected"),
    [
        *(("<int:sequence>", text, int(text)) for text in ("0", "12345678", "9223372036854775807")),
        *(("<int:sequence>", text, None) for text in ("9223372036854775808", "00", "-0", "1" * 20)),
        *(("<int:sequence>=2>", text, expected) for text, expected in (("2", 2), ("1", None))),
        ("<ms:sequence>", "1262304000000", 1_262_304_000 * 10**9),
        ("<ms:sequence>", "1262303999999", None),
        ("<ms:sequence>", "4102444800001", None),
        ("<iso:sequence>", "2024-02-29T23:59:59.123456789Z", 1_709_251_199_123_456_789),
        ("<iso:sequence>", "2024-02-29T23:59:59Z", 1_709_251_199_000_000_000),
        *(
            ("<iso:sequence>", text, None)
            for text in (
                *("2023-02-29T00:00:00Z", "2024-02-30T00:00:00Z", "2024-13-01T00:00:00Z"),
                *("2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00"),
                *(
                    "2024-01-01T00:00:00.Z",
                    "2024-01-01T00:00:00.1234567890Z",
                    "1970-01-01T00:00:00Z",
                ),
                *("2024-01-01 00:00:00Z", "2024-01-01T00:00:00+00:00"),
            )
        ),
    ],
)
def test_numbers_and_times(hole: str, text: str, expected: int | None) -> None:
    taker = taker_of(
        shape(
            RowClass.TRADE,
            f'{hole}|<symbol>","p":"<price:price>","q":"<size:size>","m":<side:b=1|s=2>',
        )
    )
    frame = f'{text}|A","p":"1","q":"1","m":b'.encode()
    others = taker.take_each([frame], [TS], 0)
    rows = taker.rows.take_out().trades
    assert (None if others else int(rows["sequence"][0])) == expected


@pytest.mark.parametrize("symbol", ["A", "币", "B", "", 'A"', "AA"])
def test_symbols(symbol: str) -> None:
    assert (price_of("1", symbol) is not None) == (symbol in {"A", "币"})


def test_a_frame_is_taken_whole_or_not_at_all() -> None:
    taker = taker_of(BOOK)
    good = b'{"s":"A","b":[["1","2"],["3","0"]],"a":[]}'
    frames = [good, *(good[:end] for end in range(len(good))), good + b" ", good]
    assert taker.take_each(frames, [TS] * len(frames), 0) == list(range(1, len(frames) - 1))
    taken = taker.rows.take_out()
    assert taken.updates["frame"].tolist() == [0, len(frames) - 1]
    assert taken.updates["bids"].tolist() == [2, 2]
    assert taken.levels.tolist() == [[100, 2], [300, 0]] * 2


@pytest.mark.parametrize(
    "pairs",
    [b'["0","1"]', b'["1","1"],', b'["1","1"]["2","1"]', b'["1"]', b'["1","1","1"]', b'["1",1]'],
)
def test_levels_that_are_none(pairs: bytes) -> None:
    frame = b'{"s":"A","b":[%b],"a":[]}' % pairs
    assert taker_of(BOOK).take_each([frame], [TS], 0) == [0]


def test_arrays_grow_when_one_batch_has_no_end() -> None:
    rows = TakenRows(2, 2)
    taker = taker_of(BOOK, rows=rows)
    frame = b'{"s":"A","b":[["1","2"],["3","4"],["5","6"]],"a":[["7","8"]]}'
    assert not taker.take_each([frame] * 50, [TS] * 50, 0)
    assert rows.rows == 200
    taken = rows.take_out()
    assert taken.levels.tolist() == [[100, 2], [300, 4], [500, 6], [700, 8]] * 50
    assert rows.is_empty


def test_more_others_than_one_call_notes() -> None:
    taker, count = taker_of(TRADE), 2 * OTHERS_MAX + 10
    good = b'{"s":"A","p":"1","q":"1","m":b}'
    frames = [b"nonsense" if number % 3 else good for number in range(count)]
    others = taker.take_each(frames, [TS] * count, 0)
    assert others == [number for number in range(count) if number % 3]
    assert taker.rows.take_out().trade_frames.tolist() == list(range(0, count, 3))


def test_times_that_are_none_leave_all_to_python() -> None:
    good = b'{"s":"A","p":"1","q":"1","m":b}'
    assert taker_of(TRADE).take_each([good] * 2, [TS, 2**63], 0) == [0, 1]


def test_newest_first_turns_the_rows_of_a_frame_around() -> None:
    text = '<[>"<symbol>","p":"<price:price>","q":"<size:size>","m":<side:b=1|s=2><row><]>'
    one = b'"A","p":"%d","q":"1","m":b'
    frame = b"[" + b",".join(one % number for number in (3, 2, 1)) + b"]"
    for newest_first, expected in ((True, [100, 200, 300]), (False, [300, 200, 100])):
        taker = taker_of(shape(RowClass.TRADE, text, newest_first=newest_first))
        assert not taker.take_each([frame], [TS], 0)
        assert taker.rows.take_out().trades["price"].tolist() == expected
