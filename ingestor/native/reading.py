"""Read the records of Kafka batches with the compiled library."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.native.layouts import (
    PREFIX,
    ROW_BYTES,
    COutput,
    CReading,
    CShapes,
    ReadResult,
    address,
)
from ingestor.native.steps import OUTPUT_OF, CompiledShape, arrays_of
from ingestor.native.symbols import SymbolTable

RECORDS_MAX: Final = 8_192  # of a run
ROWS_ROOM: Final = 8_192  # of each class, at first


@dataclass(frozen=True, slots=True)
class KnownPrefix:
    """Hold how the values of some records begin.

    key: of the records. text: up to the number of their first row. number: of the instrument.
    session: a number for the publisher's session. exponents: of price and size.
    """

    key: bytes
    text: bytes
    row_class: RowClass
    number: int
    session: int
    exponents: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ReadRun:
    """Records that follow each other: of one class and session, their rows without a hole.

    ends: int64[records], how many rows there are up to each record's end. deltas: int64[records],
    each one's offset from the batch's.
    """

    row_class: RowClass
    rows: Rows
    session: int
    first_sequence: int
    ends: NDArray[np.int64]
    deltas: NDArray[np.int64]


class RecordReader:
    """Reads runs of records out of a batch, and says where Python must read one.

    arrays, table, prefixes, texts: what C reads, of the shapes, keys and prefixes.
    """

    def __init__(self, library: ctypes.CDLL, shapes: Sequence[CompiledShape]) -> None:
        """shapes: what follows a prefix, one of each class."""
        self._read = library.native_read
        self._classes = {OUTPUT_OF[shape.row_class]: shape.row_class for shape in shapes}
        self._shape_of = {shape.row_class: index for index, shape in enumerate(shapes)}
        self.arrays = arrays_of(shapes)
        self.table = SymbolTable(library)
        self._shapes = CShapes(
            operations=address(self.arrays.operations),
            shapes=address(self.arrays.shapes),
            texts=address(self.arrays.texts),
            shape_count=len(shapes),
        )
        self._output = COutput()
        self._rows: list[NDArray[np.uint8]] = []
        self._ends = np.empty(RECORDS_MAX, np.int64)
        self._deltas = np.empty(RECORDS_MAX, np.int64)
        self._reading = CReading(
            shapes=ctypes.addressof(self._shapes),
            output=ctypes.addressof(self._output),
            ends=address(self._ends),
            deltas=address(self._deltas),
            records_max=RECORDS_MAX,
        )
        self._address = ctypes.addressof(self._reading)
        self._resize(ROWS_ROOM)
        self.know(())

    def know(self, prefixes: Iterable[KnownPrefix]) -> None:
        """Know these prefixes, and no others."""
        known = list(prefixes)
        self.prefixes = np.zeros(len(known) + 1, PREFIX)
        texts = bytearray()
        last: dict[bytes, int] = {}
        for number, one in enumerate(known, 1):
            row = self.prefixes[number]
            row["text_at"], row["length"] = len(texts), len(one.text)
            row["next"], row["number"] = last.get(one.key, 0), one.number
            row["session"], row["exponents"] = one.session, one.exponents
            row["shape"] = self._shape_of[one.row_class]
            texts += one.text
            last[one.key] = number
        self.texts = np.frombuffer(bytes(texts) or b"\0", np.uint8)
        self.table.set((key, number, (0, 0)) for key, number in last.items())
        self.table.show(self._shapes)
        self._reading.prefixes, self._reading.texts = address(self.prefixes), address(self.texts)

    def begin(self, records: int, least_delta: int, most_delta: int) -> None:
        """Begin with a batch.

        Args:
            records: how many it has.
            least_delta: the first offset that is wanted, from the batch's.
            most_delta: the last one.
        """
        reading = self._reading
        reading.at, reading.left = 0, records
        reading.least_delta, reading.most_delta = least_delta, most_delta

    def run(self, data: bytes) -> tuple[ReadRun | None, ReadResult]:
        """Return the next run of the batch, if there is one, and what ended it.

        data: its records.
        """
        reading = self._reading
        result = ReadResult(self._read(self._address, data, len(data)))
        while result is ReadResult.CUT and not reading.records:
            self._resize(2 * self._output.rows[0].room)
            result = ReadResult(self._read(self._address, data, len(data)))
        if not reading.records:
            return None, result
        row_class = self._classes[reading.row_class]
        used = self._output.rows[reading.row_class].used
        taken = self._rows[reading.row_class][: used * row_class.dtype.itemsize].copy()
        run = ReadRun(
            row_class,
            taken.view(row_class.dtype),
            reading.session,
            reading.first_sequence,
            self._ends[: reading.records].copy(),
            self._deltas[: reading.records].copy(),
        )
        return run, result

    def other(self, data: bytes) -> tuple[bytes, int]:
        """Return the value of the record that ended the run, and its offset from the batch's."""
        reading = self._reading
        return data[reading.value_at : reading.value_at + reading.value_bytes], reading.delta

    def _resize(self, room: int) -> None:
        """Make room for rows; those that are there are lost."""
        self._frames = np.empty(room, np.int64)  # which a row came with: nobody asks
        self._rows = [np.empty(room * ROW_BYTES, np.uint8) for _ in self._output.rows]
        for rows, memory in zip(self._output.rows, self._rows, strict=True):
            rows.rows, rows.frames, rows.room = address(memory), address(self._frames), room
