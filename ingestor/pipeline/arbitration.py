"""Of the same rows on two lines, the first to arrive counts. Pure.

Two connections carry the same streams of a feed with `lines = 2`. A row is taken when it is first
seen, and its twin is a duplicate. Each line brings the venue's rows in order; only where one comes
back ahead of the other do rows of that moment stand behind later ones. The identity is the venue's:

| row | identity |
|---|---|
| trade | its id |
| quote with a number | the number and the venue's time |
| book update with a number | the number; a lower one that is later is a new beginning |
| all others | what it says, without the time of receipt |

A snapshot that begins a line changes a book only where that line is ahead. One that repairs a book
is: it was asked for after everything that had come. Where both lines were lost, numbers may begin
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.adapter import BookRule, Continuity
from ingestor.columns.sealed import Part, Sealed
from ingestor.model.row_classes import RowClass
from ingestor.model.rows import Cause, Flag, Rows
from ingestor.pipeline.gaps import concerned

MEMORY: Final = 8_192  # rows of one instrument and class that are remembered, at least
_NUMBERED: Final = frozenset({Continuity.RANGE, Continuity.PREVIOUS, Continuity.INCREMENT})
_Mask = NDArray[np.bool_]


class _Recent:
    """Identities of rows, in two halves of which the older one is forgotten."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: set[object] = set()
        self._old: set[object] = set()

    def is_first(self, identity: object) -> bool:
        """Say whether a row was not seen before; it is now."""
        if identity in self._new or identity in self._old:
            return False
        self._new.add(identity)
        if len(self._new) >= MEMORY:
            self._old, self._new = self._new, set()
        return True


@dataclass(slots=True)
class _Numbers:
    """Hold how far numbered rows have come. begun_ns: time of the last new beginning of the
    numbers.

    behind: rows in a row that were no first ones. is_lost: both lines were, since the last row.
    """

    last: int = 0
    ts_event: int = 0
    begun_ns: int = 0
    behind: int = 0
    is_lost: bool = False

    def is_first(self, number: int, ts_event: int, *, has_time: bool) -> bool:
        """Return True if a row was not seen before; it is now.

        Args:
            number: The row's number.
            ts_event: The venue's time in ns.
            has_time: The venue gave a time.
        """
        if number > self.last:
            is_first = not has_time or ts_event >= self.begun_ns  # else from before that
        else:
            is_first = has_time and ts_event > self.ts_event
            # One of them may have been back already, and lag behind what came of the other.
            is_first |= self.is_lost and number < self.last // 2
        self.behind += 1
        if not is_first and self.behind < MEMORY:
            return False
        if number < self.last:
            self.begun_ns = ts_event if has_time else 0
        self.last, self.behind, self.is_lost = number, 0, False
        if has_time:
            self.ts_event = max(self.ts_event, ts_event)
        return True


