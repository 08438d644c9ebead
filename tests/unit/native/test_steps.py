"""Shapes become arrays that C reads."""

from __future__ import annotations

from ingestor.model.row_classes import RowClass
from ingestor.native.layouts import Op
from ingestor.native.steps import CompiledShape, Step, arrays_of


def test_texts_and_choices_are_found_where_the_arrays_say() -> None:
    steps = (
        Step(Op.LITERAL, text=b'{"a":'),
        Step(Op.CHOICE, at=30, choices=((b"buy", 1), (b"sell", 2))),
        Step(Op.END),
    )
    row = bytes(range(64))
    shape = CompiledShape(RowClass.QUOTE, row, steps, newest_first=True, text="")
    arrays = arrays_of([shape, shape])
    texts = arrays.texts.tobytes()

    def text(at: int, length: int) -> bytes:
        return texts[at : at + length]

    assert arrays.shapes["first"].tolist() == [0, 3]
    assert arrays.shapes["row_class"].tolist() == [1, 1]
    assert arrays.shapes["row"][1].tobytes() == row
    literal, choice, end = arrays.operations[3:]
    assert text(literal["text_at"], literal["length"]) == b'{"a":'
    assert (choice["choices"], choice["at"], end["kind"]) == (2, 30, Op.END)
    found = [(text(one["text_at"], one["length"]), one["value"]) for one in choice["choice"][:2]]
    assert found == [(b"buy", 1), (b"sell", 2)]
