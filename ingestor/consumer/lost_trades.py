"""Puts trades that were fetched later where they were lost."""

from __future__ import annotations

from typing import Final

import numpy as np

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows

_BACKFILL: Final = int(Flag.BACKFILL)


def in_place(rows: Rows) -> Rows:
    """Return trades with each BACKFILL row behind the GAP that declares it missing.

    A GAP all of whose numbers came is left out; what is still missing keeps its GAP. Rows that fill
    no GAP among these stay where they are.

    Args:
        rows: TRADE rows in the order of their topic, marks included, of one instrument table.
    """
    fetched = np.flatnonzero((rows["flags"] & _BACKFILL) != 0)
    if not len(fetched):
        return rows
    controls = rows.view(RowClass.TRADE.control)
    is_gap = (
        (rows["kind"] == Kind.GAP) & (controls["cause"] == Cause.SEQUENCE) & (controls["first"] > 0)
    )
    gaps = np.flatnonzero(is_gap)
    place = np.arange(len(rows))
    number = np.zeros(len(rows), np.int64)
    for instrument in np.unique(rows["instrument"][fetched]).tolist():
        own = gaps[rows["instrument"][gaps] == instrument]
        firsts, lasts = controls["first"][own], controls["last"][own]
        for at in fetched[rows["instrument"][fetched] == instrument].tolist():
            sequence = int(rows["sequence"][at])
            fitting = np.flatnonzero((firsts <= sequence) & (sequence <= lasts) & (own < at))
            if len(fitting):
                place[at], number[at] = own[fitting[-1]], sequence
    missing = controls["last"][gaps] - controls["first"][gaps] + 1
    came = np.bincount(place[fetched], minlength=len(rows))[gaps]
    keep = np.ones(len(rows), np.bool_)
    keep[gaps[came == missing]] = False
    order = np.lexsort((number, place))
    return rows[order[keep[order]]]
