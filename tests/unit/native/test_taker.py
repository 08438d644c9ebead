"""Each hole at its edges, arrays that fill up, and names of every kind."""

from __future__ import annotations

import pytest

from ingestor.adapter.shapes import level_pairs, shape
from ingestor.model.row_classes import RowClass
from ingestor.native import CompiledShape, FrameTaker, TakenRows, native
from ingestor.native.taker import OTHERS_MAX
from tests.feeds.shape_frames import header

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


def others_of(taker: FrameTaker, payloads: list[bytes], ts_recv: list[int]) -> list[int]:
    """Take payloads; return the places of those that no shape takes."""
    return [place for some in taker.take_each(payloads, ts_recv, 0) for place in some]


def price_of(text: str, symbol: str = "A") -> int | None:
    """Return what a price becomes, None where the frame is not taken."""
    taker = taker_of(TRADE)
    frame = f'{{"s":"{symbol}","p":"{text}","q":"1","m":b}}'.encode()
    if others_of(taker, [frame], [TS]):
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
    assert others_of(taker, [frame], [TS]) == [0], "18 digits at most, and the one before the point"
    frame = b'{"s":"WIDE","p":"0.00000000000000001","q":"0.00000000000000009","m":s}'
    assert others_of(taker, [frame], [TS]) == [0], "a digit before the point makes it 19"


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
    others = others_of(taker, [frame], [TS])
    rows = taker.rows.take_out().trades
    assert (None if others else int(rows["sequence"][0])) == expected


@pytest.mark.parametrize("symbol", ["A", "币", "B", "", 'A"', "AA"])
def test_symbols(symbol: str) -> None:
    assert (price_of("1", symbol) is not None) == (symbol in {"A", "币"})


def test_a_frame_is_taken_whole_or_not_at_all() -> None:
    taker = taker_of(BOOK)
    good = b'{"s":"A","b":[["1","2"],["3","0"]],"a":[]}'
    frames = [good, *(good[:end] for end in range(len(good))), good + b" ", good]
    assert others_of(taker, frames, [TS] * len(frames)) == list(range(1, len(frames) - 1))
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
    assert others_of(taker_of(BOOK), [frame], [TS]) == [0]


def test_arrays_grow_when_one_batch_has_no_end() -> None:
    rows = TakenRows(2, 2)
    taker = taker_of(BOOK, rows=rows)
    frame = b'{"s":"A","b":[["1","2"],["3","4"],["5","6"]],"a":[["7","8"]]}'
    assert not others_of(taker, [frame] * 50, [TS] * 50)
    assert rows.rows == 200
    taken = rows.take_out()
    assert taken.levels.tolist() == [[100, 2], [300, 4], [500, 6], [700, 8]] * 50
    assert rows.is_empty


def test_more_others_than_one_call_notes() -> None:
    taker, count = taker_of(TRADE), 2 * OTHERS_MAX + 10
    good = b'{"s":"A","p":"1","q":"1","m":b}'
    frames = [b"nonsense" if number % 3 else good for number in range(count)]
    others = others_of(taker, frames, [TS] * count)
    assert others == [number for number in range(count) if number % 3]
    assert taker.rows.take_out().trade_frames.tolist() == list(range(0, count, 3))


def test_times_that_are_none_leave_all_to_python() -> None:
    good = b'{"s":"A","p":"1","q":"1","m":b}'
    assert others_of(taker_of(TRADE), [good] * 2, [TS, 2**63]) == [0, 1]


def test_newest_first_turns_the_rows_of_a_frame_around() -> None:
    text = '<[>"<symbol>","p":"<price:price>","q":"<size:size>","m":<side:b=1|s=2><row><]>'
    one = b'"A","p":"%d","q":"1","m":b'
    frame = b"[" + b",".join(one % number for number in (3, 2, 1)) + b"]"
    for newest_first, expected in ((True, [100, 200, 300]), (False, [300, 200, 100])):
        taker = taker_of(shape(RowClass.TRADE, text, newest_first=newest_first))
        assert not others_of(taker, [frame], [TS])
        assert taker.rows.take_out().trades["price"].tolist() == expected


class Counter:
    """A connection that expects a number."""

    def __init__(self, next_number: int) -> None:
        self.next_number = next_number


COUNTED = shape(
    RowClass.LEVEL, f'{{"n":<next:first,last>,"s":"<symbol>","b":{level_pairs("bids")}}}'
)


def counted(number: int) -> bytes:
    return b'{"n":%d,"s":"A","b":[["1","2"]]}' % number


def test_a_number_that_is_not_the_next_one_is_left_before_what_follows_is_looked_at() -> None:
    """The numbers of two connections; what is left moves its own connection's."""
    taker, first, second = taker_of(COUNTED), Counter(4), Counter(2**63 - 1)
    frames = [counted(number) for number in (4, 2**63 - 1, 6, 7, 7, 8)]
    counters = [first, second, first, first, second, first]
    seen = []
    for others in taker.take_each(frames, [TS] * 6, 0, counters):
        seen.append((others, first.next_number, second.next_number))
        if others == [2]:
            first.next_number = 7  # as its decoder, which found what was skipped
    assert seen == [([2], 5, 2**63), ([4], 8, 2**63)]
    assert (first.next_number, second.next_number) == (9, 2**63)
    updates = taker.rows.take_out().updates
    assert updates["first"].tolist() == updates["last"].tolist() == [4, 2**63 - 1, 7, 8]


def test_a_read_ends_at_a_frame_that_is_not_the_next_one() -> None:
    taker, counter = taker_of(COUNTED), Counter(1)
    data = b"".join(map(header, map(counted, (1, 2, 2, 3))))
    size = len(data) // 4
    end, taken, is_more, others = taker.take_read(data, 0, 1 << 16, TS, 0, counter)
    assert (end, taken, is_more, counter.next_number) == (3 * size, 2, True, 3)
    assert others == [[2 * size + 2, size - 2, 1]]
    assert taker.take_read(data, end, 1 << 16, TS, 3, counter) == (4 * size, 1, False, [])
    assert counter.next_number == 4


def test_numbers_move_when_arrays_are_full() -> None:
    counter = Counter(0)
    taker = taker_of(COUNTED, rows=TakenRows(2, 2))
    frames = [counted(number) for number in range(50)]
    assert not [*taker.take_each(frames, [TS] * 50, 0, [counter] * 50)]
    assert counter.next_number == taker.frames == 50


def test_all_shapes_of_a_market_count_or_none() -> None:
    with pytest.raises(ValueError, match="<next>"):
        taker_of(COUNTED, BOOK)
