from __future__ import annotations

import pytest

from ingestor.adapter import RestRequest
from ingestor.edge.recording.survey import Digits, Finder, inferred, matches


@pytest.mark.parametrize(
    ("texts", "exponent"),
    [
        ([], 0),
        (["1", "20"], 0),
        (["0.10", "5.123"], 3),
        (["0.00005100"], 8),
        (["61737.63000000"], 8),
        (["26000000000000.00000000"], 4),  # int64 has no room for what is printed
        (["26000000000000.00000001"], 8),  # but what is needed is not left out
        (["1e-3", 5, None], 0),
    ],
)
def test_digits_become_an_exponent(texts: list[object], exponent: int) -> None:
    digits = Digits()
    for text in texts:
        digits.see(text)
    assert digits.exponent == exponent


def test_an_inferred_instrument_has_room_for_its_digits() -> None:
    one = inferred("acme", "spot", "A", (Digits(2, 2, 5), Digits()))
    assert (one.key, one.tick_size, one.lot_size) == ("acme:spot:A", "0.01", "1")
    assert (one.price_exponent, one.size_exponent) == (2, 0)
    unseen = inferred("acme", "spot", "A", None)
    assert (unseen.price_exponent, unseen.size_exponent) == (8, 8)


def test_a_finder_knows_every_symbol() -> None:
    finder = Finder()
    assert (finder["A"], finder.get("B"), finder["A"]) == (0, 1, 0)
    assert "C" in finder
    assert 3 not in finder  # type: ignore[comparison-overlap]
    assert list(finder) == ["A", "B"]


REQUEST = RestRequest("/api/v3/depth", {"symbol": "A", "limit": "1000"})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.example/api/v3/depth?symbol=A&limit=100", True),
        ("https://x.example/api/v3/depth", True),
        ("https://x.example/api/v3/depth?symbol=B", False),
        ("https://x.example/fapi/v1/depth?symbol=A", False),
        ("/depth", True),
        ("/trades", False),
        ("/", False),
        ("", False),
    ],
)
def test_addresses_match_requests(url: str, expected: bool) -> None:
    assert matches(url, REQUEST) is expected
