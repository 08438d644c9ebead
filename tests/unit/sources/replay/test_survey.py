from __future__ import annotations

import pytest

from ingestor.adapter import RestRequest
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay.survey import Digits, Finder, Probe, inferred, matches


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


FRAMES = {
    "trades": b'{"ch":"trade","s":"A","t":1,"i":5,"p":"100.010","q":"0.5","m":"buy"}',
    "quotes": b'{"ch":"quote","s":"B","t":1,"u":9,"b":["7","1"],"a":["100.1234","2.25"]}',
    "book": b'{"ch":"snapshot","s":"A","t":1,"u":9,"b":[["9.0","1"]],"a":[["100.01","2.125"]]}',
}


def test_a_probe_sees_channels_and_digits() -> None:
    finder, probe = Finder(), Probe()
    adapter = adapter_of("simulated")("spot", finder)
    for channel, frame in FRAMES.items():
        probe.begin(None, b"")  # type: ignore[arg-type]
        adapter.decode(frame, 1, probe)
        probe.settle()
        ((number, seen),) = probe.channels
        assert (list(finder)[number], seen) == ("B" if channel == "quotes" else "A", channel)
        probe.channels.clear()
    probe.read()
    exponents = {
        symbol: (probe.prices[number].exponent, probe.sizes[number].exponent)
        for symbol, number in finder.items()
    }
    assert exponents == {"A": (3, 3), "B": (4, 2)}
    assert probe.rows == 0


def test_a_probe_sees_levels_that_are_json() -> None:
    probe = Probe()
    probe.begin(None, b"")  # type: ignore[arg-type]
    assert probe.json_levels(3, 1, 1, 1, 1, b'[["1.25","0.5"]]', b"[]")
    assert list(probe.channels) == [(3, "book")]
    assert (probe.prices[3].exponent, probe.sizes[3].exponent) == (2, 1)


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


def exponent_of(*texts: str) -> int:
    digits = Digits()
    for text in texts:
        digits.see(text)
    return digits.exponent


PRICES = [f"{90_000 + number}.{number % 10}" for number in range(100)]
POISON = "90000.123456789012345678"


@pytest.mark.parametrize("place", [0, 50, 100])
def test_one_absurd_number_widens_nothing(place: int) -> None:
    assert exponent_of(*PRICES[:place], POISON, *PRICES[place:]) == 1
    assert exponent_of(*PRICES[:place], POISON, POISON, POISON, *PRICES[place:]) == 1, "again"
    assert exponent_of(*PRICES[:place], "90000.1234567", *PRICES[place:]) == 1, "though it fits"


def test_several_finer_numbers_are_believed() -> None:
    finer = [f"9000{number}.12345678" for number in range(3)]
    assert exponent_of(*PRICES, *finer) == 8
    assert exponent_of(*finer, POISON, *PRICES) == 8


def test_a_number_a_little_finer_is_believed() -> None:
    assert exponent_of(*PRICES, "90000.125") == 3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_few_numbers_each_is_believed(count: int) -> None:
    assert exponent_of("0.00012345", *PRICES[:count]) == 8


def test_trailing_zeros_count_and_int64_bounds_them() -> None:
    assert exponent_of(*(f"{text}000" for text in PRICES)) == 4
    assert (
        exponent_of(*(f"{number}.10000000000000000000" for number in range(10**9, 10**9 + 50))) == 8
    )


def test_what_is_no_decimal_text_is_passed_over() -> None:
    digits = Digits()
    for text in (None, 7, "1e-7", *PRICES):
        digits.see(text)
    assert digits.exponent == 1
