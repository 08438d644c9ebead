"""Retry-After in both forms of RFC 9110, and in forms that no server should send."""

from __future__ import annotations

import pytest

from ingestor.model.retry_after import RETRY_AFTER_MAX_S, retry_after_s

NOW_S = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.rows("I11")
@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("0007", 7.0),
        ("1000000000", RETRY_AFTER_MAX_S),
        ("9" * 400, RETRY_AFTER_MAX_S),
        ("9" * 100_000, RETRY_AFTER_MAX_S),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun Nov  6 08:50:07 1994", 30.0),
        ("Sun, 06 Nov 1994 07:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
    ],
)
def test_both_forms_are_read_within_bounds(value: str, wanted: float) -> None:
    assert retry_after_s(value, NOW_S) == wanted


@pytest.mark.rows("I11")
@pytest.mark.parametrize(
    "value",
    [
        None, "", "-1", "-" + "9" * 400, "soon", "1e9", "inf", "nan", "1,000", "٣", "0x10", "1_000",
        "Sun, 99 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "\x00",
        "Sun, 06 Nov 1994 08:49:37 +99999999999",
    ],
)  # fmt: skip
def test_nonsense_is_no_wish(value: str | None) -> None:
    assert retry_after_s(value, NOW_S) is None
