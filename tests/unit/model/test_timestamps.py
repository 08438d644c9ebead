from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model.errors import ConfigError
from ingestor.model.timestamps import (
    TIME_MAX,
    TIME_MIN,
    either_ns,
    iso_event_ns,
    iso_ns,
    iso_text,
    time_ns,
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


@pytest.mark.parametrize("unit", [10**3, 10**6])
def test_times_in_either_unit(unit: int) -> None:
    least, most = -(-TIME_MIN // unit), TIME_MAX // unit
    assert [either_ns(time) for time in (least, most)] == [TIME_MIN, TIME_MAX]


@pytest.mark.parametrize(
    "time",
    [0, -1, TIME_MIN // 10**6 - 1, TIME_MAX // 10**6 + 1, TIME_MIN // 1000 - 1, 2**63 - 1, 2**70],
)
def test_numbers_that_are_no_time_of_a_venue(time: int) -> None:
    with pytest.raises(ValueError, match="in ms or us"):
        either_ns(time)


@pytest.mark.parametrize("text", ["2009-12-31T23:59:59Z", "2100-01-01T00:00:01Z"])
def test_a_venue_has_no_times_of_other_centuries(text: str) -> None:
    with pytest.raises(ValueError, match="between 2010 and 2100"):
        iso_event_ns(text)


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        (5, 5),
        ("1785552833184174000", 1_785_552_833_184_174_000),
        ("2026-08-01T02:53:53.184174Z", 1_785_552_833_184_174_000),
        ("2026-08-01T02:53:53.184174", 1_785_552_833_184_174_000),
        ("2026-08-01T04:53:53.184174+02:00", 1_785_552_833_184_174_000),
        ("2026-07-31T22:23:53.184174-0430", 1_785_552_833_184_174_000),
        ("1970-01-02", 86_400_000_000_000),
        (datetime(1970, 1, 1, 0, 0, 1, 7, UTC), 1_000_007_000),
    ],
)
def test_times_that_people_write(time: int | str | datetime, ns: int) -> None:
    assert time_ns(time) == ns


@pytest.mark.parametrize("time", ["yesterday", datetime(1970, 1, 1)])  # noqa: DTZ001  # without a zone
def test_what_is_no_time_is_refused(time: str | datetime) -> None:
    with pytest.raises(ConfigError):
        time_ns(time)
