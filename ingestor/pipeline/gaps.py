"""Inserts GAP rows where a hole may have cost rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ingestor.columns.sealed import Gap
from ingestor.model.row_classes import RowClass, control_row
from ingestor.model.rows import Kind, Rows

Mark = tuple[int, int, Gap]  # rows before it, instrument, what it marks


def concerned(row_class: RowClass, hole: Gap) -> Sequence[int]:
    """Return the instruments whose rows of a class a hole may have cost."""
    if hole.row_class not in {None, row_class}:
        return ()
    subscribed = hole.source.instruments(row_class)
    if hole.instruments is None:
        return subscribed
    return [instrument for instrument in hole.instruments if instrument in set(subscribed)]


def with_gaps(row_class: RowClass, rows: Rows, marks: Sequence[Mark]) -> Rows:
    """Insert GAP marks.

    Adjacent holes of one cause are one GAP, so that the rows don't depend on where a flush fell any
    more than `ingestor.sinks.digest` allows for.

    Args:
        row_class: Class of the rows.
        rows: Rows in order of arrival.
        marks: Marks in the order of their holes.

    Returns:
        The rows with the marks among them.
    """
    gaps: list[Rows] = []
    places: list[int] = []
    last: dict[tuple[int, int], int] = {}
    for place, instrument, hole in marks:
        if last.get((place, instrument)) == hole.cause:
            continue
        last[place, instrument] = hole.cause
        places.append(place)
        gaps.append(
            control_row(
                row_class,
                Kind.GAP,
                instrument,
                hole.ts_recv,
                cause=hole.cause,
                first=hole.first,
                last=hole.last,
            )
        )
    return np.insert(rows, places, np.concatenate(gaps)) if gaps else rows
