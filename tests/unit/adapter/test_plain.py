"""Readers that adapters share: what they take, and what they refuse."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from ingestor.adapter import (
    MILLISECOND,
    SECOND,
    best_of,
    decimal_ns,
    pairs_of,
    span_ns,
    time_ns,
    uuid_halves,
    whole_number,
)
from ingestor.model.decimals import INT64_MAX


@pytest.mark.parametrize("value", [0, 7, "7", "0", INT64_MAX, str(INT64_MAX)])
def test_whole_numbers(value: Any) -> None:
    assert whole_number(value) == int(value)


@pytest.mark.parametrize(
    "value",
    [-1, "-1", "", " 1", "1_0", "1.0", 1.0, None, True, "٣", INT64_MAX + 1, "9" * 5_000, []],
)
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="is no number of 63 bits"):
        whole_number(value)


def test_times() -> None:
    assert time_ns("1767225600123") == time_ns(1_767_225_600_123) == 1_767_225_600_123_000_000
    assert time_ns("1767225600123456", 1_000) == 1_767_225_600_123_456_000
    for value in (0, "1767225600", 10**18):
        with pytest.raises(ValueError, match="no time between"):
            time_ns(value)


@pytest.mark.parametrize(
    ("value", "fraction"),
    [("1767225600", 0), (1_767_225_600, 0), ("1767225600.1234567", 123_456_700),
     ("1767225600.123456789", 123_456_789), ("1767225600.1234567899", 123_456_789)],
)  # fmt: skip
def test_seconds_keep_all_digits(value: Any, fraction: int) -> None:
    assert decimal_ns(value, SECOND) == 1_767_225_600_000_000_000 + fraction


def test_milliseconds_may_have_a_fraction() -> None:
    assert decimal_ns("1767225600123.4567", MILLISECOND) == 1_767_225_600_123_456_700


@pytest.mark.parametrize("value", ["", ".", "1767225600.x", "1.767e9", "-1", None, 1.5, "1", True])
def test_what_is_no_time_in_seconds(value: Any) -> None:
    with pytest.raises(ValueError, match="no time"):
        decimal_ns(value, SECOND)


def test_uuids() -> None:
    one = uuid.UUID("0195a6c2-7b7d-7c4f-8a3e-0123456789ab")
    high, low = uuid_halves(str(one))
    assert high << 64 | low == one.int
    for text in ("", "0195a6c27b7d7c4f8a3e0123456789ab", "0195a6c2-7b7d-7c4f-8a3e-0123456789ag"):
        with pytest.raises(ValueError, match=r"no UUID|hexadecimal"):
            uuid_halves(text)


def test_levels() -> None:
    assert pairs_of([["1", "2", "3"], ["4", "5"]]) == [("1", "2"), ("4", "5")]
    assert best_of([["1", "2", "3"]]) == ("1", "2")
    assert best_of([]) == ("0", "0")
    with pytest.raises(IndexError):
        pairs_of([["1"]])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m", 60), ("15min", 900), ("1H", 3_600), ("4hour", 14_400), ("10s", 10), ("1D", 86_400),
     ("7D", 604_800), ("1week", 604_800), ("1M", 2_592_000), ("1mon", 2_592_000)],
)  # fmt: skip
def test_lengths_of_candles(text: str, seconds: int) -> None:
    assert span_ns(text) == seconds * 1_000_000_000


@pytest.mark.parametrize("text", ["", "m", "1", "1x", "-1m", "1 m", "9999m", "1year", "soon"])
def test_what_is_no_length_of_a_candle(text: str) -> None:
    with pytest.raises(ValueError, match="no length"):
        span_ns(text)
