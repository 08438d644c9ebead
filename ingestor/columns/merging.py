"""Join rows of the compiled library with rows that were decoded in Python, in frame order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ingestor.columns.sealed import Gap
from ingestor.model.rows import Rows
from ingestor.native import Taken


def place_holes(holes: Iterable[Gap], taken: Taken) -> None:
    """Count the taken rows that precede each hole: those of frames up to the last one before it."""
    frames = taken.trade_frames, taken.quote_frames, taken.update_frames
    for hole in holes:
        trade, quote, update = (
            int(np.searchsorted(numbers, hole.after, side="right")) for numbers in frames
        )
        hole.trade += trade
        hole.quote += quote
        hole.update += update


def merge_rows(
    rows: Rows, frames: NDArray[np.int64], more: Rows, more_frames: NDArray[np.int64]
) -> tuple[Rows, NDArray[np.int64]]:
    """Merge two groups of rows by their frames.

    Args:
        rows: n rows, in frame order.
        frames: int64[n], the frame of each.
        more: m rows of the same dtype, in frame order.
        more_frames: int64[m].

    Returns:
        n + m rows in frame order, and int64[n + m], their frames.
    """
    if not len(more):
        return rows, frames
    if not len(rows):
        return more, more_frames
    joined = np.concatenate([frames, more_frames])
    order = np.argsort(joined, kind="stable")
    return _rows_at([rows, more], order), joined[order]


def merge_updates(
    updates: Rows, levels: NDArray[np.int64], taken: Taken
) -> tuple[Rows, NDArray[np.int64]]:
    """Merge the updates that Python decoded with those of the compiled library.

    Args:
        updates: UPDATE rows, in frame order.
        levels: int64[n, 2], their levels.
        taken: Rows of the compiled library.

    Returns:
        All updates in frame order, and int64[n, 2], their levels.
    """
    if not len(taken.updates):
        return updates, levels
    if not len(updates):
        return taken.updates, taken.levels
    frames = np.concatenate([updates["frame"], taken.updates["frame"]])
    order = np.argsort(frames, kind="stable")
    counts = np.concatenate([_level_counts(updates), _level_counts(taken.updates)])
    begins = np.cumsum(counts) - counts  # of each update's levels, before they are put in order
    counts, begins = counts[order], begins[order]
    ends = np.cumsum(counts)
    at = np.arange(counts.sum()) + np.repeat(begins - (ends - counts), counts)
    return _rows_at([updates, taken.updates], order), np.concatenate([levels, taken.levels])[at]


def _level_counts(updates: Rows) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = updates["bids"].astype(np.int64) + updates["asks"]
    return counts


def _rows_at(groups: list[Rows], order: NDArray[np.intp]) -> Rows:
    """Return rows of joined groups. As words: numpy copies structured rows field by field."""
    dtype = groups[0].dtype
    words = [np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), -1) for rows in groups]
    return np.concatenate(words).take(order, axis=0).reshape(-1).view(dtype)
