from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from ingestor.model.errors import UnknownInstrument
from ingestor.model.instruments import Contract, Instrument, InstrumentTable, SizeUnit, instrument


def make(symbol: str = "BTCUSDT", tick: str = "0.01", market: str = "spot") -> Instrument:
    return instrument("acme", market, symbol, "BTC-USDT", "BTC", "USDT", tick, "0.00001")


def test_exponents_come_from_the_increments() -> None:
    one = make()
    assert (one.price_exponent, one.size_exponent) == (2, 5)
    assert one.key == "acme:spot:BTCUSDT"


def test_the_table_numbers_instruments_and_finds_them_by_symbol() -> None:
    table = InstrumentTable([make("A"), make("B")])
    symbols = table.symbols("acme", "spot")
    assert (symbols["A"], symbols["B"], len(table)) == (0, 1, 2)
    assert table.add(make("C", market="linear")) == 2
    assert "C" not in symbols
    assert table.add(make("D")) == symbols["D"] == 3  # the mapping is live


def test_an_unknown_symbol_is_an_error_of_its_own_kind() -> None:
    symbols = InstrumentTable([make("A")]).symbols("acme", "spot")
    with pytest.raises(UnknownInstrument, match="acme: unknown_instrument: 'X'"):
        symbols["X"]


def test_a_revision_gets_a_new_number_and_rows_keep_the_old_exponents() -> None:
    table = InstrumentTable([make(tick="0.01")])
    assert table.add(make(tick="0.01")) == 0
    assert table.add(make(tick="0.001")) == 1
    assert [one.revision for one in table] == [1, 2]
    assert table.symbols("acme", "spot")["BTCUSDT"] == 1
    assert table.price_exponents[:2].tolist() == [2, 3]


def test_the_exponent_arrays_grow() -> None:
    table = InstrumentTable([make(f"S{n}", tick="0.1") for n in range(200)])
    assert table.price_exponents[:200].tolist() == [1] * 200
    assert table.size_exponents[:200].tolist() == [5] * 200


def test_json_round_trip() -> None:
    one = replace(
        make(),
        contract=Contract.FUTURE,
        size_unit=SizeUnit.CONTRACT,
        expiry_ns=1_800_000_000_000_000_000,
    )
    assert Instrument.from_json(orjson.loads(orjson.dumps(one.to_json()))) == one


def test_increments_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="increment"):
        make(tick="0")
