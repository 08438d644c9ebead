"""What an audit makes of VOID ranges. Audits of topics are in tests/kafka and tests/e2e."""

from __future__ import annotations

from ingestor.consumer import MissingRange, remainder, void_of

SESSION = bytes(16)


def hole(first: int, last: int) -> MissingRange:
    return MissingRange("t", 0, SESSION.hex(), first, last)


def test_void_ranges_are_taken_out_of_holes() -> None:
    void = [hole(12, 13), hole(18, 25), hole(1, 10), MissingRange("u", 0, SESSION.hex(), 14, 15)]
    assert remainder(hole(10, 20), void) == [hole(11, 11), hole(14, 17)]
    assert remainder(hole(12, 13), void) == []
    assert remainder(hole(30, 31), void) == [hole(30, 31)]


def test_only_void_records_are_void() -> None:
    assert void_of(b'{"kind":"session_start"}') == []
    value = (
        b'{"kind":"void","topic":"t","partition":0,"session":"%b","first":3,"last":4,"reason":""}'
    )
    assert void_of(value % SESSION.hex().encode()) == [hole(3, 4)]
