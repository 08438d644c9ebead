"""Write what the fuzz target needs: `python -m tests.fuzz.inputs FOLDER`.

FOLDER/inputs.h has the shapes and symbols of every market as C reads them, and those of records;
FOLDER/corpus has a few frames, records and updates of books to begin with.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.adapter.shapes import shapes_of
from ingestor.codec.json_encoder import value_prefix
from ingestor.codec.record_shapes import READ, record_shape
from ingestor.native import CompiledShape, KnownPrefix, Op, RecordReader, native
from ingestor.native.steps import ShapeArrays, arrays_of
from ingestor.native.symbols import SymbolTable
from ingestor.sources.registry import adapter_of, registry
from tests.feeds.shape_frames import header, mixed, table_of
from tests.unit.codec.test_record_batches import MADE, SESSION, TABLE, json_pairs, records_of

FRAMES: Final = 20  # of each market, in the corpus
_RECORDS: Final = 6  # rows of each class, in the corpus


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    library = native().library
    assert library is not None, native().reason
    lines, random = ["/* Made by tests/fuzz/inputs.py. */"], Random(11)
    markets: list[str] = []
    for venue in registry().sources:
        for market in adapter_of(venue).markets:
            shapes = shapes_of(adapter_of(venue), market)
            if not shapes:
                continue
            number, table = len(markets), SymbolTable(library)
            table.set(
                (one.symbol.encode(), index, (one.price_exponent, one.size_exponent))
                for index, one in enumerate(table_of(venue, market))
            )
            lines += _declared(number, arrays_of(shapes), table)
            markets.append(_initializer(number, len(shapes), table, is_counted=_counts(shapes)))
            for index, frame in enumerate(mixed(shapes, FRAMES, random)):
                text = bytes([number, index % 2]) + (header(frame) if index % 2 else frame)
                (folder / "corpus" / f"{number}-{index}").write_bytes(text)
    number = len(markets)
    reader = RecordReader(library, [record_shape(row_class) for row_class in READ])
    reader.know(_prefixes())
    lines += _declared(number, reader.arrays, reader.table)
    markets.append(_initializer(number, len(READ), reader.table))
    lines += _arrays("", {"prefixes": reader.prefixes, "prefix_texts": reader.texts})
    lines += [f"static const Market markets[] = {{{', '.join(markets)}}};"]
    (folder / "inputs.h").write_text("\n".join(lines) + "\n")
    for index in range(FRAMES):  # updates of a book
        text = bytes([number + 1, random.randrange(256)]) + random.randbytes(100 * index)
        (folder / "corpus" / f"book-{index}").write_bytes(text)
    for row_class in READ:
        pairs = json_pairs(row_class, MADE[row_class](_RECORDS))
        text = bytes([number, len(pairs)]) + records_of(pairs)
        (folder / "corpus" / f"records-{row_class.name}").write_bytes(text)


def _prefixes() -> list[KnownPrefix]:
    return [
        KnownPrefix(
            one.key.encode(),
            value_prefix(one.key, one.revision, row_class, SESSION.hex()),
            row_class,
            number,
            0,
            (one.price_exponent, one.size_exponent),
        )
        for row_class in READ
        for number, one in enumerate(TABLE)
    ]


def _declared(number: int, arrays: ShapeArrays, table: SymbolTable) -> list[str]:
    return _arrays(
        f"_{number}",
        {
            "operations": arrays.operations,
            "shapes": arrays.shapes,
            "texts": arrays.texts,
            "symbols": table.slots,
            "names": table.names,
        },
    )


def _arrays(suffix: str, arrays: Mapping[str, NDArray[np.generic]]) -> list[str]:
    return [
        f"_Alignas(8) static const uint8_t {name}{suffix}[] = "
        f"{{{','.join(map(str, array.tobytes()))}}};"
        for name, array in arrays.items()
    ]


def _counts(shapes: Sequence[CompiledShape]) -> bool:
    return any(step.kind is Op.COUNT for shape in shapes for step in shape.steps)


def _initializer(number: int, shapes: int, table: SymbolTable, *, is_counted: bool = False) -> str:
    names = ("operations", "shapes", "texts", "symbols", "names")
    pointers = ", ".join(f"{name}_{number}" for name in names)
    return f"{{{pointers}, {len(table.slots) - 1}, {shapes}, {int(is_counted)}}}"


if __name__ == "__main__":
    main()