class Arbiter:
    """Takes the second arrival of each row out of what was sealed."""

    def __init__(self, rule_of: Callable[[int], BookRule]) -> None:
        """rule_of: instrument number -> the rule of its market."""
        self._rule_of = rule_of
        self._recent: dict[tuple[RowClass, int], _Recent] = {}
        self._numbers: dict[tuple[RowClass, int], _Numbers] = {}

    def take(self, sealed: Sealed, paired: NDArray[np.bool_]) -> dict[RowClass, NDArray[np.uint32]]:
        """Take duplicates out; return the instrument of each row, by class.

        Args:
            sealed: what one flush brings; changed in place.
            paired: by instrument number, whether two lines carry it.
        """
        dropped: dict[RowClass, NDArray[np.uint32]] = {}
        lost = [hole for hole in sealed.holes if hole.cause is Cause.DISCONNECT]
        for row_class, rows in _classes(sealed):
            keep = np.ones(len(rows), np.bool_)
            done = 0
            for hole in sorted(lost, key=lambda hole: hole.place(row_class)):
                place = hole.place(row_class)
                self._take_part(row_class, sealed, rows, keep, paired, slice(done, place))
                done = place
                for instrument in concerned(row_class, hole):
                    self._numbers_of(row_class, instrument).is_lost = True
            self._take_part(row_class, sealed, rows, keep, paired, slice(done, len(rows)))
            if not keep.all():
                dropped[row_class] = _remove(sealed, row_class, keep)
        return dropped

    def _take_part(
        self,
        row_class: RowClass,
        sealed: Sealed,
        rows: Rows,
        keep: _Mask,
        paired: _Mask,
        part: slice,
    ) -> None:
        """Judge the rows of one class between two holes. keep: set for each of them."""
        places = part.start + np.flatnonzero(paired[rows["instrument"][part]])
        if len(places):
            keep[places] = self._firsts(row_class, sealed, rows, places)

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Follow new revisions of instruments. numbers: old -> new."""
        self._recent = {(one, numbers.get(of, of)): had for (one, of), had in self._recent.items()}
        self._numbers = {
            (one, numbers.get(of, of)): had for (one, of), had in self._numbers.items()
        }

    def _firsts(
        self, row_class: RowClass, sealed: Sealed, rows: Rows, places: NDArray[np.intp]
    ) -> list[bool]:
        if row_class is RowClass.LEVEL:
            return self._updates(sealed, rows, places)
        chosen = rows[places]
        return [
            self._is_first(row_class, instrument, identity)
            for instrument, identity in zip(
                chosen["instrument"].tolist(), self._identities(row_class, chosen), strict=True
            )
        ]

    def _identities(self, row_class: RowClass, rows: Rows) -> Iterable[object]:
        """Yield what tells each row from others of its instrument and class."""
        if row_class is RowClass.TRADE:
            names = ("trade_id_high", "trade_id_low", "sequence")
            return zip(*(rows[name].tolist() for name in names), strict=True)
        if row_class is not RowClass.QUOTE:
            return _contents(rows)
        times = np.where(rows["flags"] & Flag.NO_VENUE_TIME, 0, rows["ts_event"])
        return (
            (number, ts_event)
            if number and self._rule_of(instrument).continuity is not Continuity.CONNECTION
            else content
            for instrument, number, ts_event, content in zip(
                rows["instrument"].tolist(),
                rows["sequence"].tolist(),
                times.tolist(),
                _contents(rows),
                strict=True,
            )
        )

    def _updates(self, sealed: Sealed, rows: Rows, places: NDArray[np.intp]) -> list[bool]:
        ends = np.cumsum(rows["bids"] + rows["asks"].astype(np.int64))
        firsts = []
        for place in places.tolist():
            row, end = rows[place], int(ends[place])
            instrument, number = int(row["instrument"]), int(row["last"])
            flags, rule = int(row["flags"]), self._rule_of(instrument)
            if flags & Flag.FETCHED:
                firsts.append(True)  # an answer to a request: it came once
            elif number and rule.continuity in _NUMBERED:
                has_time = not flags & Flag.NO_VENUE_TIME
                ts_event, numbers = (
                    int(row["ts_event"]),
                    self._numbers_of(RowClass.LEVEL, instrument),
                )
                firsts.append(numbers.is_first(number, ts_event, has_time=has_time))
            else:
                levels = slice(end - int(row["bids"]) - int(row["asks"]), end)
                content = (
                    *(int(row[name]) for name in ("ts_event", "first", "check_value", "bids")),
                    sealed.prices[levels].tobytes(),
                    sealed.sizes[levels].tobytes(),
                )
                firsts.append(self._is_first(RowClass.LEVEL, instrument, content))
        return firsts

    def _is_first(self, row_class: RowClass, instrument: int, identity: object) -> bool:
        found = self._recent.get((row_class, instrument))
        if found is None:
            found = self._recent[row_class, instrument] = _Recent()
        return found.is_first(identity)

    def _numbers_of(self, row_class: RowClass, instrument: int) -> _Numbers:
        found = self._numbers.get((row_class, instrument))
        if found is None:
            found = self._numbers[row_class, instrument] = _Numbers()
        return found


def _classes(sealed: Sealed) -> list[tuple[RowClass, Rows]]:
    found = [
        (RowClass.TRADE, sealed.trades),
        (RowClass.QUOTE, sealed.quotes),
        (RowClass.LEVEL, sealed.updates),
        *((row_class, part.rows) for row_class, part in sealed.others.items()),
    ]
    return [(row_class, rows) for row_class, rows in found if len(rows)]


def _contents(rows: Rows) -> list[bytes]:
    """Return what each row says, without when it was received."""
    plain = rows.copy()
    plain["ts_recv"] = 0
    size = plain.dtype.itemsize
    text = plain.tobytes()
    return [text[at : at + size] for at in range(0, len(text), size)]


def _remove(sealed: Sealed, row_class: RowClass, keep: _Mask) -> NDArray[np.uint32]:
    """Leave rows out; return the instrument of each, of book updates once for each level."""
    kept_before = np.concatenate(([0], np.cumsum(keep)))
    if row_class is RowClass.TRADE:
        instruments = sealed.trades["instrument"][~keep]
        sealed.trades = sealed.trades[keep]
    elif row_class is RowClass.QUOTE:
        instruments = sealed.quotes["instrument"][~keep]
        sealed.quotes, sealed.quote_frames = sealed.quotes[keep], sealed.quote_frames[keep]
    elif row_class is RowClass.LEVEL:
        levels = sealed.updates["bids"] + sealed.updates["asks"].astype(np.int64)
        of_levels = np.repeat(keep, levels)
        instruments = np.repeat(sealed.updates["instrument"], levels)[~of_levels]
        sealed.updates = sealed.updates[keep]
        sealed.prices, sealed.sizes = sealed.prices[of_levels], sealed.sizes[of_levels]
    else:
        part = sealed.others[row_class]
        instruments = part.rows["instrument"][~keep]
        sealed.others[row_class] = Part(part.rows[keep], part.frames[keep])
    for hole in sealed.holes:
        place = int(kept_before[hole.place(row_class)])
        if row_class is RowClass.TRADE:
            hole.trade = place
        elif row_class is RowClass.QUOTE:
            hole.quote = place
        elif row_class is RowClass.LEVEL:
            hole.update = place
        else:
            hole.others[row_class] = place
    found: NDArray[np.uint32] = instruments
    return found
