"""Puts rows that were fetched or published later where they were lost."""

from __future__ import annotations

from typing import Final

import numpy as np

from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Kind, Rows

_BACKFILL: Final = int(Flag.BACKFILL)


def in_place(rows: Rows) -> Rows:
    """Return rows with each BACKFILL row behind the GAP that declares it missing.

    Rows from a recording (`ingestor refill`) go behind the GAP of cause `shed` of their time;
    fetched trades behind the GAP whose numbers hold theirs. A GAP all of whose rows came is left
    out; what is still missing keeps its GAP. Rows that fill no GAP among these stay where they are.

    Args:
        rows: Rows of one class in the order of their topic, marks included, of one instrument
            table.
    """
    if not ((rows["flags"] & _BACKFILL) != 0).any():
        return rows
    refilled = _refilled_in_place(rows)
    return _fetched_in_place(refilled) if rows.dtype == RowClass.TRADE.dtype else refilled


def _refilled_in_place(rows: Rows) -> Rows:
    """Put rows that were shed, and published again from a recording, in their place."""
    backfill = (rows["flags"] & _BACKFILL) != 0
    is_shed = (rows["kind"] == Kind.GAP) & (rows["side"] == Cause.SHED)
    gaps = np.flatnonzero(is_shed & ~backfill)
    if not len(gaps):
        return rows
    place = np.arange(len(rows))
    within = np.zeros(len(rows), np.int64)
    keep = np.ones(len(rows), np.bool_)
    ts_recv = rows["ts_recv"]
    for instrument in np.unique(rows["instrument"][gaps]).tolist():
        mine = rows["instrument"] == instrument
        own = gaps[mine[gaps]]
        began = ts_recv[own]
        arrived = np.flatnonzero(mine & ~backfill & ~is_shed)
        behind = np.searchsorted(arrived, own)
        ended = np.where(
            behind < len(arrived),
            ts_recv[arrived[np.minimum(behind, len(arrived) - 1)]] if len(arrived) else 0,
            np.iinfo(np.int64).max,
        )
        for at in np.flatnonzero(mine & backfill).tolist():
            fitting = (own < at) & (began <= ts_recv[at]) & (ts_recv[at] <= ended)
            if is_shed[at]:
                fitting &= began == ts_recv[at]
            if not fitting.any():
                continue
            gap = own[np.flatnonzero(fitting)[-1]]
            if is_shed[at]:  # its range is complete
                keep[[gap, at]] = False
            else:
                place[at], within[at] = gap, ts_recv[at]
    order = np.lexsort((within, place))  # stable
    return rows[order[keep[order]]]


def _fetched_in_place(rows: Rows) -> Rows:
    """Put trades that were fetched in the place that their numbers say."""
    fetched = np.flatnonzero(((rows["flags"] & _BACKFILL) != 0) & (rows["kind"] != Kind.GAP))
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
