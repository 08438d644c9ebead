"""How two lists of a market differ, and what an older one lends to a newer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingestor.adapter.instrument_list import (
    Halted,
    InstrumentList,
    ListChange,
    Unreadable,
    carry,
    difference,
    keep,
)
from ingestor.model.instruments import Contract, Instrument, check_instrument, instrument


def make(symbol: str, tick_size: str = "0.01", **more: Any) -> Instrument:
    name = f"{symbol}-USD"
    return instrument("acme", "linear", symbol, name, symbol, "USD", tick_size, "1", **more)


def listed(*trading: Instrument, **more: Any) -> InstrumentList:
    return InstrumentList("acme", "linear", {one.symbol: one for one in trading}, **more)


A, B, C = make("A"), make("B"), make("C")


def test_equal_lists_do_not_differ() -> None:
    change = difference(listed(A, B), listed(B, A))
    assert change == ListChange()
    assert not change


def test_listings_and_delistings() -> None:
    change = difference(listed(A, B), listed(B, C))
    assert change == ListChange(added=(C,), gone=("A",))
    assert change


@pytest.mark.rows("I2")
@pytest.mark.parametrize(
    "after",
    [
        make("A", "0.1"),  # coarser
        make("A", "0.001"),
        replace(A, lot_size="10"),
        replace(A, multiplier="0.1"),
        replace(A, expiry_ns=10**18, contract=Contract.FUTURE),
        replace(A, settlement="EUR"),
        replace(A, size_exponent=3),
    ],
)
def test_every_change_of_metadata_is_seen(after: Instrument) -> None:
    assert difference(listed(A, B), listed(after, B)) == ListChange(changed=((A, after),))


@pytest.mark.rows("I4")
def test_halts_and_the_end_of_them() -> None:
    halt = Halted("A", "BREAK", A)
    assert difference(listed(A, B), listed(B, halted={"A": halt})) == ListChange(halted=(halt,))
    assert difference(listed(B, halted={"A": halt}), listed(A, B)) == ListChange(resumed=(A,))
    assert not difference(listed(B, halted={"A": halt}), listed(B, halted={"A": halt}))


@pytest.mark.rows("I4")
@pytest.mark.parametrize("metadata", [A, None])
def test_what_was_halted_before_it_went_is_gone(metadata: Instrument | None) -> None:
    halted = listed(B, halted={"A": Halted("A", "BREAK", metadata)})
    assert difference(halted, listed(B)) == ListChange(gone=("A",)), "it may run since before"
    odd = (Unreadable("A", "ValueError"),)
    unsure = listed(B, unreadable=odd)
    assert not difference(halted, unsure)
    assert not difference(halted, listed(B, unreadable=(Unreadable("", "KeyError"),)))
    carried = carry(halted, unsure)
    assert carried.halted == halted.halted
    assert not carried.carried
    assert difference(carried, listed(B)) == ListChange(gone=("A",))
    assert keep(listed(B), halted, {"A"}).halted == halted.halted


def test_an_entry_that_cannot_be_read_is_no_delisting() -> None:
    odd = (Unreadable("A", "ValueError"),)
    assert not difference(listed(A, B), listed(B, unreadable=odd))
    assert difference(listed(B, unreadable=odd), listed(A, B)) == ListChange(resumed=(A,))
    nameless = (Unreadable("", "KeyError"),)
    assert not difference(listed(A, B), listed(B, unreadable=nameless)), "it may be A"
    assert difference(listed(A), listed(A, C, unreadable=nameless)) == ListChange(added=(C,))


def test_the_first_list_is_all_new() -> None:
    assert difference(listed(), listed(A, B)) == ListChange(added=(A, B))


def test_an_older_list_lends_its_metadata() -> None:
    odd = (Unreadable("A", "ValueError"), Unreadable("", "KeyError"), Unreadable("Z", "new"))
    found = carry(listed(A, B), listed(B, unreadable=odd))
    assert found.trading == {"B": B, "A": A}
    assert found.carried == {"A"}
    assert carry(found, listed(B, unreadable=odd)).carried == {"A"}
    assert not carry(found, listed(A, B)).carried
    assert carry(None, found) is found
    halted = carry(listed(A), listed(halted={"A": Halted("A", "BREAK", None)}, unreadable=odd))
    assert "A" not in halted.trading


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": ""}, {"symbol": 5}, {"symbol": "x" * 129}, {"canonical": "a\nb"}, {"base": None},
        {"tick_size": "0"}, {"lot_size": "-1"}, {"tick_size": 0.1}, {"multiplier": "NaN"},
        {"multiplier": ""}, {"price_exponent": 19}, {"price_exponent": -1}, {"size_exponent": True},
        {"size_exponent": 2.0}, {"expiry_ns": 2**63}, {"expiry_ns": -1}, {"expiry_ns": "1"},
        {"contract": "spot"}, {"size_unit": None}, {"revision": 0}, {"revision": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_what_no_field_holds_is_refused(change: dict[str, Any]) -> None:
    assert check_instrument(A) is A
    with pytest.raises((ValueError, TypeError)):
        check_instrument(replace(A, **change))


def test_what_is_no_instrument_is_refused() -> None:
    with pytest.raises(TypeError, match="dict is no Instrument"):
        check_instrument({})  # type: ignore[arg-type]
