from __future__ import annotations

import pytest

from ingestor.model.errors import ConfigError
from ingestor.model.instruments import instrument
from ingestor.sources.replay.filters import check_symbols, matches_any

LISTED = instrument("acme", "spot", "XBT/USD", "BTC-USD", "BTC", "USD", "0.1", "0.1")
INFERRED = instrument("acme", "spot", "ethusd", "ethusd", "ethusd", "", "0.1", "0.1")


@pytest.mark.parametrize("name", ["XBT/USD", "BTC-USD", "acme:spot:XBT/USD"])
def test_an_instrument_has_three_names(name: str) -> None:
    assert matches_any(LISTED, {name})
    assert not matches_any(INFERRED, {name})


@pytest.mark.parametrize("name", ["ETH-USD", "ETH/USD", "ETHUSD", "ethusd"])
def test_one_that_is_inferred_is_known_by_its_letters(name: str) -> None:
    assert matches_any(INFERRED, {name})
    assert not matches_any(LISTED, {"XBTUSD"})


def test_a_name_of_nothing_is_said_with_the_nearest() -> None:
    check_symbols(["BTC-USD", "ETH-USD"], [LISTED, INFERRED])
    with pytest.raises(ConfigError, match="no instrument 'BTC-USDT' is recorded; did you mean BTC"):
        check_symbols(["BTC-USDT"], [LISTED, INFERRED])
    with pytest.raises(ConfigError, match="no instrument 'A' is recorded; none is known"):
        check_symbols(["A"], [])
