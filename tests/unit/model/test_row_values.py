"""The values of fields with names are promises, as their names in JSON are."""

from __future__ import annotations

from enum import IntEnum

import pytest

from ingestor.model import row_values
from ingestor.model.row_values import names_of

PROMISED = {
    "FundingState": "unknown predicted settled",
    "InterestUnit": "unknown base quote contract usd",
    "Position": "unknown long short",
    "PriceKind": "unknown order bankruptcy fill mark",
    "CandleState": "unknown open closed",
    "Origin": "venue trades",
    "InstrumentState": "unknown trading halted auction maintenance delisting closed pre_open "
    "cancel_only post_only limit_only reduce_only settling",
    "StatusScope": "unknown instrument market venue",
    "OrderAction": "unknown add change remove match",
    "OrderReason": "unknown filled canceled amended",
}


@pytest.mark.parametrize("name", PROMISED)
def test_values_and_names(name: str) -> None:
    values: type[IntEnum] = getattr(row_values, name)
    assert names_of(values) == dict(enumerate(PROMISED[name].split()))
