"""Find the frames whose columns can't be converted, where converting all of them raises.

This is for exceptions that nothing foresaw, such as an instrument number that no table has. It is
slow, and rare.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from ingestor.columns.sealed import Gap, Rejected, Source
from ingestor.model.decimals import INT64_MAX
from ingestor.model.instruments import InstrumentTable
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Rows
from ingestor.native import Taken

DEFERRED_WIDTH: Final = 5  # members of a kept event: reader, event, instrument, ts_recv, frame


@dataclass(slots=True)
class Appended:
    """Hold the events that decoders appended since the last flush.

    trades, quotes: DEFERRED_WIDTH members for each event, in order. level_texts: prices and sizes
    of the updates' levels, in turns. answers: numbers of the frames that are answers to requests.
    bugs: as in `Sealed`. others: as trades, of other classes. taken: rows that the compiled library
    made.
    """

    trades: list[Any]
    quotes: list[Any]
    updates: Rows
    level_texts: list[object]
    frames: list[bytes]
    sources: list[Source]
    holes: list[Gap] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    answers: set[int] = field(default_factory=set)
    bugs: list[Exception] = field(default_factory=list)
    others: dict[RowClass, list[Any]] = field(default_factory=dict)
    taken: Taken | None = None

    @property
    def deferred(self) -> Iterator[tuple[RowClass, list[Any]]]:
        """Yield each class whose events are read by columns, with them."""
        yield RowClass.TRADE, self.trades
        yield RowClass.QUOTE, self.quotes
        yield from self.others.items()


def guilty_frames(
    appended: Appended, convert: Callable[[Appended], object]
) -> dict[int, Exception]:
    """Return the frames that raise when they are converted alone, each with what it raised."""
    found: dict[int, Exception] = {}
    numbers = {frame for _, deferred in appended.deferred for frame in deferred[4::DEFERRED_WIDTH]}
    for frame in sorted(numbers | {*appended.updates["frame"].tolist()}):
        try:
            convert(_part(appended, {frame}, is_kept=True))
        except Exception as failure:  # noqa: BLE001  # the boundary of a frame
            found[frame] = failure
    return found


def neutralize(appended: Appended, frames: Collection[int], table: InstrumentTable) -> None:
    """Put rows that convert in the place of those that came with some frames.

    They keep place, instruments and times of receipt, so that they can be taken out like others.

    Args:
        appended: Changed in place.
        frames: Numbers of the frames.
        table: Has the instruments' exponents.
    """
    for row_class, deferred in appended.deferred:
        read_nothing = partial(_read_nothing, len(row_class.numbers))
        for start in range(0, len(deferred), DEFERRED_WIDTH):
            if deferred[start + 4] in frames:
                instrument, ts_recv = deferred[start + 2 : start + 4]
                deferred[start] = read_nothing
                deferred[start + 2] = _known(instrument, table)
                deferred[start + 3] = ts_recv if _is_time(ts_recv) else 0
    rest = _part(appended, frames, is_kept=False)
    appended.level_texts = rest.level_texts
    appended.updates = updates = appended.updates.copy()
    is_guilty = np.isin(updates["frame"], list(frames))
    for name in ("bids", "asks", "first", "last", "previous"):
        updates[name][is_guilty] = 0
    known = [_known(number, table) for number in updates["instrument"][is_guilty].tolist()]
    updates["instrument"][is_guilty] = known


def _part(appended: Appended, frames: Collection[int], *, is_kept: bool) -> Appended:
    """Return what came with these frames, or with all others."""
    updates = appended.updates
    keep = np.isin(updates["frame"], list(frames)) == is_kept
    texts: list[object] = []
    text = 0
    counts = 2 * (updates["bids"].astype(np.int64) + updates["asks"])
    for is_wanted, count in zip(keep.tolist(), counts.tolist(), strict=True):
        texts += appended.level_texts[text : text + count * is_wanted]
        text += count
    return Appended(
        trades=_of(appended.trades, frames, is_kept=is_kept),
        quotes=_of(appended.quotes, frames, is_kept=is_kept),
        updates=updates[keep],
        level_texts=texts,
        frames=appended.frames,
        sources=appended.sources,
        others={
            row_class: _of(deferred, frames, is_kept=is_kept)
            for row_class, deferred in appended.others.items()
        },
    )


def _of(deferred: list[Any], frames: Collection[int], *, is_kept: bool) -> list[Any]:
    return [
        member
        for start in range(0, len(deferred), DEFERRED_WIDTH)
        if (deferred[start + 4] in frames) == is_kept
        for member in deferred[start : start + DEFERRED_WIDTH]
    ]


def _read_nothing(width: int, events: list[Any], _rows: Rows) -> Sequence[Sequence[object]]:
    return [["1"] * len(events)] * width


def _known(instrument: object, table: InstrumentTable) -> int:
    is_known = isinstance(instrument, int) and 0 <= instrument < len(table)
    return instrument if is_known and isinstance(instrument, int) else 0


def _is_time(ts_recv: object) -> bool:
    return isinstance(ts_recv, int) and 0 <= ts_recv <= INT64_MAX
