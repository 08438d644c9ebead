"""A frame is all or nothing; columns are exact; a bad number costs its frame alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ingestor.columns.buffer import ColumnBuffer
from ingestor.model.instruments import InstrumentTable, instrument
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Rows, Side


class Connection:
    """The least a source must be."""

    def __init__(self, *instruments: int) -> None:
        self._instruments = instruments

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        return self._instruments

    def count_refused(self, reason: str) -> None:
        self.refused = reason


@pytest.fixture
def table() -> InstrumentTable:
    return InstrumentTable(
        instrument("acme", "spot", f"S{n}", f"S{n}-USD", f"S{n}", "USD", "0.01", "0.001")
        for n in range(3)
    )


def trade(buffer: ColumnBuffer, number: int, price: object = "1.25", size: object = "2") -> None:
    buffer.add_trade(number, 10, 20, 30, price, size, Side.ASK, 40, trade_id_high=50)


def test_rows_hold_what_was_appended(table: InstrumentTable) -> None:
    buffer = ColumnBuffer()
    source = Connection(0, 1)
    buffer.begin(source, b"frame 0")
    trade(buffer, 1)
    buffer.begin(source, b"frame 1")
    buffer.add_quote(0, 11, 21, 31, "1.00", "3", "1.010", "0.5")
    buffer.add_book_update(
        2,
        12,
        22,
        [["1.00", "3"], ["0.99", "0.000"]],
        [["1.01", "1.5"]],
        first=5,
        last=7,
        previous=4,
        flags=int(Flag.SNAPSHOT),
        checksum=0xFFFF_FFFF,
    )
    assert (buffer.rows, buffer.is_empty) == (5, False)
    sealed = buffer.seal(table)
    assert sealed.trades[0].item() == (10, 20, 30, 1, Flag.LAST, Side.ASK, 1, 125, 2000, 50, 40)
    assert sealed.quotes[0].item() == (11, 21, 31, 0, Flag.LAST, 0, 2, 100, 3000, 101, 500)
    flags = Flag.SNAPSHOT | Flag.CHECKSUM
    assert sealed.updates[0].item() == (12, 22, 5, 7, 4, 2, 2, 1, 0xFFFF_FFFF, 1, flags, 0)
    assert sealed.prices.tolist() == [100, 99, 101]
    assert sealed.sizes.tolist() == [3000, 0, 1500]
    assert sealed.frames == [b"frame 0", b"frame 1"]
    assert sealed.rows == 5
    assert buffer.is_empty


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1, 2**64, "7", None, 1.5])
def test_a_number_that_does_not_fit_its_field_costs_its_frame_alone(
    table: InstrumentTable, number: int
) -> None:
    buffer = ColumnBuffer()
    source = Connection(0)
    for payload, sequence in ((b"0", 1), (b"1", number), (b"2", 3)):
        buffer.begin(source, payload)
        buffer.add_trade(0, 1, 9, sequence, "1", "2", 1)
        buffer.add_quote(0, 1, 9, sequence, "1", "2", "3", "4")
    sealed = buffer.seal(table)
    assert sealed.trades["sequence"].tolist() == sealed.quotes["sequence"].tolist() == [1, 3]
    assert sealed.quote_frames.tolist() == [0, 2]
    (rejected,) = sealed.rejected
    assert (rejected.payload, rejected.reason, rejected.at_sealing) == (b"1", "malformed", True)
    assert [(one.row_class, one.instruments) for one in sealed.holes] == [
        (RowClass.TRADE, [0]),
        (RowClass.QUOTE, [0]),
    ]
    assert {(one.trade, one.quote, one.ts_recv) for one in sealed.holes} == {(1, 1, 9)}


def test_a_rejected_frame_is_taken_back_whole(table: InstrumentTable) -> None:
    buffer = ColumnBuffer()
    source = Connection(0, 1, 2)
    buffer.begin(source, b"good")
    trade(buffer, 0)
    buffer.add_book_update(0, 1, 1, [["1", "2"]], [], first=1, last=1)
    buffer.begin(source, b"bad")
    trade(buffer, 1)
    buffer.add_quote(1, 1, 1, 1, "1", "1", "2", "1")
    buffer.add_book_update(1, 1, 1, [["1", "2"]], [["3", "4"], ["5", "6"]], first=1, last=1)
    buffer.hole(Cause.SEQUENCE, 1, first=5, last=6)
    buffer.reject("malformed", "cut", 99)
    buffer.begin(source, b"good too")
    trade(buffer, 2)
    sealed = buffer.seal(table)
    assert sealed.trades["instrument"].tolist() == [0, 2]
    assert len(sealed.quotes) == 0
    assert sealed.updates["instrument"].tolist() == [0]
    assert sealed.prices.tolist() == [100]
    assert [(one.payload, one.reason, one.at_sealing) for one in sealed.rejected] == [
        (b"bad", "malformed", False)
    ]
    assert not sealed.holes, "the session knows what the frame may have cost"


@pytest.mark.parametrize(
    ("price", "size"), [("1.255", "1"), ("NaN", "1"), ("1", "-1"), ("1_0", "1"), (None, "1")]
)
def test_a_bad_number_costs_its_frame_alone(
    table: InstrumentTable, price: object, size: object
) -> None:
    buffer = ColumnBuffer()
    source = Connection(0, 1, 2)
    buffer.begin(source, b"0")
    trade(buffer, 0)
    buffer.hole(Cause.SEQUENCE, 7)
    buffer.begin(source, b"1")
    trade(buffer, 1, "3.00")
    trade(buffer, 2, price, size)
    buffer.add_book_update(1, 1, 1, [["1", "2"]], [], first=1, last=1)
    buffer.begin(source, b"2")
    trade(buffer, 2, "4.00")
    buffer.hole(Cause.SEQUENCE, 8)
    buffer.add_book_update(2, 1, 1, [["9", "2"]], [], first=1, last=1)
    sealed = buffer.seal(table)
    assert sealed.trades["price"].tolist() == [125, 400]
    assert sealed.updates["instrument"].tolist() == [2]
    assert sealed.prices.tolist() == [900]
    (rejected,) = sealed.rejected
    assert (rejected.payload, rejected.reason, rejected.at_sealing) == (b"1", "bad_number", True)
    assert [(hole.cause, hole.trade, hole.update, hole.instruments) for hole in sealed.holes] == [
        (Cause.SEQUENCE, 1, 0, None),
        (Cause.REJECTED, 1, 0, [1, 2]),
        (Cause.REJECTED, 1, 0, [1]),
        (Cause.SEQUENCE, 2, 0, None),
    ]


def test_a_bad_level_and_a_bad_quote_are_found_too(table: InstrumentTable) -> None:
    buffer = ColumnBuffer()
    source = Connection(0)
    for payload, level, ask in ((b"0", "1", "2"), (b"1", "1.0001", "2"), (b"2", "1", "x")):
        buffer.begin(source, payload)
        buffer.add_book_update(0, 1, 1, [["1", "1"], [level, "1"]], [["5", "1"]], first=1, last=1)
        buffer.add_quote(0, 1, 1, 1, "1", "1", ask, "1")
    sealed = buffer.seal(table)
    assert [one.payload for one in sealed.rejected] == [b"1", b"2"]
    assert (len(sealed.updates), len(sealed.prices), len(sealed.quotes)) == (1, 3, 1)
    assert sealed.quotes[0]["ask_price"] == 200


def test_a_source_may_declare_a_hole_without_a_frame(table: InstrumentTable) -> None:
    buffer = ColumnBuffer()
    source = Connection(1)
    buffer.hole(Cause.DISCONNECT, 5, source=source)
    assert not buffer.is_empty
    (hole,) = buffer.seal(table).holes
    assert (hole.source, hole.cause, hole.frame) == (source, Cause.DISCONNECT, -1)


def test_sealed_rows_of_an_old_revision_keep_their_exponent(table: InstrumentTable) -> None:
    finer = instrument("acme", "spot", "S0", "S0-USD", "S0", "USD", "0.0001", "0.001")
    number = table.add(finer)
    buffer = ColumnBuffer()
    buffer.begin(Connection(0), b"")
    trade(buffer, 0, "1.25")
    trade(buffer, number, "1.2501")
    assert buffer.seal(table).trades["price"].tolist() == [125, 12501]


@pytest.mark.parametrize(
    "levels",
    [
        [["1"]],
        [["1", "2", "3"]],
        [["1", "2"], []],
        {},
        "",
        [{"1": "2"}],
        ["12"],
        [["1", "2"], None],
        5,
    ],
)
def test_what_is_no_level_is_refused_before_anything_is_appended(levels: list[list[str]]) -> None:
    buffer = ColumnBuffer()
    buffer.begin(Connection(0), b"")
    with pytest.raises((ValueError, TypeError)):
        buffer.add_book_update(0, 1, 1, [["1", "2"]], levels)
    assert buffer.rows == 0


Reader = Callable[[list[object], Rows], Sequence[Sequence[object]]]


def _nothing_wrong(events: list[object], rows: Rows) -> Sequence[Sequence[object]]:
    return [["1"] * len(events)]


def _raises(events: list[object], rows: Rows) -> Sequence[Sequence[object]]:
    if "bad" in events:
        raise RuntimeError("our own bug")
    return _nothing_wrong(events, rows)


def _too_few(events: list[object], rows: Rows) -> Sequence[Sequence[object]]:
    return _nothing_wrong([one for one in events if one != "bad"], rows)


def _only_together(events: list[object], rows: Rows) -> Sequence[Sequence[object]]:
    if len(events) > 1:
        raise MemoryError
    return _nothing_wrong(events, rows)


@pytest.mark.parametrize(
    ("reader", "refused", "bugs"),
    [(_raises, [b"1"], 1), (_too_few, [b"1"], 0), (_only_together, [], 1)],
)
def test_a_reader_that_raises_costs_its_frame_alone(
    table: InstrumentTable, reader: Reader, refused: list[bytes], bugs: int
) -> None:
    buffer = ColumnBuffer()
    source = Connection(0, 1)
    for frame, event in enumerate(("good", "bad", "good")):
        buffer.begin(source, b"%d" % frame)
        buffer.add_row(RowClass.FUNDING, reader, event, frame % 2, 9)
    sealed = buffer.seal(table)
    assert [one.payload for one in sealed.rejected] == refused
    assert [one.instruments for one in sealed.holes] == [[1]] * len(refused)
    assert len(sealed.others[RowClass.FUNDING].rows) == 3 - len(refused)
    assert len(sealed.bugs) == bugs


@pytest.mark.parametrize("instrument", [10**9, 99, "S0", None, -1, 2**40])
@pytest.mark.parametrize("kind", ["trade", "quote", "levels"])
def test_what_nothing_foresaw_is_narrowed_to_its_frame(
    table: InstrumentTable, instrument: Any, kind: str
) -> None:
    """A number that no table has raises for the whole batch; so may anything else."""
    buffer = ColumnBuffer()
    source = Connection(0, 1)
    for number in (0, instrument, 1):
        buffer.begin(source, f"{number}".encode())
        try:
            match kind:
                case "trade":
                    trade(buffer, number)
                case "quote":
                    buffer.add_quote(number, 1, 9, 1, "1", "1", "2", "1")
                case _:
                    buffer.add_book_update(
                        number, 1, 9, [["1", "2"], ["3", "4"]], [["5", "6"]], first=1, last=1
                    )
        except struct.error as failure:  # as a session does
            buffer.reject("malformed", str(failure), 9)
    buffer.begin(source, b"last")
    trade(buffer, 1)
    buffer.add_book_update(1, 1, 9, [["7", "8"]], [], first=1, last=1)
    sealed = buffer.seal(table)
    assert [one.payload for one in sealed.rejected] == [f"{instrument}".encode()]
    assert sealed.trades["instrument"].tolist() == ([0, 1] * (kind == "trade")) + [1]
    assert sealed.quotes["instrument"].tolist() == [0, 1] * (kind == "quote")
    levels = [100, 300, 500] * 2 if kind == "levels" else []
    assert sealed.prices.tolist() == [*levels, 700]
    assert buffer.is_empty


@pytest.mark.parametrize("field", ["first", "last", "previous"])
@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_a_number_of_an_update_fits_63_bits(
    table: InstrumentTable, field: str, number: int
) -> None:
    """A GAP row has to hold it."""
    buffer = ColumnBuffer()
    source = Connection(0)
    cases: list[tuple[bytes, dict[str, Any]]] = [(b"0", {}), (b"1", {field: number}), (b"2", {})]
    for payload, numbers in cases:
        buffer.begin(source, payload)
        buffer.add_book_update(
            0,
            1,
            9,
            bids=[["1", "2"]],
            asks=[],
            **{"first": 1, "last": 1, "previous": 0, **numbers},
        )
    sealed = buffer.seal(table)
    assert [(one.payload, one.reason) for one in sealed.rejected] == [(b"1", "malformed")]
    assert len(sealed.updates) == 2


@pytest.mark.parametrize(
    ("kind", "numbers", "is_fine"),
    [
        ("trade", ("0", "1"), False),
        ("trade", ("-1", "1"), False),
        ("trade", ("1", "0"), False),
        ("trade", ("1", "0.001"), True),
        ("quote", ("0", "0", "1", "1"), True),
        ("quote", ("1", "0", "1", "0.000"), True),
        ("quote", ("0", "1", "1", "1"), False),
        ("quote", ("1", "1", "0.00", "1"), False),
        ("quote", ("-1", "0", "1", "1"), False),
        ("quote", ("1", "-1", "1", "1"), False),
        ("levels", ("1", "0"), True),
        ("levels", ("0", "1"), False),
        ("levels", ("0", "0"), False),
        ("levels", ("-1", "1"), False),
    ],
)
def test_prices_and_sizes_that_can_not_be(
    table: InstrumentTable, kind: str, numbers: tuple[str, ...], is_fine: bool
) -> None:
    buffer = ColumnBuffer()
    buffer.begin(Connection(0), b"0")
    match kind:
        case "trade":
            price, size = numbers
            buffer.add_trade(0, 1, 9, 1, price, size, 1)
        case "quote":
            bid, bid_size, ask, ask_size = numbers
            buffer.add_quote(0, 1, 9, 1, bid, bid_size, ask, ask_size)
        case _:
            buffer.add_book_update(0, 1, 9, [["1", "1"], numbers], [], first=1, last=1)
    sealed = buffer.seal(table)
    assert [one.reason for one in sealed.rejected] == ([] if is_fine else ["bad_number"])


def test_an_answer_that_is_refused_is_no_frame(table: InstrumentTable) -> None:
    buffer = ColumnBuffer()
    source = Connection(0)
    buffer.begin_answer(source, b"answer")
    buffer.add_book_update(0, 1, 9, [["ten", "2"]], [], first=1, last=1)
    sealed = buffer.seal(table)
    (rejected,) = sealed.rejected
    assert (rejected.reason, rejected.is_frame) == ("snapshot", False)
    assert [one.instruments for one in sealed.holes] == [[0]]
