"""A shape as C reads it: a list of steps and what all of its rows have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import RowClass
from ingestor.native.layouts import OPERATION, SHAPE, Op

# Where each class's rows go.
OUTPUT_OF: Final = {RowClass.TRADE: 0, RowClass.QUOTE: 1, RowClass.LEVEL: 2}


@dataclass(frozen=True, slots=True)
class Step:
    """One step. What the members mean depends on the kind: `src/native.h` has the list.

    at, at2: bytes from the row's beginning. jump: an index into the shape's steps. least, most: of
    a number. choices: texts, each with its value.
    """

    kind: Op
    width: int = 0
    at: int = 0
    at2: int = 0
    jump: int = 0
    text: bytes = b""
    least: int = 0
    most: int = 2**63 - 1
    choices: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CompiledShape:
    """One kind of frame.

    row: the 64 bytes that a row begins as. newest_first: whether the frame's rows are turned
    around. text: what it was declared as.
    """

    row_class: RowClass
    row: bytes
    steps: tuple[Step, ...]
    newest_first: bool
    text: str


@dataclass(frozen=True, slots=True)
class ShapeArrays:
    """The arrays that C reads. operations: OPERATION[n]; shapes: SHAPE[m]; texts: uint8."""

    operations: NDArray[np.void]
    shapes: NDArray[np.void]
    texts: NDArray[np.uint8]


def arrays_of(shapes: Sequence[CompiledShape]) -> ShapeArrays:
    """Return shapes as C reads them."""
    steps = [step for shape in shapes for step in shape.steps]
    operations = np.zeros(len(steps), OPERATION)
    heads = np.zeros(len(shapes), SHAPE)
    texts = bytearray(b"\0")  # so that no text begins where an empty one would
    first = 0
    for head, shape in zip(heads, shapes, strict=True):
        head["first"], head["row_class"] = first, OUTPUT_OF[shape.row_class]
        head["newest_first"] = shape.newest_first
        head["row"] = np.frombuffer(shape.row, np.uint8)
        first += len(shape.steps)
    for operation, step in zip(operations, steps, strict=True):
        for name in ("kind", "width", "at", "at2", "jump", "least", "most"):
            operation[name] = getattr(step, name)
        operation["text_at"], operation["length"] = len(texts), len(step.text)
        texts += step.text
        operation["choices"] = len(step.choices)
        for choice, (text, value) in zip(operation["choice"], step.choices, strict=False):
            choice["text_at"], choice["length"], choice["value"] = len(texts), len(text), value
            texts += text
    return ShapeArrays(operations, heads, np.frombuffer(bytes(texts), np.uint8))


def as_printed(shapes: Sequence[CompiledShape]) -> list[CompiledShape]:
    """Return shapes that take no number with more decimals than the exponent, zeros or not, and
    each frame whatever its number.
    """
    return [replace(shape, steps=tuple(map(_as_printed, shape.steps))) for shape in shapes]


def _as_printed(step: Step) -> Step:
    if step.kind is Op.DECIMAL:
        return replace(step, at2=1)
    return Step(Op.DIGITS) if step.kind is Op.COUNT else step
