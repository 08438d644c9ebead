from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.timestamps import (
    TIME_MAX,
    TIME_MIN,
    iso_column_ns,
    iso_event_ns,
    iso_ns,
    iso_text,
    milliseconds_ns,
)


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_round_trip_keeps_every_nanosecond(ns: int) -> None:
    assert iso_ns(iso_text(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-08-01T02:53:53.184174Z", 1_785_552_833_184_174_000),
        ("2026-08-09T21:05:44.25045Z", 1_786_309_544_250_450_000),
        ("2026-08-09T21:05:48.228751305Z", 1_786_309_548_228_751_305),
    ],
)
def test_known_times(text: str, ns: int) -> None:
    assert iso_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-08-01",
        "2026-08-01T02:53:53",
        "2026-08-01T02:53:53+01:00",
        "2026-08-01T02:53:53.Z",
        "2026-08-01T02:53:53.1234567890Z",
        "2026-13-01T02:53:53Z",
        "2026-08-01T02:53:53.٣Z",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"timestamp|isoformat|month"):
        iso_ns(text)


_MINUTE = 1_786_309_500 * 10**9


@given(
    st.lists(st.integers(0, 10**11), min_size=1, max_size=8)
    | st.lists(st.integers(0, 10**11), min_size=32, max_size=40),
    st.integers(0, 9),
    st.none() | st.tuples(st.integers(0, 39), st.integers(0, 29), st.sampled_from("Z.:-7 \u0663")),
)
def test_a_column_is_read_as_its_texts_are(
    offsets: list[int], decimals: int, damage: tuple[int, int, str] | None
) -> None:
    """Also over the end of a minute, for every number of decimals, and with one bad character."""
    texts = [f"{iso_text(_MINUTE + offset)[: 20 + decimals]}Z" for offset in offsets]
    if damage is not None:
        row, at, character = damage[0] % len(texts), damage[1], damage[2]
        texts[row] = texts[row][:at] + character + texts[row][at + 1 :]
    try:
        expected = np.array([iso_event_ns(text) for text in texts], np.int64)
    except (ValueError, OverflowError) as failure:
        with pytest.raises(type(failure), match=r"."):
            iso_column_ns(texts)
    else:
        assert iso_column_ns(texts).tolist() == expected.tolist()


def test_an_empty_column() -> None:
    assert iso_column_ns([]).tolist() == []


def test_milliseconds() -> None:
    least, most = TIME_MIN // 10**6, TIME_MAX // 10**6
    assert milliseconds_ns([least, most]).tolist() == [TIME_MIN, TIME_MAX]
    assert milliseconds_ns([]).tolist() == []


@pytest.mark.parametrize(
    "time", [0, -1, TIME_MIN // 10**6 - 1, TIME_MAX // 10**6 + 1, 2**63 - 1, 2**63, 2**70]
)
def test_milliseconds_that_are_no_time_of_a_venue(time: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        milliseconds_ns([1_800_000_000_000, time])


@pytest.mark.parametrize("text", ["2009-12-31T23:59:59Z", "2100-01-01T00:00:01Z"])
def test_a_venue_has_no_times_of_other_centuries(text: str) -> None:
    with pytest.raises(ValueError, match="between 2010 and 2100"):
        iso_event_ns(text)
