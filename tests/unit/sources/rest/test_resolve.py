"""Names of a configuration against lists: what runs, what waits, what can never be right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingestor.adapter.instrument_list import Halted, InstrumentList, Unreadable
from ingestor.model.errors import ConfigError
from ingestor.model.instruments import Contract, Instrument, instrument
from ingestor.sources.rest.resolve import WaitReason, resolve


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


BREAK = Halted("aaausdt", "BREAK", make("aaausdt", "AAA-USDT-PERP"))
PREOPEN = Halted("newusdt", "preopen", None)  # whose metadata aren't there yet
SOME_HALTED = replace(LISTED, halted={"aaausdt": BREAK, "newusdt": PREOPEN})


@pytest.mark.parametrize("name", ["aaausdt", "AAA-USDT-PERP", "newusdt", "AAA-*"])
def test_a_symbol_that_does_not_trade_waits_and_the_rest_runs(name: str) -> None:
    found = resolve(SOME_HALTED, [name, "btcusdt"])
    assert [one.symbol for one in found.chosen] == ["btcusdt"]
    (waiting,) = found.waiting
    assert (waiting.name, waiting.reason) == (name, WaitReason.NOT_TRADING)
    assert waiting.detail in {"aaausdt is 'BREAK'", "newusdt is 'preopen'"}


def test_a_pattern_takes_what_trades_and_does_not_wait() -> None:
    found = resolve(SOME_HALTED, ["*-USDT-PERP"])
    assert len(found.chosen) == 3
    assert found.waiting == []


def test_a_canonical_name_of_two_is_the_one_that_trades() -> None:
    old = Halted("btcusdt_old", "CLOSE", make("btcusdt_old", "BTC-USDT-PERP"))
    found = resolve(replace(LISTED, halted={"btcusdt_old": old}), ["BTC-USDT-PERP"])
    assert [one.symbol for one in found.chosen] == ["btcusdt"]


@pytest.mark.parametrize("name", ["xrpusdt", "XRPUSDT", "XRP-USDT-PERP"])
def test_a_symbol_that_cannot_be_read_is_an_error_for_it_alone(name: str) -> None:
    odd = replace(LISTED, unreadable=(Unreadable("xrpusdt", "ValueError: empty ctVal"),))
    found = resolve(odd, [name, "ethusdt"])
    assert [one.symbol for one in found.chosen] == ["ethusdt"]
    (waiting,) = found.waiting
    assert waiting.reason is WaitReason.UNREADABLE
    assert waiting.detail == "xrpusdt: ValueError: empty ctVal"


def test_an_odd_entry_hides_no_typing_error_elsewhere() -> None:
    odd = replace(LISTED, unreadable=(Unreadable("xrpusdt", "ValueError"),))
    with pytest.raises(ConfigError, match="'BTC-USDD-PERP'; did you mean BTC-USDT-PERP"):
        resolve(odd, ["BTC-USDD-PERP"])


def test_an_entry_without_a_name_may_be_any() -> None:
    odd = replace(LISTED, unreadable=(Unreadable("", "KeyError in {}"),))
    (waiting,) = resolve(odd, ["BTC-USDD-PERP"]).waiting
    assert waiting.reason is WaitReason.UNREADABLE


def test_a_name_that_an_old_list_does_not_have_waits() -> None:
    (waiting,) = resolve(replace(LISTED, fresh=False), ["BTC-USDD-PERP"]).waiting
    assert (waiting.name, waiting.reason) == ("BTC-USDD-PERP", WaitReason.UNLISTED)


def test_the_nearest_name_may_be_one_that_does_not_trade() -> None:
    with pytest.raises(ConfigError, match="did you mean AAAUSDT"):
        resolve(SOME_HALTED, ["aaausdd"])
