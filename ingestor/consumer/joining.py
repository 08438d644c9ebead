"""Joins the rows of consecutive records, which are often one row each, into one array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ingestor.model.batch import InstrumentLike, Instruments, TickBatch
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows

_TABLES_MAX: Final = 4_096  # of instruments, whose numbers are remembered


@dataclass(frozen=True, slots=True)
class Piece:
    """New rows of one record, or of some that follow each other.

    ends: how many of the rows are in the records up to each. next_offsets: the offset behind each.
    """

    batch: TickBatch
    ends: Sequence[int] | NDArray[np.int64]
    next_offsets: Sequence[int] | NDArray[np.int64]

    @classmethod
    def of(cls, batch: TickBatch, next_offset: int) -> Self:
        """Return the rows of one record."""
        return cls(batch, (len(batch),), (next_offset,))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one class, of consecutive records of one partition.

    ends: int64[records], how many of the rows are in the records up to each. next_offsets:
    int64[records], the offset behind each.
    """

    batch: TickBatch
    ends: NDArray[np.int64]
    next_offsets: NDArray[np.int64]

    def next_offset(self, rows: int) -> int | None:
        """Return the offset behind the last record all of whose rows are among the first `rows`;
        None where there is none.
        """
        records = int(self.ends.searchsorted(rows, "right"))
        return int(self.next_offsets[records - 1]) if records else None


class Joiner:
    """Gives the instruments of many records one table, whose numbers stay as they are."""

    def __init__(self) -> None:
        self.instruments: list[InstrumentLike] = []
        self._numbers: dict[tuple[str, int, int, int], int] = {}
        # By identity: codecs give equal tables as one object. Each is kept, so no other one can
        # have its identity.
        self._tables: dict[int, tuple[Instruments, NDArray[np.uint32]]] = {}

    def join(self, pieces: Iterable[Piece]) -> Iterator[Chunk]:
        """Yield the rows of records as few chunks, one for each run of a class."""
        for row_class, run in groupby(pieces, lambda one: one.batch.row_class):
            yield self._chunk(row_class, list(run))

    def _chunk(self, row_class: RowClass, run: Sequence[Piece]) -> Chunk:
        parts = [item.batch.rows for item in run]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        tables = [self._table(item.batch.instruments) for item in run]
        packed = bytearray().join([np.ascontiguousarray(part).data for part in parts])
        rows: Rows = np.frombuffer(packed, row_class.dtype)
        if all(len(table) == 1 for table in tables):
            rows["instrument"] = np.concatenate(tables).repeat(lengths)
        else:
            numbers = [table[part["instrument"]] for table, part in zip(tables, parts, strict=True)]
            rows["instrument"] = np.concatenate(numbers)
        ends = lengths.cumsum()
        if all(len(item.ends) == 1 for item in run):
            next_offsets = np.fromiter((item.next_offsets[0] for item in run), np.int64, len(run))
        else:
            starts = ends - lengths
            next_offsets = np.concatenate([item.next_offsets for item in run])
            ends = np.concatenate(
                [np.asarray(one.ends) + start for one, start in zip(run, starts, strict=True)]
            )
        return Chunk(TickBatch(row_class, rows, self.instruments), ends, next_offsets)

    def _table(self, instruments: Instruments) -> NDArray[np.uint32]:
        """Return the number in our table of each number of a record's."""
        found = self._tables.get(id(instruments))
        if found is None or len(found[1]) != len(instruments):
            if len(self._tables) >= _TABLES_MAX:
                self._tables.clear()
            numbers = [self._number(instruments[number]) for number in range(len(instruments))]
            found = instruments, np.array(numbers, np.uint32)
            self._tables[id(instruments)] = found
        return found[1]

    def _number(self, one: InstrumentLike) -> int:
        identity = (one.key, one.price_exponent, one.size_exponent, one.revision)
        number = self._numbers.get(identity)
        if number is None:
            number = self._numbers[identity] = len(self.instruments)
            self.instruments.append(one)
        return number
