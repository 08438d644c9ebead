"""The table of row classes: what an entry must be, and the view of control rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ingestor.model.row_classes import (
    ROW_CLASSES,
    Exponent,
    RowClass,
    RowClasses,
    control_row,
    is_control,
)
from ingestor.model.rows import HEADER, TRADE, Cause, Flag, Kind
from tests.fakes.weather import WEATHER, WEATHER_DTYPE, known

WHOLE: list[tuple[str, str]] = [*HEADER, ("a", "<i8"), ("b", "<i8")]


def entry(**changes: Any) -> RowClass:
    options: dict[str, Any] = {
        "id": 201,
        "name": "MADE",
        "channel": "made",
        "kind_name": "made",
        "dtype": np.dtype(WHOLE),
        "title": "Made",
        "numbers": {"a": Exponent.PRICE},
    }
    return RowClass(**(options | changes))


@pytest.mark.parametrize("row_class", [*ROW_CLASSES, WEATHER], ids=lambda one: one.name)
def test_a_control_row_names_what_is_missing(row_class: RowClass) -> None:
    row = control_row(row_class, Kind.GAP, 7, 123, cause=Cause.SHED, first=10, last=12)
    assert row.dtype == row_class.dtype
    assert is_control(row).all()
    control = row.view(row_class.control)[0]
    assert (control["first"], control["last"], control["cause"]) == (10, 12, Cause.SHED)
    assert (control["instrument"], control["ts_recv"], control["kind"]) == (7, 123, Kind.GAP)
    assert control["flags"] == Flag.LAST | Flag.NO_VENUE_TIME
    plain = np.zeros(1, row_class.dtype)
    plain["kind"] = row_class.id
    assert not is_control(plain).any()


def test_first_and_last_stand_where_they_always_did() -> None:
    row = control_row(RowClass.TRADE, Kind.GAP, 0, 0, first=10, last=12)
    assert (row["price"][0], row["size"][0]) == (10, 12)
    row = control_row(RowClass.QUOTE, Kind.GAP, 0, 0, first=10, last=12)
    assert (row["bid_price"][0], row["bid_size"][0]) == (10, 12)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": np.dtype(WHOLE[1:])},  # no header
        {"dtype": np.dtype([("a", "<i8"), *HEADER, ("b", "<i8")])},  # not first
        {"dtype": np.dtype([*HEADER, ("a", "<i8")])},  # no room for a control row
        {"dtype": np.dtype([*WHOLE, ("c", "<u4")])},  # not a multiple of 8
        {"dtype": np.dtype([*WHOLE, ("c", "<u4"), ("d", "<i8")], align=True)},  # padded
        {"dtype": np.dtype([*WHOLE, ("c", "<f8")])},  # no integer
        {"dtype": np.dtype([*HEADER, ("a", "<u8"), ("b", "<i8")])},  # a number that is unsigned
        {"numbers": {"c": Exponent.SIZE}},
        {"ids": {"made_id": ("b", "c")}},
        {"names": {"c": {1: "one"}}},
        {"key_fields": ("c",)},
        {"resent_by": "c"},
        {"optional": frozenset({"c"})},
        {"optional": frozenset({"side"})},  # no <i8
        {"numbers": {"a": Exponent.OWN}},  # no field `exponent`
    ],
)
def test_an_entry_that_does_not_fit_its_dtype_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"row|MADE"):
        entry(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"id": 4}, {"id": 5}, {"id": 0}, {"id": 256}, {"id": 1}, {"channel": "trades"}],
)
def test_ids_and_channels_are_unique(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"taken|no id"):
        RowClasses((*ROW_CLASSES, entry(**changes)))


def test_the_table_finds_classes() -> None:
    assert [row_class.id for row_class in ROW_CLASSES] == [1, 2, 3, *range(8, 17)]
    assert ROW_CLASSES.channels[:4] == ("trades", "quotes", "book", "funding")
    count = len(ROW_CLASSES)
    with known():
        assert ROW_CLASSES.of_id(200) is ROW_CLASSES.of_channel("weather") is WEATHER
        assert ROW_CLASSES.kind_name(200) == "forecast"
        assert len(ROW_CLASSES) == count + 1
    assert (ROW_CLASSES.kind_name(Kind.GAP), ROW_CLASSES.kind_name(1)) == ("gap", "trade")
    for find in (ROW_CLASSES.of_id, ROW_CLASSES.kind_name):
        with pytest.raises(KeyError):
            find(200)
    assert (WEATHER.topic, WEATHER.schema) == ("weather.v1", "weather.v1")
    assert WEATHER.fields == (WEATHER_DTYPE.names or ())[7:]
    assert RowClass.TRADE.dtype is TRADE
