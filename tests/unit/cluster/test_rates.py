"""Rates of shards: measured, told, and made into weights."""

from __future__ import annotations

import orjson
import pytest

from ingestor.cluster.rates import (
    HOT_MAX,
    ShardRates,
    rates_key,
    rates_of,
    read_rates,
    weights_of,
)


def test_what_was_there_all_the_time_is_measured() -> None:
    found = rates_of({"a": 100, "b": 0, "gone": 5}, {"a": 1_100, "b": 50, "new": 9_999}, 4, 10.0)
    assert found == ShardRates(105.0, 4, {"a": 100.0, "b": 5.0})


def test_a_record_names_the_busiest_alone() -> None:
    now = {f"s{number}": number for number in range(HOT_MAX + 100)}
    found = rates_of(dict.fromkeys(now, 0), now, len(now), 1.0)
    assert len(found.hot) == HOT_MAX
    assert min(found.hot.values()) == 100
    assert found.rate == sum(now.values())


def test_records_come_back_and_others_are_none() -> None:
    rates = ShardRates(105.0, 4, {"a": 100.0})
    value = orjson.dumps(rates)
    assert read_rates(rates_key(7), value) == (7, rates)
    for key, other in ((b"7", value), (b"rates:x", value), (b"rates:7", b"[]"), (b"rates:7", None)):
        assert read_rates(key, other) is None


def test_weights_are_in_units_of_the_mean_stream() -> None:
    found = weights_of([ShardRates(90.0, 9, {"hot": 80.0, "idle": 0.0}), ShardRates(10.0, 1)])
    assert found == {"hot": 8.0, "idle": pytest.approx(0.01)}
    assert weights_of([]) == weights_of([ShardRates(0.0, 5, {"a": 0.0})]) == {}
