"""Leaves out rows that nobody asked for, of streams that carry several classes or all symbols.

A venue may send mark prices and funding rates in one stream, or the liquidations of all symbols.
Each connection with such a stream decodes all of it; a row stands only where the connection is
subscribed to its class and instrument, so that it comes once, and to who wants it.
"""

from __future__ import annotations

import numpy as np

from ingestor.columns.sealed import Sealed
from ingestor.model.row_classes import RowClass


def keep_asked(sealed: Sealed, row_class: RowClass) -> None:
    """Take out the rows of a class whose connections don't carry them.

    Args:
        sealed: what a flush took; its rows of the class, and the places of its gaps, change.
        row_class: one of those that have no way of their own.
    """
    part = sealed.others[row_class]
    places: dict[int, list[int]] = {}
    for place, frame in enumerate(part.frames.tolist()):
        places.setdefault(id(sealed.sources[frame]), []).append(place)
    keep = np.zeros(len(part.rows), np.bool_)
    for at in places.values():
        source = sealed.sources[int(part.frames[at[0]])]
        keep[at] = np.isin(part.rows["instrument"][at], source.instruments(row_class))
    if keep.all():
        return
    passed = np.concatenate(([0], np.cumsum(keep)))
    for hole in sealed.holes:
        hole.others[row_class] = int(passed[hole.others.get(row_class, 0)])
    part.rows, part.frames = part.rows[keep], part.frames[keep]
