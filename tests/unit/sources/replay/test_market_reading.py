"""ingestor.sources.replay.market_reading: the compiled library and the adapter find the same."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from ingestor.native import native
from ingestor.sources.registry import adapter_of
from ingestor.sources.replay import market_reading
from ingestor.sources.replay.market_reading import EverySymbol, MarketReading


def test_every_text_is_a_symbol() -> None:
    symbols = EverySymbol()
    assert (symbols["A"], symbols.get("B"), symbols["A"]) == (0, 1, 0)
    assert "C" in symbols
    assert 3 not in symbols  # type: ignore[comparison-overlap]
    assert (list(symbols), len(symbols)) == (["A", "B", "C"], 3)


def trade(symbol: str, price: str, size: str) -> bytes:
    text = '{"ch":"trade","s":"%s","t":1790000000000,"i":5,"p":"%s","q":"%s","m":"buy"}'
    return (text % (symbol, price, size)).encode()


Found = tuple[dict[str, tuple[tuple[int, int, int], ...]], dict[int | str, list[tuple[str, str]]]]


def found_by(frames: Iterable[bytes], together: int = 64) -> tuple[Found, MarketReading]:
    reading = MarketReading(adapter_of("simulated"), "spot")
    routes = [reading.route(connection) for connection in (7, 8)]
    for at, frame in enumerate(frames):
        route = routes[at % 2]
        route.take((route, frame, 1))
        if at % together == 0:
            reading.decode()
    reading.decode()
    digits = {
        symbol: tuple((one.exponent, one.fitted(0), one.fitted(1)) for one in both)
        for symbol, both in reading.digits()
    }
    carried = {key: sorted(pairs) for key, pairs in reading.carried().items()}
    return (digits, carried), reading


def text_of(rng: random.Random) -> str:
    """Return a number: mostly a usual one, now and then one with more digits."""
    whole = rng.choice(["5", "61", "61234", "612345678901"][: rng.choice([2, 3, 3, 4])])
    decimals = rng.choice([0, 1, 2, 2, 2, 2, 3] + [4, 8, 12] * (rng.random() < 0.02))
    fraction = "".join(rng.choice("0123456789") for _ in range(decimals))
    zeros = "0" * rng.choice([0, 0, 0, 1, 3]) if fraction else ""
    return f"{whole}.{fraction}{zeros}" if fraction else whole


@pytest.mark.parametrize("seed", range(8))
def test_what_is_found_does_not_depend_on_who_reads(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native().library is None:
        pytest.skip("the library is not compiled")
    rng = random.Random(seed)
    frames = [
        trade(rng.choice("AAAABC"), text_of(rng), text_of(rng))
        for _ in range(rng.choice([50, 900]))
    ]
    frames[5:5] = [b"nonsense", trade("A", "x", "1"), b'{"ch":"trade","s":"D"}']
    compiled, reading = found_by(frames, rng.choice([1, 64, 500]))
    taker = reading._taker
    assert taker is not None
    assert taker.frames > 300 or len(frames) < 100, "the library reads most of them"
    monkeypatch.setattr(market_reading, "shapes_of", lambda *_: ())
    plain, reading = found_by(frames)
    assert reading._taker is None
    assert compiled == plain
    assert plain[1][7] == sorted({(symbol, "trades") for symbol in plain[0] if symbol != "D"})


def test_the_digits_of_a_number_beyond_what_is_usual_are_found_wherever_it_stands() -> None:
    usual = [trade("A", f"{90_000 + number}.{number % 10}", "1.5") for number in range(400)]
    finer = [trade("A", f"9000{number}.12345678", "1.50000") for number in range(3)]
    for at in (0, 150, 400):
        (digits, _), _ = found_by([*usual[:at], *finer, *usual[at:]])
        assert digits["A"][0][0] == 8
        assert digits["A"][1][0] == 5, "as printed"
    (digits, _), _ = found_by([*usual, trade("A", "90000.123456789012345678", "1"), *usual])
    assert digits["A"][0][0] == 1, "one absurd number says nothing"
