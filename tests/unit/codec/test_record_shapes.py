"""The shape of a class's records has the texts that the encoder writes, in their order."""

from __future__ import annotations

import pytest

from ingestor.codec.json_encoder import value_prefix
from ingestor.codec.record_shapes import READ, record_shape
from ingestor.model.row_classes import RowClass
from ingestor.native import Op
from tests.unit.codec.test_record_batches import MADE, SESSION, TABLE, json_pairs


@pytest.mark.parametrize("row_class", READ, ids=lambda one: one.name)
def test_the_texts_of_a_shape_are_those_of_a_record(row_class: RowClass) -> None:
    [(_, value), *_] = json_pairs(row_class, MADE[row_class](3))
    assert value is not None
    one = TABLE[1]
    rest = value.removeprefix(value_prefix(one.key, one.revision, row_class, SESSION.hex()))
    assert rest != value
    for step in record_shape(row_class).steps:
        if step.kind is Op.LITERAL:
            before, text, rest = rest.partition(step.text)
            assert text, (step.text, before)
    assert rest == b""


def test_every_loop_of_a_shape_comes_back_to_itself() -> None:
    steps = record_shape(RowClass.LEVEL).steps
    begins = [index for index, step in enumerate(steps) if step.kind is Op.EACH]
    ends = [index for index, step in enumerate(steps) if step.kind is Op.NEXT]
    assert [steps[index].jump for index in begins] == ends
    assert [steps[index].jump for index in ends] == begins
