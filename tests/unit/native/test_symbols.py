"""The hash table holds each text once, where its hash leads."""

from __future__ import annotations

import pytest

from ingestor.native import native
from ingestor.native.layouts import CShapes
from ingestor.native.symbols import SymbolTable


@pytest.mark.parametrize("count", [0, 1, 31, 32, 5_000])
def test_each_text_is_found_and_no_other(count: int) -> None:
    library = native().library
    if library is None:
        pytest.skip(native().reason)
    table, shapes = SymbolTable(library), CShapes()
    table.set((b"S%d" % number, number, (number % 19, 3)) for number in range(count))
    table.show(shapes)
    slots, names = table.slots, bytes(table.names)
    assert shapes.symbols_mask == len(slots) - 1
    assert len(slots) >= 2 * count

    def find(text: bytes) -> int | None:
        slot = library.native_hash(text, len(text)) & shapes.symbols_mask
        while slots[slot]["length"]:
            at = int(slots[slot]["text_at"])
            if names[at : at + int(slots[slot]["length"])] == text:
                return int(slots[slot]["number"])
            slot = (slot + 1) & shapes.symbols_mask
        return None

    assert [find(b"S%d" % number) for number in range(count)] == [*range(count)]
    assert find(b"S%d" % count) is None
