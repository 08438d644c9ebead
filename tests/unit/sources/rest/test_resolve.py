"""Names of a configuration against lists: what runs, what waits, what can never be right."""

from __future__ import annotations

from typing import Any

import pytest

from ingestor.adapter.instrument_list import InstrumentList
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Contract, Instrument, instrument
from ingestor.sources.rest.resolve import resolve


def make(symbol: str, canonical: str) -> Instrument:
    base, quote, *_ = canonical.split("-")
    contract = Contract.PERPETUAL if canonical.endswith("-PERP") else Contract.SPOT
    return instrument(
        "acme", "linear", symbol, canonical, base, quote, "0.1", "1", contract=contract
    )


def listing_of(*instruments: Instrument, **more: Any) -> InstrumentList:
    return InstrumentList("acme", "linear", {one.symbol: one for one in instruments}, **more)


LISTED = listing_of(
    make("btcusdt", "BTC-USDT-PERP"),
    make("ethusdt", "ETH-USDT-PERP"),
    make("btcusdc", "BTC-USDC-PERP"),
    make("weird[1]", "WEIRD-USDT-PERP"),
)


@pytest.mark.parametrize(
    ("wanted", "symbols"),
    [
        (["BTC-USDT-PERP"], ["btcusdt"]),
        (["btcusdt"], ["btcusdt"]),
        (["BTCUSDT"], ["btcusdt"]),
        (["eth-usdt-perp", "btcusdt"], ["ethusdt", "btcusdt"]),
        (["*-USDT-PERP"], ["btcusdt", "ethusdt", "weird[1]"]),
        (["btc-*"], ["btcusdt", "btcusdc"]),
        (["?TH-USDT-PERP", "*"], ["ethusdt", "btcusdt", "btcusdc", "weird[1]"]),
        (["[BE]*-USDT-PERP"], ["btcusdt", "ethusdt"]),
        (["weird[1]"], ["weird[1]"]),  # a name before it is a pattern
        ([], []),
    ],
)
def test_names_and_patterns_are_resolved(wanted: list[str], symbols: list[str]) -> None:
    assert [one.symbol for one in resolve(LISTED, wanted).chosen] == symbols


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ["btcusdt", "BTC-USDD-PERP"],
            "a.toml: acme linear has no symbol 'BTC-USDD-PERP'; did you mean BTC-USDT-PERP?",
        ),
        (
            ["ethusdtt", "BTCUSDDC"],
            "symbol 'ethusdtt', 'BTCUSDDC'; did you mean ETHUSDT, BTCUSDC?",
        ),
        (["*-EUR"], "a.toml: acme linear has no symbol '*-EUR'; it has 4 symbols, "),
        ([f"{n}" * 9 for n in range(7)], "'444444444' and 2 more; it has 4 symbols, "),
    ],
)
def test_unknown_symbols_name_the_nearest(wanted: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(LISTED, wanted, "a.toml")
    assert message in str(caught.value)


def test_a_market_without_symbols_has_none_to_name() -> None:
    with pytest.raises(ConfigError, match="acme linear has no symbol 'x'; it has 0 symbols"):
        resolve(listing_of(), ["x"])
