"""Describe our own JSON records behind their prefix, for the compiled library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from ingestor.codec.fields import Form, JsonField, json_fields
from ingestor.model.row_classes import Exponent, RowClass
from ingestor.model.rows import Side
from ingestor.native import RECORD_FIRST, RECORD_ROWS, CompiledShape, Op, Step
from ingestor.native.layouts import LEVEL_PRICE, LEVEL_SIZE

READ: Final = (RowClass.TRADE, RowClass.QUOTE, RowClass.LEVEL)
_HEAD: Final = ("ts_event", "ts_recv", "sequence", "flags")


def record_shape(row_class: RowClass) -> CompiledShape:
    """Return the shape of a class's records, from the number of their first row on."""
    is_book = row_class is RowClass.LEVEL
    steps = [Step(Op.INTEGER, width=8, at=RECORD_FIRST), _text(',"rows":')]
    steps.append(Step(Op.INTEGER, width=8, at=RECORD_ROWS) if is_book else _text("1"))
    for name in _HEAD:
        steps += [_text(f',"{name}":'), _integer(row_class, name)]
    if is_book:
        steps += [_text(',"bids":'), *_levels(Side.BID, len(steps) + 1)]
        steps += [_text(',"asks":'), *_levels(Side.ASK, len(steps) + 1)]
        steps += [_text("}"), Step(Op.LEVELS_END)]
    else:
        for field in json_fields(row_class):
            steps += _field(row_class, field)
        steps += [_text("}"), Step(Op.ROW)]
    steps.append(Step(Op.END))
    row = np.zeros(1, row_class.dtype)
    row["kind"] = row_class.id
    template = row.tobytes().ljust(64, b"\0")
    return CompiledShape(
        row_class, template, tuple(steps), False, f"records of {row_class.channel}"
    )


def _text(text: str) -> Step:
    return Step(Op.LITERAL, text=text.encode())


def _place(row_class: RowClass, name: str) -> tuple[int, int]:
    """Return where a field stands in a row, and its bytes."""
    assert row_class.dtype.fields is not None
    dtype, at = row_class.dtype.fields[name][:2]
    return int(at), int(dtype.itemsize)


def _integer(row_class: RowClass, name: str) -> Step:
    at, width = _place(row_class, name)
    return Step(Op.INTEGER, width=width, at=at, most=min(2 ** (8 * width), 2**63) - 1)


def _field(row_class: RowClass, field: JsonField) -> Iterator[Step]:
    at, _ = _place(row_class, field.sources[0])
    yield _text(f',"{field.name}":"')
    if field.form is Form.NUMBER:
        yield Step(Op.EXACT, width=int(field.exponent is Exponent.SIZE), at=at)
    elif field.form is Form.ID:
        yield Step(Op.ID, at=at, at2=_place(row_class, field.sources[1])[0])
    else:
        choices = tuple((name.encode(), value) for value, name in field.names.items())
        yield Step(Op.CHOICE, at=at, choices=choices)
    yield _text('"')


def _levels(side: Side, first: int) -> list[Step]:
    """Return one side of a book. first: the index of its first step."""
    element = [
        _text('["'),
        Step(Op.EXACT, width=0, at=LEVEL_PRICE),
        _text('","'),
        Step(Op.EXACT, width=1, at=LEVEL_SIZE),
        _text('"]'),
        Step(Op.LEVEL_ROW, width=int(side)),
    ]
    end = Step(Op.NEXT, jump=first)
    return [Step(Op.EACH, jump=first + len(element) + 1), *element, end]
