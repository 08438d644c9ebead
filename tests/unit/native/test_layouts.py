"""The structures of Python are those of C."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingestor.native import native
from ingestor.native.layouts import SIZES, FieldKind, Op, WriterResult

SOURCES = Path(__file__).parents[3] / "ingestor" / "native" / "src"


def names(file: str, prefix: str) -> list[str]:
    """Return the members of an enumeration in C, in order."""
    text = re.sub(r"/\*.*?\*/", "", (SOURCES / file).read_text(), flags=re.DOTALL)
    [body] = [body for body in re.findall(r"enum \{(.*?)\}", text, re.DOTALL) if prefix in body]
    return [name.strip().removeprefix(prefix) for name in body.split(",") if prefix in name]


def test_the_lists_of_steps_and_fields_are_the_same() -> None:
    assert [step.name for step in Op] == names("native.h", "OP_")
    assert [kind.name for kind in FieldKind] == [
        name for name in names("records.h", "FIELD_") if name
    ]
    assert [result.name for result in WriterResult] == ["DONE", "ODD_ROW", "NO_ROOM", "UNKNOWN"]
    assert "enum { DONE, ODD_ROW, NO_ROOM, UNKNOWN };" in (SOURCES / "records.h").read_text()


def test_the_structures_have_the_same_sizes() -> None:
    library = native().library
    if library is None:
        pytest.skip(native().reason)
    assert tuple(library.native_size(which) for which in range(len(SIZES))) == SIZES
    assert library.native_size(len(SIZES)) == 0
