"""Batches of rows of one class, with the instruments that their numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows


class InstrumentLike(Protocol):
    """Name the attributes of an instrument that readers of rows use; `Instrument` has them."""

    @property
    def key(self) -> str: ...
    @property
    def price_exponent(self) -> int: ...
    @property
    def size_exponent(self) -> int: ...
    @property
    def revision(self) -> int: ...


class Instruments(Protocol):
    """Instruments by number; `InstrumentTable` and any sequence satisfy it."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> InstrumentLike: ...


@dataclass(slots=True)
class TickBatch:
    """Sealed rows of one class, in order per instrument: what sinks take and consumers get.

    rows: array of TRADE, QUOTE or LEVEL, marks included. instruments: what the rows' `instrument`
    field indexes: the process's table, or the table that came with a Kafka record or a file.
    """

    row_class: RowClass
    rows: Rows
    instruments: Instruments

    def __len__(self) -> int:
        return len(self.rows)
