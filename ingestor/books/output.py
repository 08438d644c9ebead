"""Defines what one flush of book updates gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestor.books.repair_planner import Repair
from ingestor.model.errors import SequenceGap
from ingestor.model.rows import Rows


@dataclass(slots=True)
class BookOutput:
    """Hold the result of one flush of the books.

    rows: LEVEL rows in order per instrument. quotes: QUOTE rows taken from books, with their GAP
    marks. filtered: levels that synchronisation discarded, or that nobody asked for. held: levels
    waiting for a snapshot now. added: the instrument of each row in `rows` that removes a level by
    our own choice (beyond the depth kept). errors: what broke, for the log. bugs: instrument and
    exception, where the code of a book raised what nothing foresaw.
    is_whole: `rows` are the levels of all updates as they came, nothing left out or put in.
    """

    rows: Rows
    quotes: Rows
    filtered: int
    held: int
    repairs: list[Repair]
    added: list[int] = field(default_factory=list)
    errors: list[SequenceGap] = field(default_factory=list)
    bugs: list[tuple[int, Exception]] = field(default_factory=list)
    is_whole: bool = False
