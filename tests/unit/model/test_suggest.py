"""The hint for a word that is not known."""

from __future__ import annotations

import pytest

from ingestor.model.suggest import nearest


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("krakne", ["kraken", "okx"], "did you mean kraken?"),
        ("btc-usd", ["BTC-USD", "ETH-USD"], "did you mean BTC-USD?"),
        ("zzz", ["okx", "bybit"], "known are bybit, okx"),
        ("zzz", [], "none is known"),
        ("zzz", [f"a{number:02}" for number in range(13)], "known are a00, a01, a02"),
    ],
)
def test_the_nearest_word_is_named(word: str, known: list[str], hint: str) -> None:
    assert nearest(word, known).startswith(hint)


def test_a_long_list_is_cut_short() -> None:
    hint = nearest("zzz", [f"a{number:02}" for number in range(13)])
    assert hint.endswith("a11, ...")
