"""A declaration that breaks a rule is refused, with the hole's name."""

from __future__ import annotations

import numpy as np
import pytest

from ingestor.adapter.shapes import level_pairs, shape, shapes_of
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import TRADE, UPDATE, Flag, Kind
from ingestor.native.layouts import Op
from ingestor.sources.registry import adapter_of

REST = '"p":"<price:price>","q":"<size:size>","m":<side:b=1|s=2>}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"p":"<price:price>","s":"<symbol>"}', "a number before its symbol"),
        ('{"s":"<symbol>","p":"<price:price>"}', "no hole for side, size"),
        ('{"s":"<symbol>",' + REST.replace("size:size", "size:bid_size"), "bid_size"),
        ('{"s":"<symbol>",' + REST.replace("side:", "sides:"), "no field 'sides'"),
        ('{"s":"<symbol>",' + REST.replace("s=2", "s"), "side:b=1|s"),
        ('{"s":"<symbol>",' + REST.replace("side:", "price:"), "price:b=1"),
        ('{"n":<int:nothing>,"s":"<symbol>",' + REST, "no field 'nothing'"),
        ('{"n":<int:sequence,flags>,"s":"<symbol>",' + REST, "different sizes"),
        ('{"n":<next:kind>,"s":"<symbol>",' + REST, "fields of 8 bytes"),
        ('<[>{"s":"<symbol>",' + REST, "an array without its end"),
        ('{"s":"<symbol>",' + REST + "<]>", "the end of no array"),
        ('{"s":"<symbol>",' + REST + "<", "no hole"),
    ],
)
def test_declarations_that_break_a_rule(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("|", r"\|")):
        shape(RowClass.TRADE, text)


def test_a_row_begins_as_its_class_and_constants_say() -> None:
    made = shape(RowClass.TRADE, '{"s":"<symbol>",' + REST, flags=int(Flag.SNAPSHOT))
    [row] = np.frombuffer(made.row, TRADE)
    assert (row["kind"], row["flags"]) == (Kind.TRADE, Flag.SNAPSHOT)
    text = f'{{"s":"<symbol>","b":{level_pairs("bids")}}}'
    [update] = np.frombuffer(shape(RowClass.LEVEL, text).row, UPDATE)
    assert not any(update.tolist())


def test_integers_keep_to_their_fields_range() -> None:
    text = '{"s":"<symbol>","c":<int:check_value>,"n":<int:first>=1>}'
    steps = [step for step in shape(RowClass.LEVEL, text).steps if step.kind is Op.INTEGER]
    assert [(step.least, step.most, step.width) for step in steps] == [
        (0, 2**32 - 1, 4),
        (1, 2**63 - 1, 8),
    ]


def test_an_adapter_may_declare_none() -> None:
    assert shapes_of(adapter_of("binance"), "spot")
    assert shapes_of(object, "spot") == ()
