"""Define the result of sealing: rows, declared holes and rejected frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Rows


class Source(Protocol):
    """Identify the connection that a frame came from."""

    def instruments(self, row_class: RowClass) -> Sequence[int]:
        """Return the numbers of the instruments subscribed to on it, for one class."""

    def count_refused(self, reason: str) -> None:
        """Count a frame as refused that was pending until its columns were sealed."""


@dataclass(slots=True)
class Gap:
    """Rows that a source may have lost, at a place in the stream.

    update, trade, quote: rows of each class that were appended before it. ts_recv: ns. after: the
    last frame that began before it.
    instruments: who is concerned; None = every instrument of the source. row_class: the class of
    rows that may be lost; None = each that the source carries. is_part: the source is some streams
    of a connection, which say nothing of what else it carries. others: as `trade`, for classes that
    have no member of their own.
    """

    source: Source
    cause: Cause
    ts_recv: int
    update: int
    trade: int
    quote: int
    frame: int = -1
    first: int = 0
    last: int = 0
    instruments: Sequence[int] | None = None
    row_class: RowClass | None = None
    is_part: bool = False
    after: int = -1
    others: dict[RowClass, int] = field(default_factory=dict)

    def place(self, row_class: RowClass) -> int:
        """Return how many rows of a class were appended before it; of LEVEL, how many updates."""
        if row_class is RowClass.TRADE:
            return self.trade
        if row_class is RowClass.QUOTE:
            return self.quote
        return self.update if row_class is RowClass.LEVEL else self.others.get(row_class, 0)


@dataclass(slots=True)
class Rejected:
    """A frame, or an answer to a request, that was refused: its raw bytes and why.

    at_sealing: found only when columns were converted; its source counts it as pending.
    is_frame: False for an answer to a request, which is no frame of the ledger.
    """

    source: Source
    payload: bytes
    reason: str
    detail: str
    ts_recv: int
    at_sealing: bool = False
    is_frame: bool = True


@dataclass(slots=True)
class Part:
    """The rows of one class, and the frame that each came with."""

    rows: Rows
    frames: NDArray[np.int64]


@dataclass(slots=True)
class Sealed:
    """Hold the result of one flush of the buffer.

    trades, quotes: arrays of TRADE and QUOTE rows. updates: array of UPDATE; their levels are
    prices and sizes (int64, bids then asks, update after update). All in order of arrival.
    frames, sources: the raw frames and where they came from; UPDATE.frame and quote_frames (one
    for each quote) index both. bugs: exceptions that nothing foresaw, each of a frame that is among
    `rejected` or of code that decodes many; whoever flushes reports them. unkept_bytes: payload of
    frames that are not in `frames`. others: the rows of all other classes that have some.
    """

    trades: Rows
    quotes: Rows
    updates: Rows
    prices: NDArray[np.int64]
    sizes: NDArray[np.int64]
    quote_frames: NDArray[np.int64]
    frames: list[bytes]
    sources: list[Source]
    holes: list[Gap] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)
    unkept_bytes: int = 0
    others: dict[RowClass, Part] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows decoded: trades, quotes, price levels, and those of other classes."""
        others = sum(len(part.rows) for part in self.others.values())
        return len(self.trades) + len(self.quotes) + len(self.prices) + others
