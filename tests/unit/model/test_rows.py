"""The layout is a promise to every consumer: sizes, offsets, byte order."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.model.row_classes import ROW_CLASSES, RowClass, control_row
from ingestor.model.rows import LEVEL, QUOTE, TRADE, UPDATE, Cause, Flag, Kind

HEADER = [
    ("ts_event", 0, "<i8"),
    ("ts_recv", 8, "<i8"),
    ("sequence", 16, "<u8"),
    ("instrument", 24, "<u4"),
    ("flags", 28, "<u2"),
    ("side", 30, "|u1"),
    ("kind", 31, "|u1"),
]
LAYOUTS = {
    TRADE: [
        *HEADER,
        ("price", 32, "<i8"),
        ("size", 40, "<i8"),
        ("trade_id_high", 48, "<u8"),
        ("trade_id_low", 56, "<u8"),
    ],
    QUOTE: [
        *HEADER,
        ("bid_price", 32, "<i8"),
        ("bid_size", 40, "<i8"),
        ("ask_price", 48, "<i8"),
        ("ask_size", 56, "<i8"),
    ],
    LEVEL: [*HEADER, ("price", 32, "<i8"), ("size", 40, "<i8")],
}


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_layout(dtype: np.dtype[np.void]) -> None:
    assert dtype.fields is not None
    found = [(name, dtype.fields[name][1], dtype.fields[name][0].str) for name in dtype.names or ()]
    assert found == LAYOUTS[dtype]
    assert sum(dtype.fields[name][0].itemsize for name in dtype.names or ()) == dtype.itemsize


def test_sizes_have_no_padding() -> None:
    assert [dtype.itemsize for dtype in (TRADE, QUOTE, LEVEL, UPDATE)] == [64, 64, 48, 64]


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
def test_kinds_of_ticks_equal_their_class(row_class: RowClass) -> None:
    assert Kind(row_class.id).name == row_class.name


@pytest.mark.parametrize("row_class", tuple(ROW_CLASSES))
def test_a_mark_says_what_is_missing(row_class: RowClass) -> None:
    row = control_row(row_class, Kind.GAP, 7, 123, cause=Cause.SEQUENCE, first=10, last=12)
    assert row.dtype == row_class.dtype
    assert row["kind"][0] == Kind.GAP
    assert row["side"][0] == Cause.SEQUENCE
    assert row["instrument"][0] == 7
    assert (row["ts_recv"][0], row["flags"][0]) == (123, Flag.LAST | Flag.NO_VENUE_TIME)
    missing = [int(row[name][0]) for name in row.dtype.names[7:9]]  # type: ignore[index]
    assert missing == [10, 12]


def test_the_bits_of_flags_are_a_promise_too() -> None:
    assert {flag.name: int(flag) for flag in Flag} == {
        "LAST": 1,
        "SNAPSHOT": 2,
        "NO_VENUE_TIME": 4,
        "PARTIAL": 8,
        "CHECKSUM": 16,
        "BLOCK": 32,
        "RPI": 64,
        "LIQUIDATION": 128,
        "ADL": 256,
        "INSURANCE": 512,
        "AUCTION": 1_024,
        "BACKFILL": 2_048,
        "SAMPLE": 8_192,
        "FETCHED": 16_384,
    }
